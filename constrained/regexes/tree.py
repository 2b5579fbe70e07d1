"""What a regex says, as a tree; knows neither its syntax nor automata.

Flags and dialects are resolved by the parser: a node means one thing only. Only the language
counts: which of several ways a text matches (greedy or lazy, the order of options) is not kept.
"""

import enum
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Final

from ..code_points import ALL, Ranges, normalize


class AnchorKind(enum.Enum):
    """Conditions on the characters beside a position."""

    START = "^"
    END = "\\Z"
    END_OR_LAST_NEWLINE = "$"
    LINE_START = "(?m)^"
    LINE_END = "(?m)$"
    BOUNDARY = "\\b"
    NOT_BOUNDARY = "\\B"


@dataclass(frozen=True)
class Node:
    """nullable: it may match without reading a character; reads: it may read one; has_anchors,
    has_looks: it, or a part of it, is one; bare: neither."""

    @property
    def children(self) -> tuple["Node", ...]:
        return ()

    @property
    def nullable(self) -> bool:
        raise NotImplementedError

    @cached_property
    def has_anchors(self) -> bool:
        return any(child.has_anchors for child in self.children)

    @cached_property
    def has_looks(self) -> bool:
        return any(child.has_looks for child in self.children)

    @cached_property
    def reads(self) -> bool:
        return any(child.reads for child in self.children)

    @property
    def bare(self) -> bool:
        return not (self.has_anchors or self.has_looks)


@dataclass(frozen=True)
class Characters(Node):
    """One character of a set."""

    ranges: Ranges

    nullable = False
    reads = True


@dataclass(frozen=True)
class Sequence(Node):
    parts: tuple[Node, ...]

    @property
    def children(self) -> tuple[Node, ...]:
        return self.parts

    @cached_property
    def nullable(self) -> bool:
        return all(part.nullable for part in self.parts)


@dataclass(frozen=True)
class Either(Node):
    """One of the options; without options it matches nothing."""

    options: tuple[Node, ...]

    @property
    def children(self) -> tuple[Node, ...]:
        return self.options

    @cached_property
    def nullable(self) -> bool:
        return any(option.nullable for option in self.options)


@dataclass(frozen=True)
class Repeated(Node):
    """`body` from `low` to `high` times (None: without end)."""

    body: Node
    low: int
    high: int | None

    @property
    def children(self) -> tuple[Node, ...]:
        return (self.body,)

    @cached_property
    def nullable(self) -> bool:
        return self.low == 0 or self.body.nullable


@dataclass(frozen=True)
class Anchor(Node):
    """`ascii`: of a word boundary, that only ASCII characters are word characters."""

    kind: AnchorKind
    ascii: bool = False

    nullable = True
    has_anchors = True


@dataclass(frozen=True)
class Ahead(Node):
    """The next character is of a set; `negated`: it is not, or there is none. (A look at one
    character, which is as simple as an anchor and counts as one.)"""

    ranges: Ranges
    negated: bool

    nullable = True
    has_anchors = True


@dataclass(frozen=True)
class Look(Node):
    """What follows begins with a match of `body`, or, `negated`, does not."""

    body: Node
    negated: bool

    nullable = True
    has_looks = True
    reads = False

    @property
    def children(self) -> tuple[Node, ...]:
        return (self.body,)


EMPTY: Final = Sequence(())
NOTHING: Final = Either(())


@lru_cache(maxsize=4096)
def literal(code_point: int) -> Characters:
    return Characters(normalize([(code_point, code_point)]))


def sequence(parts: Iterable[Node]) -> Node:
    flat: list[Node] = []
    for part in parts:
        if isinstance(part, Sequence):
            flat += part.parts
        else:
            flat.append(part)
    return flat[0] if len(flat) == 1 else Sequence(tuple(flat))


def either(options: Iterable[Node]) -> Node:
    """Options of one character become one set."""
    sets: list[Ranges] = []
    flat: list[Node] = []
    for option in options:
        for part in option.options if isinstance(option, Either) else (option,):
            if isinstance(part, Characters):
                sets.append(part.ranges)
            else:
                flat.append(part)
    if sets:
        union = sets[0] if len(sets) == 1 else normalize(pair for found in sets for pair in found)
        flat.append(Characters(union))
    return flat[0] if len(flat) == 1 else Either(tuple(flat))


def repeated(body: Node, low: int, high: int | None) -> Node:
    if high == 0:
        return EMPTY
    if not body.reads:  # to check a condition once more changes nothing
        return body if low else EMPTY
    return body if (low, high) == (1, 1) else Repeated(body, low, high)


def look(body: Node, negated: bool) -> Node:
    if isinstance(body, Characters):
        return Ahead(body.ranges, negated)
    if isinstance(body, Ahead):
        return Ahead(body.ranges, body.negated != negated)
    if isinstance(body, Anchor) and not negated:
        return body
    if body == Anchor(AnchorKind.END):
        return Ahead(ALL, False)
    if body.nullable and body.bare:  # any text begins with a match
        return NOTHING if negated else EMPTY
    return Look(body, negated)


def anchors(node: Node) -> Iterator[Anchor | Ahead]:
    """All anchors, those of lookahead included."""
    if isinstance(node, Anchor | Ahead):
        yield node
    elif node.has_anchors:
        for child in node.children:
            yield from anchors(child)


def nonempty(node: Node) -> Node:
    """What a bare `node` matches, less the empty text."""
    if not node.nullable:
        return node
    if isinstance(node, Either):
        return either(nonempty(option) for option in node.options)
    if isinstance(node, Repeated):
        return repeated(nonempty(node.body), 1, node.high)
    assert isinstance(node, Sequence)
    parts = node.parts  # each may be empty: one is the first that is not
    return either(sequence((nonempty(p), *parts[i + 1 :])) for i, p in enumerate(parts))
