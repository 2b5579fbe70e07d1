"""Back ends that are elsewhere: behind HTTP, or a vendor's API.

Owns: their names. Each is loaded when it is first used, with what it needs (an HTTP client, an
event loop, a vendor's package), so that `import sapwood` needs none of it.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from .anthropic import Anthropic
    from .endpoint import RuntimeEndpoint
    from .launched import Runtime
    from .litellm import LiteLLM
    from .openai import Crusoe, OpenAI
    from .server_args import ServerArgs
    from .vertexai import VertexAI

__all__ = [
    "Anthropic",
    "Crusoe",
    "LiteLLM",
    "OpenAI",
    "Runtime",
    "RuntimeEndpoint",
    "ServerArgs",
    "VertexAI",
]

_HOMES: Final = {
    "Anthropic": "anthropic",
    "Crusoe": "openai",
    "LiteLLM": "litellm",
    "OpenAI": "openai",
    "Runtime": "launched",
    "RuntimeEndpoint": "endpoint",
    "ServerArgs": "server_args",
    "VertexAI": "vertexai",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{home}", __name__), name)
