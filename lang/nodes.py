"""Programs as data: frozen nodes that `+` joins into sequences.

Owns: what can stand on the right of `s += ...`. Knows no state and no client: `branch` reads them.
"""

from dataclasses import dataclass, field

from ..runtime.protocol import Constraint
from .choices import ChoicesMethod
from .reasoning import ReasoningFormat
from .sampling import Sampling
from .typed import Decoder


class Node:
    """An expression of the language. `str + node`, `node + str` and `node + node` make one."""

    def __add__(self, other: "Expression") -> "Node":
        if not isinstance(other, str | Node):
            return NotImplemented
        return Sequence((*_items(self), *_items(other)))

    def __radd__(self, other: str) -> "Node":
        if not isinstance(other, str):
            return NotImplemented
        return Sequence((*_items(other), *_items(self)))


Expression = str | Node


@dataclass(frozen=True)
class Literal(Node):
    """Text of the program's own: never parsed for special tokens."""

    text: str


@dataclass(frozen=True)
class Gen(Node):
    """Generate text, and keep it under `name` if there is one."""

    name: str | None
    sampling: Sampling = Sampling()
    constraint: Constraint | None = None
    added_stop: tuple[str, ...] = ()  # on top of the stop strings of `sampling`
    decoder: Decoder | None = None  # reads the text, else the value is the text itself
    timeout: float | None = None  # seconds
    location: str | None = field(default=None, compare=False)


@dataclass(frozen=True)
class Select(Node):
    """Take the likeliest of `choices`, as `method` understands it."""

    name: str | None
    choices: tuple[str, ...]
    method: ChoicesMethod
    timeout: float | None = None  # seconds
    early_stop: bool = False
    location: str | None = field(default=None, compare=False)


@dataclass(frozen=True)
class RoleBegin(Node):
    role: str


@dataclass(frozen=True)
class RoleEnd(Node):
    role: str


@dataclass(frozen=True)
class Reasoning(Node):
    """What the gens among `items` make is split in two: reasoning is kept apart from the answer."""

    items: tuple[Node, ...]
    format: ReasoningFormat


@dataclass(frozen=True)
class Media(Node):
    """An image or a video: of the text, only the model can say what stands for it."""

    kind: str
    source: object


@dataclass(frozen=True)
class Sequence(Node):
    items: tuple[Node, ...]


def _items(expression: Expression) -> tuple[Node, ...]:
    if isinstance(expression, str):
        return (Literal(expression),)
    return expression.items if isinstance(expression, Sequence) else (expression,)


def sequence(*expressions: Expression) -> Sequence:
    return Sequence(tuple(item for expression in expressions for item in _items(expression)))
