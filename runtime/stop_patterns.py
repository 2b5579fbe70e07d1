"""Stop patterns: which are accepted, and their compiled form, the same for all who search them.

The dialect is Python's `re`, searched by the `regex` package, which has time limits and partial
matches. What the two read differently is refused, and so is what would take long to compile: that
happens on the engine's thread, before any time limit applies.
"""

import re
from functools import lru_cache
from typing import Any, Final

import regex

from ..constrained import GrammarError, Regex
from .errors import InvalidRequest

MAX_BYTES: Final = 256  # of one pattern
_MAX_SIZE: Final = 10_000  # atoms after counted repeats are written out
# In `regex` a brace after an atom may mean fuzzy matching; `re` takes it literally.
_LITERAL_BRACE: Final = re.compile(r"\\.|\{\d*(?:,\d*)?\}|(\{)", re.DOTALL)


@lru_cache(maxsize=256)
def compile_stop_pattern(pattern: str) -> "regex.Pattern[str]":
    """Raises InvalidRequest, with the reason, for a pattern that is not accepted."""
    try:
        size = len(pattern.encode())
        if size > MAX_BYTES:
            raise _refusal(pattern, f"it has {size} bytes, at most {MAX_BYTES} are allowed")
        Regex(pattern).check()  # `regex` has set syntax that `re` only warns of
        parsed = re._parser.parse(pattern)  # type: ignore[attr-defined]  # the only reader of it
        if _size(parsed) > _MAX_SIZE:
            raise _refusal(pattern, f"its repeats make more than {_MAX_SIZE} atoms")
        if any(found.group(1) for found in _LITERAL_BRACE.finditer(pattern)):
            raise _refusal(pattern, "a literal { must be written \\{")
        return regex.compile(pattern)
    except (
        *(GrammarError, re.error, regex.error, OverflowError),
        *(RecursionError, UnicodeEncodeError),
    ) as error:
        raise _refusal(pattern, str(error)) from None


def _refusal(pattern: str, reason: str) -> InvalidRequest:
    return InvalidRequest(
        f"stop_regex: {pattern[:MAX_BYTES]!r} is refused: {reason}", field="stop_regex"
    )


def _size(parsed: Any) -> int:
    """Atoms of a pattern parsed by `re`, counted repeats written out."""
    total = 0
    for _, argument in parsed:
        total += _size_of(argument)
        if total > _MAX_SIZE:
            return total
    return total


def _size_of(argument: Any) -> int:
    if isinstance(argument, re._parser.SubPattern):  # type: ignore[attr-defined]
        return _size(argument)
    if not isinstance(argument, tuple | list):
        return 1
    if _is_repeat(argument):
        low, high, repeated = argument
        unbounded = high == re._constants.MAXREPEAT  # type: ignore[attr-defined]
        return max(int(low if unbounded else high), 1) * max(_size(repeated), 1)
    return sum(_size_of(part) for part in argument) or 1


def _is_repeat(argument: Any) -> bool:
    return len(argument) == 3 and isinstance(argument[0], int) and isinstance(argument[1], int)
