"""Reading a grammar's text from left to right, errors with line and column; knows no dialect."""

import re
from typing import Final, NoReturn

from ..errors import GrammarError, LimitExceeded, Unsupported

MAX_LENGTH: Final = 200_000
MAX_DEPTH: Final = 100
"""Open groups at one place: trees are visited on Python's stack."""
MOST_TIMES: Final = 0x7FFFFFFF
"""That a machine can count."""

_ESCAPE: Final = re.compile(
    r"\\(?:x(?P<x>[0-9a-fA-F]{2})|u(?P<u>[0-9a-fA-F]{4})|U(?P<U>[0-9a-fA-F]{8})"
    r"|(?P<control>[0abefnrtv])|(?P<itself>[^0-9A-Za-z\n]))"
)
_SURROGATE: Final = re.compile("[\ud800-\udfff]")
_CONTROLS: Final = {"0": 0, "a": 7, "b": 8, "e": 27, "f": 12, "n": 10, "r": 13, "t": 9, "v": 11}
_COUNTS: Final = re.compile(r"\{\s*(?:(\d+)\s*(,)?\s*(\d+)?|(,)\s*(\d+))\s*\}")


class Scanner:
    """A place in a text. Written only by the parser that owns it."""

    def __init__(self, text: str) -> None:
        if len(text) > MAX_LENGTH:
            raise LimitExceeded(f"the grammar is longer than {MAX_LENGTH} characters")
        self.text: Final = text
        self.at = 0
        if half := _SURROGATE.search(text):
            self.fail("half a surrogate pair", half.start())

    @property
    def ended(self) -> bool:
        return self.at >= len(self.text)

    def sees(self, text: str) -> bool:
        return self.text.startswith(text, self.at)

    def take(self, text: str) -> bool:
        """Whether `text` comes next; then it is read."""
        found = self.sees(text)
        if found:
            self.at += len(text)
        return found

    def match(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        """What `pattern` matches here, if it does; then it is read."""
        found = pattern.match(self.text, self.at)
        if found is not None:
            self.at = found.end()
        return found

    def expect(self, text: str, why: str) -> None:
        if not self.take(text):
            self.fail(f"{text!r} is expected {why}, not {self.next()}")

    def next(self) -> str:
        """What comes next, in words."""
        return "the end" if self.ended else repr(self.text[self.at])

    # Errors

    def fail(self, message: str, at: int | None = None) -> NoReturn:
        """Raises GrammarError with the place."""
        raise GrammarError(f"{self.place(at)}: {message}")

    def refuse(self, what: str, at: int | None = None) -> NoReturn:
        """Raises Unsupported with the place."""
        raise Unsupported(f"{self.place(at)}: {what} is not supported")

    def place(self, at: int | None = None) -> str:
        at = self.at if at is None else at
        line = self.text.count("\n", 0, at) + 1
        return f"line {line}, column {at - self.text.rfind(chr(10), 0, at)}"

    # Parts that dialects have in common

    def character(self) -> str:
        """One character of a literal or class, which may be written as an escape."""
        begin = self.at
        if not self.sees("\\"):
            self.at += 1
            return self.text[begin]
        match = self.match(_ESCAPE)
        if match is None:
            self.fail(f"unknown escape {self.text[begin : begin + 2]}")
        kind = match.lastgroup
        assert kind is not None
        if kind == "itself":
            return match[kind]
        code_point = _CONTROLS[match[kind]] if kind == "control" else int(match[kind], 16)
        if code_point > 0x10FFFF:
            self.fail(f"{match[0]} is no code point", begin)
        if 0xD800 <= code_point <= 0xDFFF:
            self.fail(f"{match[0]} is half a surrogate pair", begin)
        return chr(code_point)

    def literal(self) -> str:
        """A text in double quotes."""
        begin = self.at
        self.expect('"', "before a literal")
        letters: list[str] = []
        while not self.take('"'):
            if self.ended or self.sees("\n"):
                self.fail("a literal is not closed", begin)
            letters.append(self.character())
        return "".join(letters)

    def counts(self) -> tuple[int, int | None] | None:
        """`{n}`, `{n,}`, `{,m}` or `{n,m}`, if it comes next."""
        begin = self.at
        match = self.match(_COUNTS)
        if match is None:
            return None
        low, comma, high, _, high_alone = match.groups()
        if high is not None and comma is None:
            self.fail(f"{match[0]} is no repetition count", begin)
        least = int(low or 0)
        most = int(high or high_alone) if high or high_alone else None
        return self.checked_counts(least, most if most is not None or comma else least, begin)

    def checked_counts(self, low: int, high: int | None, at: int) -> tuple[int, int | None]:
        if max(low, high or 0) > MOST_TIMES:
            self.fail(f"a repetition count is at most {MOST_TIMES}", at)
        if high is not None and high < low:
            self.fail(f"at least {low} times, but at most {high}", at)
        return low, high
