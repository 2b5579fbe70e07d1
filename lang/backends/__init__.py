"""Back ends that are elsewhere: behind HTTP, or a vendor's API.

Owns: their names. Each is loaded when it is first used, with what it needs (an HTTP client, an
event loop, a vendor's package), so that `import sapwood` needs none of it.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from .anthropic import Anthropic
    from .endpoint import RuntimeEndpoint
    from .openai import Crusoe, OpenAI

__all__ = ["Anthropic", "Crusoe", "OpenAI", "RuntimeEndpoint"]

_HOMES: Final = {
    "Anthropic": "anthropic",
    "Crusoe": "openai",
    "OpenAI": "openai",
    "RuntimeEndpoint": "endpoint",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{home}", __name__), name)
