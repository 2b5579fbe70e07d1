"""What a check finds, and the rules that find it, as plain records."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from ..trace.graph import Place
from .subject import Subject

Level = Literal["error", "warning", "note"]
"""error: it fails when it runs; warning: it does something else than it seems to; note: a hint."""


@dataclass(frozen=True, order=True)
class Finding:
    """`str` says it as editors and CI read it. Ordered by where it is."""

    file: str
    line: int
    column: int
    code: str
    name: str
    level: Level
    message: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}: {self.code} {self.message} [{self.name}]"


@dataclass(frozen=True)
class Found:
    """Where something is, and what it is."""

    place: Place
    message: str


@dataclass(frozen=True)
class Rule:
    """The docstring of `check` says what is wrong and what to do about it."""

    code: str
    name: str
    level: Level
    check: Callable[[Subject], Iterator[Found]]

    @property
    def why(self) -> str:
        return " ".join((self.check.__doc__ or "").split())

    def finding(self, found: Found) -> Finding:
        place = found.place
        return Finding(
            place.file, place.line, place.column, self.code, self.name, self.level, found.message
        )
