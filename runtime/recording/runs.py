"""`RunInfo`: one execution of a program, as a client that keeps runs apart is told of it.

Owns: that record and the Protocol of such clients. Knows no file.
"""

import hashlib
import inspect
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, runtime_checkable

from ..client import Client

_ADDRESS: Final = re.compile(r" at 0x[0-9a-fA-F]+")  # another one in each process


@dataclass(frozen=True)
class RunInfo:
    """`program`: its qualified name, `file`: where it is written, `source`: a digest of its text;
    the last two are None where Python has none. `arguments` by parameter, `options`: what `run` was
    given besides. `nested`: the body of another run started it."""

    program: str
    file: str | None = None
    source: str | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    nested: bool = False

    def key(self) -> tuple[str, str]:
        """Equal for runs of one program with equal arguments."""
        return self.program, json.dumps(described(self.arguments), sort_keys=True)


@runtime_checkable
class KeepsRuns(Protocol):
    """A client that gives every run a client of its own."""

    def begin_run(self, run: RunInfo) -> Client: ...


def described(value: Any) -> Any:
    """A JSON value, or for what JSON does not have an object with its repr."""
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return {key: described(item) for key, item in value.items()}
    if type(value) is list:
        return [described(item) for item in value]
    return {"repr": _ADDRESS.sub("", repr(value))}


def is_whole(value: Any) -> bool:
    """Whether `described` kept all of the value, so that it can be given to the program again."""
    return bool(described(value) == value)


def source_digest(func: Callable[..., Any]) -> str | None:
    """Of the text of a function; None where Python has none (typed at a prompt, say)."""
    try:
        text = inspect.getsource(func)
    except (OSError, TypeError):
        return None
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
