"""Finding the source of a function, and going through statements. Runs nothing of it."""

import ast
import inspect
import linecache
from collections.abc import Iterator, Sequence
from types import FunctionType

Definition = ast.FunctionDef | ast.AsyncFunctionDef


def module_of(function: FunctionType) -> ast.Module | None:
    """The syntax tree of the file (or notebook cell) that a function stands in."""
    file = inspect.getsourcefile(function) or function.__code__.co_filename
    lines = linecache.getlines(file, function.__globals__)
    try:
        return ast.parse("".join(lines)) if lines else None
    except SyntaxError:  # the file has changed since
        return None


def definition_of(function: FunctionType, tree: ast.Module | None = None) -> Definition | None:
    """The `def` of a function; None for a lambda, or where there is no source."""
    tree = tree or module_of(function)
    first = function.__code__.co_firstlineno
    for node in ast.walk(tree) if tree is not None else ():
        if isinstance(node, Definition) and node.name == function.__name__:
            if min([node.lineno, *(one.lineno for one in node.decorator_list)]) == first:
                return node
    return None


def own_statements(body: Sequence[ast.stmt]) -> Iterator[ast.stmt]:
    """These statements and those within them that run with them: no function's, no class's."""
    for statement in body:
        yield statement
        if isinstance(statement, Definition | ast.ClassDef):
            continue
        for name in ("body", "orelse", "finalbody"):
            yield from own_statements(getattr(statement, name, ()))
        for part in (*getattr(statement, "handlers", ()), *getattr(statement, "cases", ())):
            yield from own_statements(part.body)


def assigned_names(body: Sequence[ast.AST]) -> set[str]:
    """Names that these statements set."""
    return {
        node.id
        for statement in body
        for node in ast.walk(statement)
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
    }
