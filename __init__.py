"""Sapwood: programs with gen, select and fork over one radix tree of KV pages.

Owns: the public names, `import sapwood as sw`. What needs torch or a tokenizer is loaded when it is
first used, so that the import is quick and a program that talks to a remote engine needs neither.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from .lang import (
    AsyncForkGroup,
    AsyncProgramState,
    ChoicesMethod,
    Decision,
    DecodeError,
    ForkGroup,
    Node,
    Program,
    ProgramError,
    ProgramState,
    ProgramTimeout,
    assistant,
    assistant_begin,
    assistant_end,
    flush_cache,
    function,
    gen,
    gen_int,
    gen_string,
    get_server_info,
    global_config,
    greedy_token_selection,
    image,
    record,
    replay,
    select,
    separate_reasoning,
    set_default_backend,
    system,
    system_begin,
    system_end,
    token_length_normalized,
    unconditional_likelihood_normalized,
    user,
    user_begin,
    user_end,
    video,
)
from .runtime.errors import (
    Cancelled,
    Diverged,
    EngineDied,
    EngineError,
    InvalidRequest,
    Overloaded,
    SapwoodError,
    Unreachable,
)
from .runtime.protocol import (
    Choice,
    Ebnf,
    JsonSchema,
    Lark,
    Regex,
    SamplingParams,
    StructuralTag,
)

if TYPE_CHECKING:
    from .lang.backends import (
        Anthropic,
        Crusoe,
        LiteLLM,
        OpenAI,
        Runtime,
        RuntimeEndpoint,
        ServerArgs,
        VertexAI,
    )
    from .runtime.engine import Engine

__version__ = "0.1.0"

__all__ = [
    "Anthropic",
    "AsyncForkGroup",
    "AsyncProgramState",
    "Cancelled",
    "Choice",
    "ChoicesMethod",
    "Crusoe",
    "Decision",
    "DecodeError",
    "Diverged",
    "Ebnf",
    "Engine",
    "EngineDied",
    "EngineError",
    "ForkGroup",
    "InvalidRequest",
    "JsonSchema",
    "Lark",
    "LiteLLM",
    "Node",
    "OpenAI",
    "Overloaded",
    "Program",
    "ProgramError",
    "ProgramState",
    "ProgramTimeout",
    "Regex",
    "Runtime",
    "RuntimeEndpoint",
    "SamplingParams",
    "SapwoodError",
    "ServerArgs",
    "StructuralTag",
    "Unreachable",
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
    "record",
    "replay",
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


# Name -> the module that has it, loaded when the name is first used.
_LAZY: Final = {
    "Engine": ".runtime.engine",
    "RuntimeEndpoint": ".lang.backends",
    "Anthropic": ".lang.backends",
    "Crusoe": ".lang.backends",
    "LiteLLM": ".lang.backends",
    "OpenAI": ".lang.backends",
    "Runtime": ".lang.backends",
    "ServerArgs": ".lang.backends",
    "VertexAI": ".lang.backends",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name], __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))
