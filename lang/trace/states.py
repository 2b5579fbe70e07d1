"""Methods of states and of forks' branches, as a program's source calls them.

Owns: what each does to the lines. Those that open a scope are `statements`' where `with` holds
them.
"""

from typing import Final

from . import graph as g
from .arguments import Arguments, Given
from .expressions import Expressions
from .lines import Group, Line
from .values import (
    GroupRef,
    Helper,
    Known,
    Many,
    Opaque,
    Said,
    Several,
    StateRef,
    Value,
    name_of,
    said,
)

_READS_ONE: Final = {"get_var": "name", "get": "name", "get_meta_info": "name"}
_READS_MAYBE_ONE: Final = ("text_iter", "text_async_iter", "stream")
_READS_ALL: Final = ("text", "messages", "sync", "error")


def state_method(reader: Expressions, line: Line, name: str, arguments: Arguments) -> Value:
    place = arguments.place
    if name in _READS_ONE:
        one = arguments.get(0, "name")
        return reader.read(line, name_of(one.value) if one else g.VarName((None,)), place)
    if name in _READS_MAYBE_ONE:
        one = arguments.get(0, "var_name") or arguments.named.get("name")
        reader.read(line, None if one is None else name_of(one.value), place)
        return Opaque(arguments.source)
    if name in _READS_ALL:
        reader.read(line, None, place)
        return Opaque(arguments.source)
    if name == "set_var":
        one = arguments.get(0, "name")
        set_name = None if one is None else name_of(one.value)
        reader.lines.add(line, g.Assign(set_name or g.VarName((None,)), place))
        return Known(None)
    if name in ("system", "user", "assistant"):
        inner = arguments.get(0, "expression")
        if inner is not None:
            body = said(inner.value, inner.source, place).items
            reader.lines.add(line, g.Role(name, body, place))
        return Known(None)
    if name in ("fork", "copy"):
        return fork(reader, line, arguments, "fork")
    if name == "__iadd__" and arguments.positional:
        one = arguments.positional[0]
        reader.lines.add(line, *said(one.value, one.source, place).items)
        return StateRef(line)
    return Opaque(arguments.source)


def fork(reader: Expressions, line: Line, arguments: Arguments, name: str) -> GroupRef:
    size = arguments.get(0, "size")
    return GroupRef(reader.lines.fork(line, name, size.source if size else "1", arguments.place))


def group_method(reader: Expressions, group: Group, name: str, arguments: Arguments) -> Value:
    if name != "join":
        return Opaque(arguments.source)
    mode = arguments.get(0, "mode")
    how = str(mode.value.value) if mode and isinstance(mode.value, Known) else "gather_variable"
    join(reader, group, how, arguments.place)
    return Known(None)


def join(reader: Expressions, group: Group, mode: str, place: g.Place) -> None:
    reader.lines.add(group.parent, g.Join(group.number, group.name, mode, place))


def add_to_group(reader: Expressions, group: Group, given: Given, place: g.Place) -> None:
    """`forks += x`: to each branch the same, one of a list, or what a function of its number
    says."""
    match given.value:
        case Several(items):
            for at, item in enumerate(items):
                _add(reader, group.line(str(at)), Given(item, given.source), place)
        case Known(list() | tuple() as texts):
            for at, text in enumerate(texts):
                _add(reader, group.line(str(at)), Given(Known(text), given.source), place)
        case Many(item):
            _add(reader, group.line("each"), Given(item, given.source), place)
        case Helper():
            called = Arguments((Given(Opaque("i"), "i"),), {}, False, given.source, place)
            made = reader.call(given.value, called)
            _add(reader, group.line("each"), Given(made, given.source), place)
        case _:
            _add(reader, group.line("each"), given, place)


def _add(reader: Expressions, line: Line, given: Given, place: g.Place) -> None:
    value: Said = said(given.value, given.source, place)
    reader.lines.add(line, *value.items)
