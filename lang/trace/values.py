"""What an expression of a program's source is known to be, without running it.

Owns: abstract values, how they look as text, and how two of them merge. Knows no syntax tree but
that of a helper function, which it only carries.
"""

import ast
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeGuard

from . import graph as g

if TYPE_CHECKING:
    from .lines import Group, Line, Pass
    from .scopes import Scope


@dataclass(frozen=True, eq=False)
class Known:
    """A plain value: text, a number, None, a list, tuple, dict or set of them; a constraint."""

    value: Any


@dataclass(frozen=True)
class Said:
    """Text or an expression of the language, as its vertices."""

    items: g.Block

    @property
    def is_text(self) -> bool:
        return all(isinstance(item, g.Piece) for item in self.items)


@dataclass(frozen=True)
class Opaque:
    """Anything else. See `graph.Computed`; `volatile` goes wherever the value goes."""

    source: str
    volatile: str | None = None
    unordered: str | None = None


@dataclass(frozen=True)
class Dotted:
    """A module, or what it holds, by its full name."""

    name: str

    @property
    def verb(self) -> str | None:
        """Its name in the language, if it is of the language."""
        root, _, rest = self.name.partition(".")
        return rest.rpartition(".")[2] if root in ("sapwood", "sglang") and rest else None


@dataclass(frozen=True)
class Method:
    """An attribute of a value, about to be called."""

    owner: "Value"
    name: str


@dataclass(frozen=True)
class ProgramRef:
    name: str


@dataclass(frozen=True, eq=False)
class Helper:
    """A plain function of the user's, which is read where it is called.

    closure: the names around it that are no module's.
    """

    definition: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda
    scope: "Scope"
    closure: Mapping[str, "Value"]


@dataclass(frozen=True, eq=False)
class StateRef:
    line: "Line"


@dataclass(frozen=True, eq=False)
class GroupRef:
    group: "Group"


@dataclass(frozen=True)
class Index:
    """A number that counts through a loop."""

    source: str
    within: "Pass"


@dataclass(frozen=True)
class Several:
    """A tuple or list whose items are known apart."""

    items: "tuple[Value, ...]"


@dataclass(frozen=True)
class Many:
    """Any number of values that are all like this one."""

    item: "Value"


@dataclass(frozen=True)
class Zipped:
    """What a loop over several values at a time goes over."""

    items: "tuple[Value, ...]"


Value = (
    Known
    | Said
    | Opaque
    | Dotted
    | Method
    | ProgramRef
    | Helper
    | StateRef
    | GroupRef
    | Index
    | Several
    | Many
    | Zipped
)


def is_plain(value: object, budget: int = 2_000) -> bool:
    """Text, numbers, None, and not too many of them in containers."""
    if value is None or isinstance(value, str | int | float | bool | bytes):
        return True
    if isinstance(value, dict):
        parts: Iterable[object] = [part for pair in value.items() for part in pair]
        size = len(value)
    elif isinstance(value, list | tuple | set | frozenset):
        parts, size = value, len(value)
    else:
        return False
    return size <= budget and all(is_plain(part, budget // 2) for part in parts)


def is_known(value: "Value", singleton: bool | None) -> bool:
    return isinstance(value, Known) and value.value is singleton


def is_text(value: "Value") -> TypeGuard[Known | Said]:
    return (isinstance(value, Said) and value.is_text) or (
        isinstance(value, Known) and isinstance(value.value, str)
    )


def volatile(*values: "Value") -> str | None:
    """The first reason why one of these differs from run to run."""
    for value in values:
        found: str | None = None
        match value:
            case Opaque():
                found = value.volatile
            case Said(items):
                computed = (item for item in items if isinstance(item, g.Computed))
                found = next((item.volatile for item in computed if item.volatile), None)
            case Method(owner):
                found = volatile(owner)
            case Many(item):
                found = volatile(item)
            case Several(items) | Zipped(items):
                found = volatile(*items)
        if found:
            return found
    return None


def unordered(*values: "Value") -> str | None:
    """The first reason why one of these has no fixed order."""
    for value in values:
        found: str | None = None
        match value:
            case Opaque():
                found = value.unordered
            case Known(set() | frozenset()):
                found = "the order of a set"
            case Method(owner):
                found = unordered(owner)
            case Many(item):
                found = unordered(item)
        if found:
            return found
    return None


def as_text(value: "Value", source: str, place: g.Place) -> g.Block:
    """The vertices of a value that is said as text, as `str()` and f-strings make it."""
    match value:
        case Known(set() | frozenset()):
            pass
        case Known(plain):
            return (g.Constant(str(plain), place),)
        case Said(items) if value.is_text:
            return items
    return (g.Computed(source, volatile(value), unordered(value), place),)


def said(value: "Value", source: str, place: g.Place) -> Said:
    """What is added to a state."""
    return value if isinstance(value, Said) else Said(as_text(value, source, place))


def name_of(value: "Value") -> g.VarName | None:
    """The variable's name that a value spells; None for none."""
    match value:
        case Known(None):
            return None
        case Known(plain):
            return g.VarName((str(plain),))
        case Said(items) if value.is_text:
            return g.VarName(tuple(i.text if isinstance(i, g.Constant) else None for i in items))
        case _:
            return g.VarName((None,))


def merged(one: "Value", other: "Value", source: str) -> "Value":
    """What holds of a name that is the one or the other."""
    if one is other or one == other:
        return one
    if isinstance(one, Known) and isinstance(other, Known) and repr(one) == repr(other):
        return one
    if isinstance(one, Many) and isinstance(other, Many):
        return Many(merged(one.item, other.item, source))
    for value, rest in ((one, other), (other, one)):
        if isinstance(value, StateRef | GroupRef):
            return value
        if isinstance(value, Many) and isinstance(rest, Known) and not rest.value:
            return value
    return Opaque(source, volatile(one, other), unordered(one, other))
