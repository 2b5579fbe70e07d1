"""The arguments of a call in a program's source, evaluated; and those of a verb by name."""

import ast
import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from .. import api
from . import graph as g
from .values import Known, Several, Value

_SIGNATURES: Final = {
    verb: tuple(inspect.signature(getattr(api, verb)).parameters)
    for verb in ("gen", "gen_int", "gen_string", "select")
}


@dataclass(frozen=True)
class Given:
    value: Value
    source: str


@dataclass(frozen=True)
class Arguments:
    """rest: whether there are more, by `*` or `**`."""

    positional: tuple[Given, ...]
    named: Mapping[str, Given]
    rest: bool
    source: str  # of the whole call
    place: g.Place

    @property
    def values(self) -> tuple[Value, ...]:
        return tuple(given.value for given in (*self.positional, *self.named.values()))

    def get(self, position: int, name: str) -> Given | None:
        if position < len(self.positional):
            return self.positional[position]
        return self.named.get(name)

    def of_verb(self, verb: str) -> dict[str, Given]:
        """By the names of the verb's parameters."""
        names = _SIGNATURES[verb]
        return {**dict(zip(names, self.positional, strict=False)), **self.named}


def options(given: Mapping[str, Given]) -> tuple[g.Option, ...]:
    """As the graph shows them; None is as if it were not given."""
    made = []
    for name, one in given.items():
        value = plain(one.value)
        if value is None or value.value is not None:
            known = value is not None
            made.append(g.Option(name, one.source, known, value.value if value else None))
    return tuple(made)


def plain(value: Value) -> Known | None:
    """The value, if it is known as a whole."""
    match value:
        case Known():
            return value
        case Several(items):
            parts = [plain(item) for item in items]
            known = [part.value for part in parts if part is not None]
            return Known(known) if len(known) == len(parts) else None
        case _:
            return None


def source_of(node: ast.AST) -> str:
    return ast.unparse(node)
