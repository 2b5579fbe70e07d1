"""What the statements of a program's source do, read from top to bottom without running them.

Owns: control flow. A loop's body is read once; of alternatives each is; what is assigned on the way
is what it can be in any case.
"""

import ast
from collections.abc import Callable, Sequence
from functools import partial

from . import graph as g
from .arguments import Given, source_of
from .expressions import Expressions
from .scopes import imported
from .sources import Definition, assigned_names
from .states import add_to_group, join
from .values import (
    Dotted,
    GroupRef,
    Helper,
    Known,
    Many,
    Opaque,
    ProgramRef,
    Said,
    Several,
    StateRef,
    Value,
    merged,
    name_of,
    said,
    volatile,
)


class Statements:
    """One function's body. is_main: the program's own, not a helper's.

    may_unroll: whether a loop over so many known items is read item by item.
    """

    def __init__(
        self, reader: Expressions, *, is_main: bool, may_unroll: Callable[[int], bool]
    ) -> None:
        self._reader = reader
        self._lines = reader.lines
        self._is_main = is_main
        self._may_unroll = may_unroll
        self.returned: list[Value] = []

    def run(self, body: Sequence[ast.stmt]) -> None:
        for statement in body:
            self._statement(statement)

    def _statement(self, node: ast.stmt) -> None:
        reader = self._reader
        match node:
            case ast.Expr(value):
                if not self._append(value):
                    reader.value(value)
            case ast.AugAssign():
                self._augmented(node)
            case ast.Assign(targets, value):
                self._assign(targets, reader.value(value))
            case ast.AnnAssign(target, _, ast.expr() as value):
                self._assign([target], reader.value(value))
            case ast.If(test, body, orelse):
                reader.value(test)
                cases = [partial(self.run, body), partial(self.run, orelse)]
                self._alternatives(source_of(test), node, cases)
            case ast.For(target, items, body, orelse) | ast.AsyncFor(target, items, body, orelse):
                self._loop(node, target, reader.value(items), body)
                self.run(orelse)
            case ast.While(test, body, orelse):
                self._while(node, test, body)
                self.run(orelse)
            case ast.With(items, body) | ast.AsyncWith(items, body):
                self._with(list(items), body)
            case ast.Try() | ast.TryStar():
                self._try(node)
            case ast.Match(subject, cases):
                reader.value(subject)
                runs = [partial(self.run, case.body) for case in cases]
                self._alternatives(source_of(subject), node, [*runs, lambda: None])
            case ast.Return(value):
                self._return(node, value)
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                reader.names[node.name] = self._defined(node)
            case ast.Import() | ast.ImportFrom():
                for alias in node.names:
                    name = alias.asname or alias.name.partition(".")[0]
                    reader.names[name] = imported(node, name)
            case ast.ClassDef(name):
                reader.names[name] = Opaque(name)
            case _:
                for part in ast.iter_child_nodes(node):
                    if isinstance(part, ast.expr):
                        reader.value(part)

    # --- assignment ------------------------------------------------------------------------------

    def _assign(self, targets: list[ast.expr], value: Value) -> None:
        for target in targets:
            if isinstance(value, GroupRef) and isinstance(target, ast.Name):
                if value.group.name == "fork":
                    value.group.name = target.id
            self._reader.bind(target, value)

    def _augmented(self, node: ast.AugAssign) -> None:
        reader, place = self._reader, self._reader.place(node)
        target = node.target
        held = reader.value(target) if isinstance(target, ast.Name) else self._held(target)
        added = reader.value(node.value)
        given = Given(added, source_of(node.value))
        match held:
            case StateRef(line):
                value = said(added, given.source, reader.place(node.value))
                self._lines.add(line, *value.items)
            case GroupRef(group):
                add_to_group(reader, group, given, place)
            case _ if isinstance(target, ast.Name):
                source = ast.BinOp(target, node.op, node.value)
                ast.copy_location(source, node)
                reader.names[target.id] = reader.value(source)
            case _:
                reader.bind(target, Opaque(source_of(target), volatile(added)))

    def _held(self, target: ast.Attribute | ast.Subscript) -> Value:
        """What stands at a target, without a read where it is a variable that is set."""
        if isinstance(target, ast.Subscript):
            owner = self._reader.value(target.value)
            if isinstance(owner, GroupRef | Many | Several):
                return self._reader.value(target)
        return Opaque(source_of(target))

    def _append(self, node: ast.expr) -> bool:
        """`items.append(x)`: a list of such as x."""
        match node:
            case ast.Call(ast.Attribute(ast.Name(name), "append"), [item], []):
                held = self._reader.names.get(name)
                if isinstance(held, Many | Several) or _is_empty(held):
                    value: Value = Many(self._reader.value(item))
                    if held is not None and not _is_empty(held):
                        value = merged(held, value, name)
                    self._reader.names[name] = value
                    return True
        return False

    def _defined(self, node: Definition) -> Value:
        for decorator in node.decorator_list:
            maker = decorator.func if isinstance(decorator, ast.Call) else decorator
            value = self._reader.value(maker)
            if isinstance(value, Dotted) and value.verb == "function":
                return ProgramRef(node.name)
        if node.decorator_list:
            return Opaque(node.name)
        return Helper(node, self._reader.scope, self._reader.names)

    # --- control flow ----------------------------------------------------------------------------

    def _alternatives(self, test: str, node: ast.stmt, cases: Sequence[Callable[[], None]]) -> None:
        reader = self._reader
        before, ends = reader.names, []

        def alone(case: Callable[[], None]) -> None:
            reader.names = dict(before)
            case()
            ends.append(reader.names)

        runs = [partial(alone, case) for case in cases]
        self._lines.choose(test, reader.place(node), runs)
        reader.names = ends[0]
        for end in ends[1:]:
            reader.names = _either(reader.names, end)

    def _loop(
        self, node: ast.stmt, target: ast.expr, items: Value, body: Sequence[ast.stmt]
    ) -> None:
        reader = self._reader
        if isinstance(items, Known) and isinstance(items.value, list | tuple):
            leaves = (ast.Break, ast.Continue)
            whole = not any(isinstance(one, leaves) for part in body for one in ast.walk(part))
            if whole and self._may_unroll(len(items.value)):
                for item in items.value:
                    reader.bind(target, Known(item))
                    self.run(body)
                return
        assert isinstance(node, ast.For | ast.AsyncFor)
        over = f"{source_of(target)} in {source_of(node.iter)}"
        before = self._changing(body)
        with self._lines.within(lambda block: g.Loop(over, block, reader.place(node))) as within:
            reader.bind(target, reader.element(items, within, source_of(target)))
            self.run(body)
        reader.names = _either(before, reader.names)

    def _while(self, node: ast.While, test: ast.expr, body: Sequence[ast.stmt]) -> None:
        reader = self._reader
        before = self._changing(body)
        over = f"while {source_of(test)}"
        with self._lines.within(lambda block: g.Loop(over, block, reader.place(node))):
            reader.value(test)
            self.run(body)
        reader.names = _either(before, reader.names)

    def _changing(self, body: Sequence[ast.stmt]) -> dict[str, Value]:
        """What holds in every turn of a loop: what it sets is not known before it. Returns the
        names as they were."""
        before = dict(self._reader.names)
        for name in assigned_names(body):
            held = before.get(name)
            if isinstance(held, Known | Said | Several):
                self._reader.names[name] = Opaque(name, volatile(held))
        return before

    def _try(self, node: ast.Try | ast.TryStar) -> None:
        self.run(node.body)
        if node.handlers:
            handlers = [partial(self.run, one.body) for one in node.handlers]
            cases = [partial(self.run, node.orelse), *handlers]
            self._alternatives("an exception", node, cases)
        self.run(node.finalbody)

    def _with(self, items: list[ast.withitem], body: Sequence[ast.stmt]) -> None:
        if not items:
            self.run(body)
            return
        item, place = items[0], self._reader.place(items[0].context_expr)
        inner = partial(self._with, items[1:], body)
        match item.context_expr:
            case ast.Call(ast.Attribute(owner, ("system" | "user" | "assistant") as role), [], []):
                held = self._reader.value(owner)
                if isinstance(held, StateRef):
                    with self._lines.within(lambda b: g.Role(role, b, place), held.line):
                        inner()
                    return
            case ast.Call(ast.Attribute(owner, "var_scope"), [name], _):
                held = self._reader.value(owner)
                var = name_of(self._reader.value(name)) or g.VarName((None,))
                if isinstance(held, StateRef):
                    with self._lines.within(lambda b: g.VarScope(var, b, place), held.line):
                        inner()
                    return
        self._plain_with(item, inner)

    def _plain_with(self, item: ast.withitem, inner: Callable[[], None]) -> None:
        value = self._reader.value(item.context_expr)
        is_copy = isinstance(item.context_expr, ast.Call) and (
            isinstance(item.context_expr.func, ast.Attribute)
            and item.context_expr.func.attr == "copy"
        )
        if isinstance(value, GroupRef) and is_copy:
            group = value.group
            if item.optional_vars is not None:
                self._reader.bind(item.optional_vars, StateRef(group.line("0")))
                group.name = source_of(item.optional_vars)
            inner()
            place = self._reader.place(item.context_expr)
            join(self._reader, group, "gather_variable", place)
            return
        if item.optional_vars is not None:
            self._reader.bind(item.optional_vars, Opaque(source_of(item.context_expr)))
        inner()

    def _return(self, node: ast.Return, value: ast.expr | None) -> None:
        if value is None:
            return
        self.returned.append(self._reader.value(value))
        if self._is_main:
            vertex = g.Return(source_of(value), self._reader.place(node))
            self._lines.add(self._lines.main, vertex)


def _is_empty(value: Value | None) -> bool:
    return isinstance(value, Known) and value.value == [] or value == Several(())


def _either(one: dict[str, Value], other: dict[str, Value]) -> dict[str, Value]:
    names = dict(one)
    for name, value in other.items():
        names[name] = merged(one[name], value, name) if name in one else value
    return names
