"""What a rule looks at: one program, and what the rest of its file does with it."""

import ast
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from ..trace.graph import Graph

_ASKING: Final = ("gen", "gen_int", "gen_string", "select")
_TEXT_READERS: Final = ("text", "messages", "text_iter", "text_async_iter", "stream", "variables")
_RUNS: Final = ("run", "run_batch", "arun", "arun_batch", "bind")


@dataclass(frozen=True)
class Tokens:
    """How texts become tokens. encode: None where no tokenizer is at hand; then the number is an
    estimate by characters."""

    encode: Callable[[str], list[int]] | None = None

    def count(self, text: str) -> int:
        return (len(text) + 3) // 4 if self.encode is None else len(self.encode(text))

    def told(self, text: str) -> str:
        """The number in words."""
        return f"{'about ' if self.encode is None else ''}{self.count(text)} tokens"


@dataclass(frozen=True)
class Uses:
    """What a file does with a program.

    options: keywords of its runs; runs: whether it is run at all; texts: all texts that stand
    elsewhere than as the name of what is asked for; reads_all: whether states are read otherwise
    than by a name that stands there.
    """

    options: frozenset[str] = frozenset()
    runs: bool = False
    texts: frozenset[str] = frozenset()
    reads_all: bool = False


@dataclass(frozen=True)
class Subject:
    graph: Graph
    uses: Uses
    tokens: Tokens


def uses_of(tree: ast.Module, program: str) -> Uses:
    options: set[str] = set()
    texts: set[str] = set()
    runs = reads_all = False
    names = {id(node) for call in ast.walk(tree) for node in _name_arguments(call)}
    for node in ast.walk(tree):
        match node:
            case ast.Call(ast.Name(called) | ast.Attribute(ast.Name(called), _), _, keywords):
                method = node.func.attr if isinstance(node.func, ast.Attribute) else "run"
                if called == program and method in _RUNS:
                    runs = True
                    options |= {keyword.arg or "**" for keyword in keywords}
                elif called == "str" and method == "run":
                    reads_all = True
            case ast.Constant(str(text)) if id(node) not in names:
                texts.add(text)
            case ast.Subscript(_, key) if not isinstance(key, ast.Constant):
                reads_all = reads_all or isinstance(key, ast.JoinedStr)
        if isinstance(node, ast.Attribute) and node.attr in _TEXT_READERS:
            reads_all = True
    return Uses(frozenset(options), runs, frozenset(texts), reads_all)


def _name_arguments(node: ast.AST) -> list[ast.expr]:
    match node:
        case ast.Call(ast.Name(verb) | ast.Attribute(_, verb), args, keywords) if verb in _ASKING:
            return args[:1] + [one.value for one in keywords if one.arg == "name"]
        case _:
            return []
