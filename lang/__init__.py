"""The language: functions of a state `s` that say text, generate, choose, fork and join.

Owns: programs and how they run against a `runtime` Client. Knows no tokenizer, no tensor, no HTTP.
"""

from .api import (
    assistant,
    assistant_begin,
    assistant_end,
    gen,
    gen_int,
    gen_string,
    select,
    system,
    system_begin,
    system_end,
    user,
    user_begin,
    user_end,
)
from .async_state import AsyncProgramState
from .backend import flush_cache, get_server_info, set_default_backend
from .choices import (
    ChoicesMethod,
    Decision,
    greedy_token_selection,
    token_length_normalized,
    unconditional_likelihood_normalized,
)
from .errors import ProgramError, ProgramTimeout
from .extras import image, separate_reasoning, video
from .forks import AsyncForkGroup, ForkGroup
from .global_config import global_config
from .nodes import Node
from .program import Program, function
from .recording import record, replay
from .state import ProgramState
from .typed import DecodeError

__all__ = [
    "AsyncForkGroup",
    "AsyncProgramState",
    "ChoicesMethod",
    "Decision",
    "DecodeError",
    "ForkGroup",
    "Node",
    "Program",
    "ProgramError",
    "ProgramState",
    "ProgramTimeout",
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
