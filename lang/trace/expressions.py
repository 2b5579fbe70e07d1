"""What the expressions of a program's source say, and what they do to its lines.

Owns: the evaluation of syntax to abstract values. Calls are `calls`'s. An expression of the
language says nothing until it is added to a state; a read of a state shows at once.
"""

import ast
from typing import Protocol

from . import graph as g
from .arguments import Arguments, Given, source_of
from .folding import operation, text_of
from .lines import Line, Lines, Pass
from .scopes import Scope
from .values import (
    Dotted,
    GroupRef,
    Helper,
    Index,
    Known,
    Many,
    Method,
    Opaque,
    Said,
    Several,
    StateRef,
    Value,
    Zipped,
    as_text,
    is_text,
    merged,
    name_of,
    said,
    unordered,
    volatile,
)


class Calls(Protocol):
    """What is called, and what becomes of it."""

    def call(self, reader: "Expressions", callee: Value, arguments: Arguments) -> Value: ...


class Expressions:
    """One function's names, and the evaluation of its expressions."""

    def __init__(self, lines: Lines, scope: Scope, names: dict[str, Value], calls: Calls) -> None:
        self.lines = lines
        self.scope = scope
        self.names = names
        self._calls = calls

    def place(self, node: ast.expr | ast.stmt) -> g.Place:
        return g.Place(self.scope.file, node.lineno, node.col_offset + 1)

    def value(self, node: ast.expr) -> Value:
        match node:
            case ast.Constant(value):
                return Known(value)
            case ast.Name(name):
                return self._name(name)
            case ast.Attribute(owner, name):
                return self._attribute(self.value(owner), name)
            case ast.Call():
                return self.call(self.value(node.func), self._arguments(node))
            case ast.BinOp(left, operator, right):
                return self._binary(node, self.value(left), operator, self.value(right))
            case ast.JoinedStr(parts):
                return text_of(tuple(item for part in parts for item in self._formatted(part)))
            case ast.Subscript(owner, key):
                return self._item(node, self.value(owner), self.value(key))
            case ast.Tuple(items) | ast.List(items):
                return self._display(node, items)
            case ast.Dict(keys, values):
                return self._dict(node, keys, values)
            case ast.IfExp(test, body, orelse):
                return self._choice(test, body, orelse)
            case ast.NamedExpr(ast.Name(name), value):
                self.names[name] = self.value(value)
                return self.names[name]
            case ast.Await(value) | ast.Starred(value):
                return self.value(value)
            case ast.Lambda():
                return Helper(node, self.scope, self.names)
            case ast.ListComp() | ast.GeneratorExp() | ast.SetComp() | ast.DictComp():
                return self._comprehension(node)
            case _:
                return self._other(node)

    # --- names and parts -------------------------------------------------------------------------

    def _name(self, name: str) -> Value:
        if name in self.names:
            return self.names[name]
        found = self.scope.lookup(name)
        return Opaque(name) if found is None else found

    def _attribute(self, owner: Value, name: str) -> Value:
        if isinstance(owner, Dotted):
            return self.scope.member(owner.name, name) or Dotted(f"{owner.name}.{name}")
        return Method(owner, name)

    def _arguments(self, node: ast.Call) -> Arguments:
        positional = [Given(self.value(one), source_of(one)) for one in node.args]
        named = {
            one.arg or "**": Given(self.value(one.value), source_of(one.value))
            for one in node.keywords
        }
        rest = "**" in named or any(isinstance(one, ast.Starred) for one in node.args)
        return Arguments(tuple(positional), named, rest, source_of(node), self.place(node))

    def _item(self, node: ast.Subscript, owner: Value, key: Value) -> Value:
        match owner, key:
            case StateRef(line), _:
                return self.read(line, name_of(key), self.place(node))
            case GroupRef(group), Known(int(at)):
                return StateRef(group.line(str(at)))
            case GroupRef(group), Index(_, within):
                line = group.line("each")
                within.own.add(line)
                return StateRef(line)
            case GroupRef(group), _:
                return StateRef(group.line(source_of(node.slice)))
            case Many(item), _:
                return item
            case Several(items), Known(int(at)) if -len(items) <= at < len(items):
                return items[at]
            case Known(container), Known(at):
                try:
                    return Known(container[at])
                except (TypeError, LookupError):
                    pass
        return Opaque(source_of(node), volatile(owner), None)

    def call(self, callee: Value, arguments: Arguments) -> Value:
        return self._calls.call(self, callee, arguments)

    def read(self, line: Line, name: g.VarName | None, place: g.Place) -> Value:
        """A variable of a state (None: all of it): the program waits for it."""
        in_turn = self.lines.is_asked_in_turn(line, name)
        self.lines.add(line, g.Read(name, in_turn, place))
        return Said((g.Variable(name or g.VarName((None,)), place),))

    # --- text ------------------------------------------------------------------------------------

    def text(self, node: ast.expr) -> g.Block:
        return as_text(self.value(node), source_of(node), self.place(node))

    def _formatted(self, part: ast.expr) -> g.Block:
        if not isinstance(part, ast.FormattedValue):
            return self.text(part)
        value = self.value(part.value)
        source, place = source_of(part.value), self.place(part)
        if part.conversion == -1 and part.format_spec is None:
            return as_text(value, source, place)
        return (g.Computed(source, volatile(value), unordered(value), place),)

    def _binary(self, node: ast.BinOp, left: Value, operator: ast.operator, right: Value) -> Value:
        if isinstance(left, Known) and isinstance(right, Known):
            folded = operation(left.value, operator, right.value)
            if folded is not None:
                return folded
        if isinstance(operator, ast.Add) and (_speaks(left) or _speaks(right)):
            one = said(left, source_of(node.left), self.place(node.left))
            other = said(right, source_of(node.right), self.place(node.right))
            return Said(one.items + other.items)
        if isinstance(operator, ast.Add) and isinstance(left, Several | Many):
            return left if isinstance(left, Many) else Opaque(source_of(node))
        return Opaque(source_of(node), volatile(left, right), unordered(left, right))

    # --- containers ------------------------------------------------------------------------------

    def _display(self, node: ast.Tuple | ast.List, items: list[ast.expr]) -> Value:
        values = [self.value(item) for item in items]
        if any(isinstance(item, ast.Starred) for item in items):
            return Opaque(source_of(node), volatile(*values))
        if all(isinstance(value, Known) for value in values):
            made = [value.value for value in values if isinstance(value, Known)]
            return Known(tuple(made) if isinstance(node, ast.Tuple) else made)
        return Several(tuple(values))

    def _dict(self, node: ast.Dict, keys: list[ast.expr | None], values: list[ast.expr]) -> Value:
        names = [None if key is None else self.value(key) for key in keys]
        items = [self.value(value) for value in values]
        made = {}
        for name, item in zip(names, items, strict=True):
            if not isinstance(name, Known) or not isinstance(item, Known):
                return Opaque(source_of(node), volatile(*items))
            try:
                made[name.value] = item.value
            except TypeError:  # no key
                return Opaque(source_of(node))
        return Known(made)

    def _choice(self, test: ast.expr, body: ast.expr, orelse: ast.expr) -> Value:
        self.value(test)
        one, other = self.value(body), self.value(orelse)
        if all(isinstance(value, Said) and not value.is_text for value in (one, other)):
            pass
        elif not any(isinstance(value, Said) and not value.is_text for value in (one, other)):
            return merged(one, other, f"{source_of(body)} or {source_of(orelse)}")
        cases = tuple(
            said(value, source_of(node), self.place(node)).items
            for value, node in ((one, body), (other, orelse))
        )
        return Said((g.Alternatives(source_of(test), cases, self.place(test)),))

    def _comprehension(
        self, node: ast.ListComp | ast.GeneratorExp | ast.SetComp | ast.DictComp
    ) -> Value:
        outer, self.names = self.names, dict(self.names)
        loops = [f"{source_of(each.target)} in {source_of(each.iter)}" for each in node.generators]
        over = ", ".join(loops)
        place = self.place(node)
        with self.lines.within(lambda body: g.Loop(over, body, place)) as within:
            disorder = None
            for each in node.generators:
                items = self.value(each.iter)
                disorder = disorder or unordered(items)
                self.bind(each.target, self.element(items, within, source_of(each.target)))
                for test in each.ifs:
                    self.value(test)
            made = [node.key, node.value] if isinstance(node, ast.DictComp) else [node.elt]
            values = [self.value(one) for one in made]
        self.names = outer
        if isinstance(node, ast.SetComp):
            return Opaque(source_of(node), volatile(*values), "the order of a set")
        if isinstance(node, ast.DictComp) or disorder:
            return Opaque(source_of(node), volatile(*values), disorder)
        return Many(values[0])

    def element(self, items: Value, within: Pass, source: str) -> Value:
        """What a loop's variable is. within: the loop's frame."""
        match items:
            case GroupRef(group):
                line = group.line("each")
                within.own.add(line)
                return StateRef(line)
            case Zipped(parts):
                return Several(tuple(self.element(part, within, source) for part in parts))
            case Many(item):
                if isinstance(item, StateRef) and item.line is not self.lines.main:
                    within.own.add(item.line)
                return item
            case Index():
                return Index(source, within)
            case Several(parts) if parts:
                first = parts[0]
                for part in parts[1:]:
                    first = merged(first, part, source)
                return first
            case _:
                return Opaque(source, volatile(items) or unordered(items))

    def bind(self, target: ast.expr, value: Value) -> None:
        """Set names to a value, or to its parts."""
        match target:
            case ast.Name(name):
                self.names[name] = value
            case ast.Tuple(parts) | ast.List(parts):
                values = self._parts(value, parts)
                for part, one in zip(parts, values, strict=True):
                    self.bind(part, one)
            case ast.Starred(inner):
                self.bind(inner, Opaque(source_of(inner), volatile(value)))
            case ast.Subscript(owner, key):
                held = self.value(owner)
                if isinstance(held, StateRef):
                    set_name = name_of(self.value(key)) or g.VarName((None,))
                    self.lines.add(held.line, g.Assign(set_name, self.place(target)))
            case ast.Attribute(owner, _):
                self.value(owner)

    def _parts(self, value: Value, parts: list[ast.expr]) -> list[Value]:
        match value:
            case Several(items) if len(items) == len(parts):
                return list(items)
            case Known(tuple() | list() as held) if len(held) == len(parts):
                return [Known(one) for one in held]
            case GroupRef(group):
                return [StateRef(group.line(str(at))) for at in range(len(parts))]
            case Many(item):
                return [item] * len(parts)
        return [Opaque(source_of(part), volatile(value), unordered(value)) for part in parts]

    def _other(self, node: ast.expr) -> Value:
        """Any other operation: its operands are evaluated for what they read."""
        values = [
            self.value(one) for one in ast.iter_child_nodes(node) if isinstance(one, ast.expr)
        ]
        if isinstance(node, ast.Set) and all(isinstance(value, Known) for value in values):
            try:
                return Known({value.value for value in values if isinstance(value, Known)})
            except TypeError:
                pass
        if isinstance(node, ast.UnaryOp) and isinstance(values[0], Known):
            if isinstance(node.op, ast.USub) and isinstance(values[0].value, int | float):
                return Known(-values[0].value)
        return Opaque(source_of(node), volatile(*values), None)


def _speaks(value: Value) -> bool:
    return isinstance(value, Said) or is_text(value)
