"""The graph of a program: frozen vertices, nested as the program's scopes are.

Owns: what a graph says, and going through it. Knows neither how it was found (`reading` reads
source, `recording` watches a run) nor how it is shown.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final


@dataclass(frozen=True)
class Place:
    """line and column count from 1. The file is "" where nothing is known."""

    file: str = ""
    line: int = 0
    column: int = 1

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


NOWHERE: Final = Place()


@dataclass(frozen=True)
class VarName:
    """A variable's name; None in `parts` stands for text that only a run knows."""

    parts: tuple[str | None, ...]

    @property
    def exact(self) -> str | None:
        return None if None in self.parts else "".join(part or "" for part in self.parts)

    def may_be(self, other: "VarName") -> bool:
        """Whether both can name the same variable."""
        if self.exact is not None and other.exact is not None:
            return self.exact == other.exact
        if self.exact is None and other.exact is None:
            return True  # not worth deciding: both hold unknown text
        loose, text = (self, other.exact) if self.exact is None else (other, self.exact)
        pattern = "".join(".*" if part is None else re.escape(part) for part in loose.parts)
        return re.fullmatch(pattern, text or "", re.DOTALL) is not None

    def __str__(self) -> str:
        return "".join("{...}" if part is None else part for part in self.parts)


# --- text -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Constant:
    """Text that stands in the program."""

    text: str
    place: Place = NOWHERE


@dataclass(frozen=True)
class Argument:
    """An argument's text; `value` where the argument is given."""

    name: str
    value: str | None = None
    place: Place = NOWHERE


@dataclass(frozen=True)
class Variable:
    """The text of a variable, said again."""

    name: VarName
    place: Place = NOWHERE


@dataclass(frozen=True)
class Computed:
    """Text that the program's own code makes.

    volatile: what in it differs from run to run (a clock, say); unordered: what has no fixed order.
    """

    source: str
    volatile: str | None = None
    unordered: str | None = None
    place: Place = NOWHERE


# --- what a model does ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Option:
    """An argument of a verb: its source, and its value where that is known without running."""

    name: str
    source: str
    is_known: bool = False
    value: Any = None


@dataclass(frozen=True)
class Generate:
    verb: str
    name: VarName | None
    options: tuple[Option, ...] = ()
    place: Place = NOWHERE

    def option(self, name: str) -> Option | None:
        return next((option for option in self.options if option.name == name), None)


@dataclass(frozen=True)
class Choose:
    """choices: None where only a run knows them; `source` says them as the program does."""

    name: VarName | None
    choices: tuple[str, ...] | None
    source: str
    place: Place = NOWHERE


@dataclass(frozen=True)
class Media:
    kind: str
    source: str
    place: Place = NOWHERE


# --- scopes ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Role:
    role: str
    body: "tuple[Vertex, ...]"
    place: Place = NOWHERE


@dataclass(frozen=True)
class RoleBegin:
    """Stands alone where no RoleEnd in the same block closes it."""

    role: str
    place: Place = NOWHERE


@dataclass(frozen=True)
class RoleEnd:
    role: str
    place: Place = NOWHERE


@dataclass(frozen=True)
class VarScope:
    name: VarName
    body: "tuple[Vertex, ...]"
    place: Place = NOWHERE


@dataclass(frozen=True)
class Loop:
    over: str
    body: "tuple[Vertex, ...]"
    place: Place = NOWHERE


@dataclass(frozen=True)
class Alternatives:
    """One of `cases` happens; an empty one stands for nothing."""

    test: str
    cases: "tuple[tuple[Vertex, ...], ...]"
    place: Place = NOWHERE


# --- lines of a program ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Lane:
    """What one branch of a fork does, or each of them. label: which ("each", "0", "i")."""

    label: str
    body: "tuple[Vertex, ...]"


@dataclass(frozen=True)
class Fork:
    """group: a number that tells the forks of a graph apart; `name` as the program calls it."""

    group: int
    name: str
    size: str
    lanes: tuple[Lane, ...] = ()
    place: Place = NOWHERE


@dataclass(frozen=True)
class Join:
    group: int
    name: str
    mode: str
    place: Place = NOWHERE


# --- what the program's code does with its state --------------------------------------------------


@dataclass(frozen=True)
class Read:
    """The program waits here: for a variable, or (None) for all of this line.

    in_turn: in a loop over branches, for what this branch was just asked: the next one's turn comes
    only after it.
    """

    name: VarName | None
    in_turn: bool = False
    place: Place = NOWHERE


@dataclass(frozen=True)
class Assign:
    """The program sets a variable itself."""

    name: VarName
    place: Place = NOWHERE


@dataclass(frozen=True)
class Call:
    """Another program is run, on a state of its own."""

    program: str
    place: Place = NOWHERE


@dataclass(frozen=True)
class Escape:
    """The state goes where reading the source cannot follow: anything may happen to it there."""

    source: str
    place: Place = NOWHERE


@dataclass(frozen=True)
class Return:
    source: str
    place: Place = NOWHERE


Piece = Constant | Argument | Variable | Computed
"""Text."""
Vertex = (
    Piece | Generate | Choose | Media | Role | RoleBegin | RoleEnd | VarScope | Loop | Alternatives
    | Fork | Join | Read | Assign | Call | Escape | Return
)  # fmt: skip
Block = tuple[Vertex, ...]


@dataclass(frozen=True)
class Parameter:
    """value: as text, where it is given or bound."""

    name: str
    value: str | None = None


@dataclass(frozen=True)
class Graph:
    """All that a program says, asks, forks and joins. `print(graph)` shows it as a tree."""

    program: str
    parameters: tuple[Parameter, ...]
    body: Block
    place: Place = NOWHERE

    def __str__(self) -> str:
        from .tree import tree

        return tree(self)

    def mermaid(self) -> str:
        """A Mermaid flowchart."""
        from .mermaid import flowchart

        return flowchart(self)

    def walk(self) -> Iterator[Vertex]:
        """Every vertex, each before what is within it."""
        return walk(self.body)


def blocks(vertex: Vertex) -> tuple[Block, ...]:
    """What is within a vertex."""
    match vertex:
        case Role() | VarScope() | Loop():
            return (vertex.body,)
        case Alternatives():
            return vertex.cases
        case Fork():
            return tuple(lane.body for lane in vertex.lanes)
        case _:
            return ()


def walk(block: Block) -> Iterator[Vertex]:
    for vertex in block:
        yield vertex
        for inner in blocks(vertex):
            yield from walk(inner)
