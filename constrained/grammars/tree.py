"""What a grammar says, as a tree; knows neither its syntax nor automata.

Only the language counts: aliases, and which of several ways a text is read, are not kept.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from ..regexes import tree as regexes


@dataclass(frozen=True)
class Text:
    """This text."""

    text: str


@dataclass(frozen=True)
class Pattern:
    """A full match of a regex. Its lookaround and anchors see no further than the match.

    nullable: it matches the empty text.
    """

    regex: regexes.Node
    nullable: bool


@dataclass(frozen=True)
class Schema:
    """A JSON text that fits a schema, which is JSON text too."""

    schema: str


@dataclass(frozen=True)
class Reference:
    """What the rule of this name reads."""

    name: str


@dataclass(frozen=True)
class Sequence:
    parts: tuple["Expression", ...]


@dataclass(frozen=True)
class Either:
    """One of the options; without options it reads nothing at all."""

    options: tuple["Expression", ...]


@dataclass(frozen=True)
class Repeated:
    """`body` from `low` to `high` times (None: without end)."""

    body: "Expression"
    low: int
    high: int | None


Expression = Text | Pattern | Schema | Reference | Sequence | Either | Repeated

Rules = Mapping[str, Expression]

EMPTY: Final = Sequence(())


@dataclass(frozen=True)
class Grammar:
    """The texts that rule `root` reads. Each reference leads to one of the rules."""

    root: str
    rules: Rules


def bare(regex: regexes.Node) -> Pattern:
    """A regex without anchors and lookaround, of which the tree alone says what it matches."""
    assert regex.bare
    return Pattern(regex, regex.nullable)


def sequence(parts: Iterable[Expression]) -> Expression:
    flat: list[Expression] = []
    for part in parts:
        flat += part.parts if isinstance(part, Sequence) else (part,)
    return flat[0] if len(flat) == 1 else Sequence(tuple(flat))


def either(options: Iterable[Expression]) -> Expression:
    flat: list[Expression] = []
    for option in options:
        flat += option.options if isinstance(option, Either) else (option,)
    return flat[0] if len(flat) == 1 else Either(tuple(flat))


def repeated(body: Expression, low: int, high: int | None) -> Expression:
    if high == 0:
        return EMPTY
    return body if (low, high) == (1, 1) else Repeated(body, low, high)


def references(expression: Expression) -> Iterator[str]:
    """The names of the rules that an expression refers to, as often as it does."""
    match expression:
        case Reference(name):
            yield name
        case Sequence(parts) | Either(parts):
            for part in parts:
                yield from references(part)
        case Repeated(body):
            yield from references(body)
