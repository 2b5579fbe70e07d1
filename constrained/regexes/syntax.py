"""Refuses what `re` refuses or warns of: set syntax of other dialects; knows nothing of automata.

`re` reads `[[:alpha:]]`, `[a&&b]` and their like as plain members, which is not what their writers
mean, and says so only by a FutureWarning. `warnings.catch_warnings` is not safe in threads, so a
pattern is looked over before `re` sees it: whatever passes here makes `re` warn of nothing.
"""

import re
from typing import Final, NoReturn

from ..errors import GrammarError

_POSIX_CLASS: Final = re.compile(r"\[:\^?[a-z]+:\]")
_COMMENT: Final = re.compile(r"\(\?#[^)]*")
# `re` warns of odd names in conditional groups too; they are refused anyway, see `parse`.
_CONDITION_NAME: Final = re.compile(r"\(\?\((?!\w+\))|\(\?\((?=[^)]*[^\x00-\x7f])")


def check_syntax(pattern: str) -> None:
    """Raises GrammarError where `re` refuses the pattern or would warn of it."""
    refuse_set_syntax(pattern)
    try:
        re.compile(pattern)
    except re.error as error:
        raise GrammarError(f"it is not a valid regex: {error}") from error
    except OverflowError as error:
        raise GrammarError(f"a repetition count is out of range: {error}") from error
    except RecursionError as error:
        raise GrammarError("the regex is nested too deeply") from error


def refuse_set_syntax(pattern: str) -> None:
    """Raises GrammarError, with the place, where `re` would warn; `pattern` may be malformed."""
    at = 0
    while at < len(pattern):
        if pattern[at] == "\\":
            at += 2
        elif pattern[at] == "[":
            at = _after_class(pattern, at)
        elif comment := _COMMENT.match(pattern, at):
            at = comment.end()
        elif _CONDITION_NAME.match(pattern, at):
            raise GrammarError(f"a conditional group is not supported (at position {at})")
        else:
            at += 1


def _after_class(pattern: str, begin: int) -> int:
    """Where the class that opens at `begin` ends; the walk is that of `re`'s own parser."""
    at = begin + 1
    _refuse_posix_class(pattern, at)
    if pattern.startswith("[", at):
        _refuse(r"nested sets are not supported; write \[ for the bracket itself", at)
    at += pattern.startswith("^", at)
    first = at
    while at < len(pattern):
        if pattern[at] == "]" and at > first:
            return at + 1
        _refuse_posix_class(pattern, at)
        _refuse_operator(pattern, at, is_first=at == first)
        at = _after_member(pattern, at)
        if pattern.startswith("-", at) and not pattern.startswith("-]", at):
            _refuse_operator(pattern, at, is_first=False)
            at = _after_member(pattern, at + 1)  # the end of a range
    return at


def _after_member(pattern: str, at: int) -> int:
    """An escape is skipped by two characters: its digits, if any, are members like others here."""
    return at + (2 if pattern.startswith("\\", at) else 1)


def _refuse_posix_class(pattern: str, at: int) -> None:
    if found := _POSIX_CLASS.match(pattern, at):
        _refuse(f"the POSIX class {found[0]} is not supported; write its ranges ([A-Za-z])", at)


def _refuse_operator(pattern: str, at: int, *, is_first: bool) -> None:
    operator = pattern[at : at + 2]
    if operator in ("--", "&&", "~~", "||") and not is_first:
        _refuse(
            f"the set operator {operator} is not supported; "
            f"write \\{operator[0]} for the character itself",
            at,
        )


def _refuse(what: str, at: int) -> NoReturn:
    raise GrammarError(f"{what} (at position {at})")
