"""What a structural tag says, as a tree of formats; knows neither its syntax nor automata."""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Text:
    """This text."""

    text: str


@dataclass(frozen=True)
class Schema:
    """A JSON text that fits a schema, which is JSON text too. any_order: of its keys."""

    schema: str
    any_order: bool = False


@dataclass(frozen=True)
class Regex:
    pattern: str


@dataclass(frozen=True)
class Ebnf:
    grammar: str


@dataclass(frozen=True)
class FreeText:
    """Any text in which none of `excludes` is found."""

    excludes: tuple[str, ...]


@dataclass(frozen=True)
class Sequence:
    elements: tuple["Format", ...]


@dataclass(frozen=True)
class Either:
    elements: tuple["Format", ...]


@dataclass(frozen=True)
class Repeated:
    """`content`, at least once or not, at most once or without end."""

    content: "Format"
    at_least_one: bool
    at_most_one: bool


@dataclass(frozen=True)
class Tag:
    """`content` between `begin` and one of `ends`."""

    begin: str
    content: "Format"
    ends: tuple[str, ...]


@dataclass(frozen=True)
class Rule:
    """After `pattern` in free text, `content`."""

    pattern: str
    content: "Format"


@dataclass(frozen=True)
class Dispatch:
    """Free text in which none of `excludes` is found; after each pattern of a rule its content.

    loop: after a content free text goes on; else all ends there.
    """

    rules: tuple[Rule, ...]
    excludes: tuple[str, ...]
    loop: bool


Format = Text | Schema | Regex | Ebnf | FreeText | Sequence | Either | Repeated | Tag | Dispatch

EMPTY: Final = Sequence(())
