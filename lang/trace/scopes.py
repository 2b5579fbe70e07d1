"""What a name outside a program's function stands for.

Owns: the two ways to know: a file's source alone (nothing of it runs), and a function that is
there, with its module's values. Neither calls anything of the user's.
"""

import ast
import builtins
import inspect
import sys
from collections.abc import Callable, Iterator
from types import FunctionType, ModuleType
from typing import Any, Final, Protocol

from ...runtime.protocol import Constraint
from .sources import Definition, definition_of, own_statements
from .values import Dotted, Helper, Known, Opaque, ProgramRef, Value, is_plain


class Scope(Protocol):
    @property
    def file(self) -> str: ...

    def lookup(self, name: str) -> Value | None:
        """None: there is no such name, not even in Python itself."""
        ...

    def member(self, module: str, name: str) -> Value | None:
        """What a module holds, where that is known."""
        ...


def python_name(name: str) -> Value | None:
    return Dotted(f"builtins.{name}") if hasattr(builtins, name) else None


# --- a file's source ------------------------------------------------------------------------------


class FileScope:
    """evaluate: what an expression of the module's own level is known to be."""

    def __init__(
        self,
        tree: ast.Module,
        file: str,
        evaluate: "Callable[[ast.expr, Scope], Value]",
    ) -> None:
        self.file: Final = file
        self._evaluate = evaluate
        self._bindings: dict[str, list[ast.stmt]] = {}
        for statement in own_statements(tree.body):
            for name in bound_names(statement):
                self._bindings.setdefault(name, []).append(statement)
        for node in ast.walk(tree):
            if isinstance(node, ast.Global):  # a function may set it at any time
                for name in node.names:
                    self._bindings.setdefault(name, []).append(node)
        self._known: dict[str, Value] = {}

    def lookup(self, name: str) -> Value | None:
        if name not in self._bindings:
            return python_name(name)
        if name not in self._known:
            self._known[name] = Opaque(name)  # for a definition that leads back to itself
            self._known[name] = self._find(name)
        return self._known[name]

    def member(self, module: str, name: str) -> Value | None:
        return None

    def is_program(self, definition: Definition) -> bool:
        return any(map(self._makes_programs, definition.decorator_list))

    def _makes_programs(self, decorator: ast.expr) -> bool:
        maker = decorator.func if isinstance(decorator, ast.Call) else decorator
        value = self._evaluate(maker, self)
        return isinstance(value, Dotted) and value.verb == "function"

    def _find(self, name: str) -> Value:
        bindings = self._bindings[name]
        imports = [one for one in bindings if isinstance(one, ast.Import | ast.ImportFrom)]
        if imports:  # what another import or a fallback makes of it has the same use
            return imported(imports[0], name)
        if len(bindings) > 1:
            return Opaque(name)
        match bindings[0]:
            case ast.FunctionDef() | ast.AsyncFunctionDef() as definition:
                if self.is_program(definition):
                    return ProgramRef(name)
                return Opaque(name) if definition.decorator_list else Helper(definition, self, {})
            case ast.Assign(targets=[ast.Name()], value=value):
                return self._evaluate(value, self)
            case ast.AnnAssign(value=ast.expr() as value):
                return self._evaluate(value, self)
        return Opaque(name)


def bound_names(statement: ast.stmt) -> Iterator[str]:
    """The names that a statement binds where it stands."""
    match statement:
        case ast.Import(names) | ast.ImportFrom(names=names):
            for alias in names:
                yield alias.asname or alias.name.partition(".")[0]
        case ast.FunctionDef(name) | ast.AsyncFunctionDef(name) | ast.ClassDef(name):
            yield name
        case _:
            heads: list[ast.AST] = [statement]
            if hasattr(statement, "body"):  # its statements speak for themselves
                fields = ("target", "items", "test", "iter", "subject")
                heads = [part for name in fields for part in _parts(getattr(statement, name, None))]
            for head in heads:
                for node in ast.walk(head):
                    if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
                        yield node.id


def _parts(value: object) -> list[ast.AST]:
    values = value if isinstance(value, list) else [value]
    return [one for one in values if isinstance(one, ast.AST)]


def imported(statement: ast.Import | ast.ImportFrom, name: str) -> Value:
    for alias in statement.names:
        if (alias.asname or alias.name.partition(".")[0]) != name:
            continue
        if isinstance(statement, ast.ImportFrom):
            return Dotted(f"{'.' * statement.level}{statement.module or ''}.{alias.name}")
        return Dotted(alias.name if alias.asname else name)
    return Opaque(name)


# --- a function that is there ---------------------------------------------------------------------


class LiveScope:
    """The globals and the closure of a function, as they are now."""

    def __init__(self, function: FunctionType) -> None:
        self.file: Final = inspect.getsourcefile(function) or function.__code__.co_filename
        self._function = function

    def lookup(self, name: str) -> Value | None:
        function = self._function
        if name in function.__code__.co_freevars:
            cell = (function.__closure__ or ())[function.__code__.co_freevars.index(name)]
            try:
                return from_live(cell.cell_contents, name)
            except ValueError:  # not set yet
                return Opaque(name)
        if name in function.__globals__:
            return from_live(function.__globals__[name], name)
        return python_name(name)

    def member(self, module: str, name: str) -> Value | None:
        held = getattr(sys.modules.get(module), "__dict__", {})
        value = from_live(held[name], name) if name in held else None
        # What a module defines or imports goes by the name that the program uses.
        return None if isinstance(value, Dotted | Opaque) else value


def from_live(value: Any, name: str) -> Value:
    """What is known of a value that is there; nothing of it is called."""
    if is_plain(value) or isinstance(value, Constraint):
        return Known(value)
    if isinstance(value, ModuleType):
        return Dotted(value.__name__)
    if hasattr(type(value), "run_batch") and isinstance(getattr(value, "func", None), FunctionType):
        return ProgramRef(str(getattr(value, "__name__", name)))
    module, full_name = getattr(value, "__module__", None), getattr(value, "__qualname__", None)
    if not isinstance(module, str) or not isinstance(full_name, str):
        return Opaque(name)
    # `random`'s functions are methods of an object of it, `os`'s are those of the system's module.
    module = {"posix": "os", "nt": "os"}.get(module, module)
    dotted = Dotted(f"{module}.{full_name}".replace("random.Random.", "random."))
    if isinstance(value, FunctionType) and dotted.verb is None:
        definition = definition_of(value)
        if definition is not None and not definition.decorator_list:
            return Helper(definition, LiveScope(value), {})
    return dotted
