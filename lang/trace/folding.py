"""Plain values worked out without running a program: operators, methods and conversions of what is
known.

Owns: which of them are harmless and always give the same. What fails is not known: the run will
raise it.
"""

import ast
import string
from collections.abc import Callable
from typing import Any, Final

from . import graph as g
from .arguments import Arguments, plain
from .values import Known, Said, Several, Value, as_text, unordered, volatile

PURE_METHODS: Final = frozenset(
    "capitalize count endswith format get index items join keys lower lstrip partition "
    "removeprefix removesuffix replace rpartition rsplit rstrip split splitlines startswith strip "
    "title upper values".split()
)
_MOST_TEXT: Final = 1_000_000  # characters


def operation(left: object, operator: ast.operator, right: object) -> Known | None:
    texts = isinstance(left, str) and isinstance(right, str)
    numbers = isinstance(left, int) and isinstance(right, int)
    lists = isinstance(left, list | tuple) and type(left) is type(right)
    if (texts or lists) and len(left) + len(right) > _MOST_TEXT:  # type: ignore[arg-type]
        return None
    match operator:
        case ast.Add() if texts or numbers or lists:
            return Known(left + right)  # type: ignore[operator]
        case ast.Mult() if isinstance(left, str) and isinstance(right, int):
            return Known(left * right) if len(left) * right <= _MOST_TEXT else None
        case ast.Sub() if numbers:
            return Known(left - right)  # type: ignore[operator]
        case ast.Mult() if numbers and abs(left) < 2**31 and abs(right) < 2**31:  # type: ignore[arg-type]
            return Known(left * right)  # type: ignore[operator]
        case _:
            return None


def text_of(items: g.Block) -> Known | Said:
    """Known text where every piece of it is."""
    if all(isinstance(item, g.Constant) for item in items):
        return Known("".join(item.text for item in items if isinstance(item, g.Constant)))
    return Said(items)


def method(owner: Known, name: str, arguments: Arguments) -> Value | None:
    """A method of a plain value that changes nothing, called on what is known."""
    values = arguments.values
    if isinstance(owner.value, str) and name == "join" and len(values) == 1:
        if isinstance(values[0], Several):
            return _separated(owner.value, values[0], arguments)
    if isinstance(owner.value, str) and name == "format":
        return _filled(owner.value, arguments)
    known = [plain(value) for value in values]
    if None in known or arguments.named or not isinstance(owner.value, str | dict):
        return None
    if unordered(*values):  # in this process only
        return None
    try:
        made = getattr(owner.value, name)(*(one.value for one in known if one is not None))
    except Exception:  # the run will raise it
        return None
    return Known(list(made) if name in ("items", "keys", "values") else made)


def _separated(separator: str, parts: Several, arguments: Arguments) -> Value:
    items: list[g.Vertex] = []
    for at, part in enumerate(parts.items):
        if at:
            items.append(g.Constant(separator, arguments.place))
        items += as_text(part, arguments.source, arguments.place)
    return Said(tuple(items))


def _filled(template: str, arguments: Arguments) -> Value | None:
    """The pieces of `template.format(...)`; None where the template is one only a run reads."""
    items: list[g.Vertex] = []
    counted = 0
    try:
        parts = list(string.Formatter().parse(template))
    except ValueError:
        return None
    for literal, field, spec, conversion in parts:
        if literal:
            items.append(g.Constant(literal, arguments.place))
        if field is None:
            continue
        position = -1
        if not field or field.isdigit():
            position, counted = int(field or counted), counted + 1
        given = arguments.get(position, field) if position >= 0 else arguments.named.get(field)
        if given is None or spec or conversion:
            source = given.source if given else f"{{{field}}}"
            items.append(g.Computed(source, volatile(*arguments.values), None, arguments.place))
        else:
            items += as_text(given.value, given.source, arguments.place)
    return text_of(tuple(items))


def conversion(name: str, value: Any) -> Known | None:
    convert: dict[str, Callable[[Any], Any]] = {"len": len, "int": int, "float": float}
    try:
        return Known(convert.get(name, bool)(value))
    except (TypeError, ValueError):  # the run will raise it
        return None
