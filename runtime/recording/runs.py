"""`RunInfo`: one execution of a program, as a client that keeps runs apart is told of it.

Owns: that record. Knows no file.
"""

import hashlib
import inspect
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

_ADDRESS: Final = re.compile(r" at 0x[0-9a-fA-F]+")  # another one in each process
_REPR: Final = "repr"
_DEEPEST: Final = 100  # levels; what holds itself ends there
_MOST_BITS: Final = 10_000  # Python writes no longer integers (`sys.set_int_max_str_digits`)


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


def described(value: Any, depth: int = 0) -> Any:
    """A JSON value, or for what JSON does not have an object with its repr. Of a value that is
    described already, the same."""
    if value is None or isinstance(value, str | bool | float):
        return value
    if isinstance(value, int) and value.bit_length() < _MOST_BITS:
        return value
    if isinstance(value, Mapping) and value.keys() == {_REPR} and isinstance(value[_REPR], str):
        return value
    if depth < _DEEPEST:
        if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
            return {key: described(item, depth + 1) for key, item in value.items()}
        if type(value) is list:
            return [described(item, depth + 1) for item in value]
    return {_REPR: _repr(value)}


def missing(value: Any) -> str | None:
    """What of a described value is not there, as its repr said; None: it can be given again."""
    if isinstance(value, Mapping):
        if value.keys() == {_REPR}:
            return str(value[_REPR])
        value = list(value.values())
    inner = map(missing, value) if isinstance(value, list) else ()
    return next((one for one in inner if one is not None), None)


def _repr(value: Any) -> str:
    """The same in each process, as far as it can be told."""
    try:
        if isinstance(value, set | frozenset):  # their order is another one in each process
            return f"{{{', '.join(sorted(map(_repr, value)))}}}"
        return _ADDRESS.sub("", repr(value))
    except Exception as error:  # a class's own code: a recording disturbs no run
        return f"{type(value).__name__} without a repr: {type(error).__name__}"


def source_digest(func: Callable[..., Any]) -> str | None:
    """Of the text of a function; None where Python has none (typed at a prompt, say)."""
    try:
        text = inspect.getsource(func)
    except (OSError, TypeError):
        return None
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
