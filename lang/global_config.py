"""`global_config`: SGLang's switches for a whole process.

Owns: their names and what each may be. The default back end is the only one that changes anything:
the others are refused where they ask for something else than what always happens.
"""

from typing import Any

from ..runtime.client import Client
from ..runtime.errors import InvalidRequest
from . import backend


class GlobalConfig:
    """One object, `global_config`. Setting what it does not know is an AttributeError.

    `enable_precache_with_tracing` and `enable_parallel_encoding` may be either: a batch's shared
    prefix is computed once, and forks are joined by their text, whatever they say.
    """

    __slots__ = ("_precache", "_parallel")

    def __init__(self) -> None:
        self._precache = self._parallel = True

    @property
    def default_backend(self) -> Client | None:
        """What runs programs that name no back end; None: an engine of our own, once needed."""
        return backend.peek_default_backend()

    @default_backend.setter
    def default_backend(self, value: object | None) -> None:
        backend.set_default_backend(value)

    @property
    def enable_precache_with_tracing(self) -> bool:
        return self._precache

    @enable_precache_with_tracing.setter
    def enable_precache_with_tracing(self, value: bool) -> None:
        self._precache = _flag("enable_precache_with_tracing", value)

    @property
    def enable_parallel_encoding(self) -> bool:
        return self._parallel

    @enable_parallel_encoding.setter
    def enable_parallel_encoding(self, value: bool) -> None:
        self._parallel = _flag("enable_parallel_encoding", value)

    @property
    def verbosity(self) -> int:
        return 0

    @verbosity.setter
    def verbosity(self, value: int) -> None:
        _only("verbosity", value, (0, 1), "nothing is printed: print(state.text()) yourself")

    @property
    def skip_special_tokens_in_output(self) -> bool:
        return True

    @skip_special_tokens_in_output.setter
    def skip_special_tokens_in_output(self, value: bool) -> None:
        _only("skip_special_tokens_in_output", value, (True,), "a program's text has none of them")

    @property
    def spaces_between_special_tokens_in_out(self) -> bool:
        return True

    @spaces_between_special_tokens_in_out.setter
    def spaces_between_special_tokens_in_out(self, value: bool) -> None:
        name = "spaces_between_special_tokens_in_out"
        _only(name, value, (True,), "a program's text has no special tokens")


def _flag(name: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise InvalidRequest(f"{name}: {value!r} is not true or false", field=name)
    return value


def _only(name: str, value: Any, allowed: tuple[Any, ...], reason: str) -> None:
    if value not in allowed:
        raise InvalidRequest(f"{name}: {value!r} is not supported: {reason}", field=name)


global_config = GlobalConfig()
"""The process's own."""
