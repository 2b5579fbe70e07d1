"""SGLang's frontend by its own names: what `import sglang as sgl` offers, and its import paths.

    from sapwood.compat import sglang as sgl      # in the place of `import sglang as sgl`

or, for programs that are not to be touched, before they are imported:

    from sapwood.compat import sglang
    sglang.install()                              # `import sglang` now finds this

Owns: that surface. What it stands for is the language's and the back ends'.
"""

import sys
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final

from .. import assistant as assistant
from .. import assistant_begin as assistant_begin
from .. import assistant_end as assistant_end
from .. import flush_cache as flush_cache
from .. import function as function
from .. import gen as gen
from .. import gen_int as gen_int
from .. import gen_string as gen_string
from .. import get_server_info as get_server_info
from .. import global_config as global_config
from .. import greedy_token_selection as greedy_token_selection
from .. import image as image
from .. import select as select
from .. import separate_reasoning as separate_reasoning
from .. import set_default_backend as set_default_backend
from .. import system as system
from .. import system_begin as system_begin
from .. import system_end as system_end
from .. import token_length_normalized as token_length_normalized
from .. import unconditional_likelihood_normalized as unconditional_likelihood_normalized
from .. import user as user
from .. import user_begin as user_begin
from .. import user_end as user_end
from .. import video as video
from .modules import lazy, paths

if TYPE_CHECKING:
    from ...runtime.engine import Engine
    from ..backends import (
        Anthropic,
        Crusoe,
        LiteLLM,
        OpenAI,
        Runtime,
        RuntimeEndpoint,
        ServerArgs,
        VertexAI,
    )

    __version__: str

__all__ = [
    "Anthropic",
    "Crusoe",
    "Engine",
    "LiteLLM",
    "OpenAI",
    "Runtime",
    "RuntimeEndpoint",
    "ServerArgs",
    "VertexAI",
    "__version__",
    "assistant",
    "assistant_begin",
    "assistant_end",
    "flush_cache",
    "function",
    "gen",
    "gen_int",
    "gen_string",
    "get_server_info",
    "global_config",
    "greedy_token_selection",
    "image",
    "select",
    "separate_reasoning",
    "set_default_backend",
    "system",
    "system_begin",
    "system_end",
    "token_length_normalized",
    "unconditional_likelihood_normalized",
    "user",
    "user_begin",
    "user_end",
    "video",
]

_LAZY: Final = {
    "Engine": "...runtime.engine",
    "Anthropic": "..backends",
    "Crusoe": "..backends",
    "LiteLLM": "..backends",
    "OpenAI": "..backends",
    "Runtime": "..backends",
    "RuntimeEndpoint": "..backends",
    "ServerArgs": "..backends",
    "VertexAI": "..backends",
}
_INSTALLED: Final = "sglang"
_TAKEN: Final = ((_INSTALLED, "global_config"),)
"""As in SGLang the object has the name of its module."""


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return import_module(__name__.partition(".")[0]).__version__
    if name in _LAZY:
        return getattr(import_module(_LAZY[name], __package__), name)
    known = ", ".join(__all__)
    raise AttributeError(f"module {__name__!r} has no {name!r}: of SGLang there is {known}")


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))


def install() -> None:
    """From now on `import sglang`, and the import paths that its examples use, find this module.

    RuntimeError where SGLang itself is installed: two packages cannot have one name.
    """
    here = sys.modules[__name__]
    if sys.modules.get(_INSTALLED) is here:
        return
    if _INSTALLED in sys.modules or find_spec(_INSTALLED) is not None:
        raise RuntimeError(
            "the package sglang is installed: uninstall it, or write "
            "`from sapwood.compat import sglang as sgl`"
        )
    sys.modules[_INSTALLED] = here
    for path, names in paths().items():
        sys.modules[f"{_INSTALLED}.{path}"] = lazy(f"{_INSTALLED}.{path}", names)
    for path in paths():
        parent, _, child = f"{_INSTALLED}.{path}".rpartition(".")
        if (parent, child) not in _TAKEN:
            setattr(sys.modules[parent], child, sys.modules[f"{parent}.{child}"])


def uninstall() -> None:
    """Undo `install`. What was imported meanwhile stays."""
    if sys.modules.get(_INSTALLED) is not sys.modules[__name__]:
        return
    for path in paths():
        sys.modules.pop(f"{_INSTALLED}.{path}", None)
        if "." not in path and (_INSTALLED, path) not in _TAKEN:
            globals().pop(path, None)
    del sys.modules[_INSTALLED]
