"""The graph of a program from its source, by reading it: nothing of the program runs.

Owns: where the reading starts, and how deep it follows the user's helper functions.
"""

import ast
from collections.abc import Mapping
from types import FunctionType
from typing import Any, Final

from ...runtime.errors import InvalidRequest
from . import graph as g
from .arguments import Arguments
from .calls import CallReader
from .expressions import Expressions
from .lines import Lines
from .scopes import FileScope, LiveScope, Scope
from .sources import Definition, definition_of
from .statements import Statements
from .values import Helper, Known, Opaque, Said, StateRef, Value, is_plain, merged

_DEEPEST: Final = 8  # helpers that call helpers
_MOST_UNROLLED: Final = 1_000  # turns of loops over what is known
_MOST_READ: Final = 500  # helpers, each as often as it is called


def file_scope(tree: ast.Module, file: str) -> FileScope:
    """What the names of a file stand for, by its source alone."""
    return FileScope(tree, file, _constant)


def _constant(node: ast.expr, scope: Scope) -> Value:
    return _Reading(Lines(), unrolls=False).expressions(scope, {}).value(node)


def read_function(function: Any, given: Mapping[str, Any], *, unrolls: bool = False) -> g.Graph:
    """The graph of a function that is there. given: arguments by name, as far as they are known.

    Raises InvalidRequest where it has no source.
    """
    definition = definition_of(function) if isinstance(function, FunctionType) else None
    if definition is None:
        name = getattr(function, "__qualname__", repr(function))
        raise InvalidRequest(
            f"{name}: there is no source of it to read; trace(..., execute=True) needs none",
            field="execute",
        )
    return read_definition(definition, LiveScope(function), given, unrolls=unrolls)


def read_definition(
    definition: Definition,
    scope: Scope,
    given: Mapping[str, Any] | None = None,
    *,
    unrolls: bool = False,
) -> g.Graph:
    """The graph of a `def` that stands in the scope."""
    lines = Lines()
    names: dict[str, Value] = {}
    parameters = _parameters(definition, given or {}, names)
    first = next(iter(names), None)
    if first is not None:
        names[first] = StateRef(lines.main)
    _Reading(lines, unrolls=unrolls).body(definition, scope, names, is_main=True)
    place = g.Place(scope.file, definition.lineno, definition.col_offset + 1)
    return g.Graph(definition.name, parameters, lines.settled(), place)


def _parameters(
    definition: Definition, given: Mapping[str, Any], names: dict[str, Value]
) -> tuple[g.Parameter, ...]:
    """The parameters after the state; `names` gets what each one's name stands for."""
    arguments = definition.args
    shown = []
    for at, one in enumerate([*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]):
        value = given.get(one.arg)
        text = str(value) if one.arg in given and is_plain(value) else None
        names[one.arg] = Said((g.Argument(one.arg, text),))
        if at:
            shown.append(g.Parameter(one.arg, text))
    for rest in (arguments.vararg, arguments.kwarg):
        if rest is not None:
            names[rest.arg] = Opaque(rest.arg)
            shown.append(
                g.Parameter(f"*{rest.arg}" if rest is arguments.vararg else f"**{rest.arg}")
            )
    return tuple(shown)


class _Reading:
    """One reading: its lines, and the helpers that are being read."""

    def __init__(self, lines: Lines, *, unrolls: bool) -> None:
        self._lines = lines
        self._turns_left = _MOST_UNROLLED if unrolls else 0
        self._calls = CallReader(self._inlined)
        self._open: list[object] = []
        self._num_read = 0

    def expressions(self, scope: Scope, names: dict[str, Value]) -> Expressions:
        return Expressions(self._lines, scope, names, self._calls)

    def body(
        self, definition: Definition, scope: Scope, names: dict[str, Value], *, is_main: bool
    ) -> Value:
        """What the function returns."""
        reader = self.expressions(scope, names)
        statements = Statements(reader, is_main=is_main, may_unroll=self._may_unroll)
        statements.run(definition.body)
        returned = statements.returned or [_without_return(definition)]
        value = returned[0]
        for other in returned[1:]:
            value = merged(value, other, definition.name)
        return value

    def _may_unroll(self, num_turns: int) -> bool:
        self._turns_left -= num_turns
        return self._turns_left >= 0

    def _inlined(self, caller: Expressions, helper: Helper, arguments: Arguments) -> Value | None:
        definition = helper.definition
        if definition in self._open or len(self._open) >= _DEEPEST or arguments.rest:
            return None
        self._num_read += 1
        if self._num_read > _MOST_READ:
            return None
        names = dict(helper.closure) | _bound(definition.args, arguments)
        self._open.append(definition)
        try:
            if isinstance(definition, ast.Lambda):
                return self.expressions(helper.scope, names).value(definition.body)
            return self.body(definition, helper.scope, names, is_main=False)
        finally:
            self._open.pop()


def _without_return(definition: Definition) -> Value:
    raises = any(isinstance(node, ast.Raise) for node in ast.walk(definition))
    return Opaque(definition.name) if raises else Known(None)


def _bound(parameters: ast.arguments, arguments: Arguments) -> dict[str, Value]:
    """A helper's parameters by name. Defaults are not looked into."""
    names: dict[str, Value] = {}
    positional = [*parameters.posonlyargs, *parameters.args]
    for one in (*positional, *parameters.kwonlyargs):
        names[one.arg] = Opaque(one.arg)
    for one, given in zip(positional, arguments.positional, strict=False):
        names[one.arg] = given.value
    names.update((name, given.value) for name, given in arguments.named.items())
    for rest in (parameters.vararg, parameters.kwarg):
        if rest is not None:
            names[rest.arg] = Opaque(rest.arg)
    return names
