"""From a file, or a program that is there, to the findings in it. Runs nothing of the user's."""

import ast
import linecache
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from types import FunctionType
from typing import Any, Final

from ...runtime.errors import InvalidRequest
from ..trace.graph import Graph
from ..trace.reading import file_scope, read_definition, read_function
from ..trace.sources import Definition, module_of
from .comments import ignored_lines
from .findings import Finding, Rule
from .rules import RULES
from .subject import Subject, Tokens, Uses, uses_of

CODES: Final = tuple(rule.code for rule in RULES)


@dataclass(frozen=True)
class Check:
    """Which rules are asked, and how tokens are counted."""

    rules: tuple[Rule, ...] = RULES
    tokens: Tokens = Tokens()

    @classmethod
    def of(
        cls, select: Sequence[str] = (), ignore: Sequence[str] = (), tokens: Tokens | None = None
    ) -> "Check":
        """The rules of these codes or names (none: all), without those to ignore. Raises
        InvalidRequest for one that does not exist."""
        wanted, unwanted = _codes("select", select), _codes("ignore", ignore)
        chosen = [r for r in RULES if (r.code in wanted or not wanted) and r.code not in unwanted]
        return cls(tuple(chosen), tokens or Tokens())

    def source(self, source: str, file: str) -> list[Finding]:
        """The findings of all programs of a file, in the order of its lines. Raises SyntaxError."""
        tree = ast.parse(source, file)
        found = [
            finding
            for graph in _programs(tree, file)
            for finding in self._graph(graph, uses_of(tree, graph.program))
        ]
        return _kept(found, source, file)

    def program(self, function: Any) -> list[Finding]:
        """The findings of one program. Raises InvalidRequest where it has no source."""
        graph = read_function(function, {})
        tree = module_of(function) if isinstance(function, FunctionType) else None
        uses = Uses() if tree is None else uses_of(tree, graph.program)
        source = "".join(linecache.getlines(graph.place.file))
        return _kept(list(self._graph(graph, uses)), source, graph.place.file)

    def _graph(self, graph: Graph, uses: Uses) -> Iterator[Finding]:
        subject = Subject(graph, uses, self.tokens)
        for rule in self.rules:
            for found in rule.check(subject):
                yield rule.finding(found)


def _programs(tree: ast.Module, file: str) -> Iterator[Graph]:
    """Every function of the file that is a program, wherever it stands."""
    scope = file_scope(tree, file)
    for node in ast.walk(tree):
        if isinstance(node, Definition) and scope.is_program(node):
            yield read_definition(node, scope)


def _kept(found: Sequence[Finding], source: str, file: str) -> list[Finding]:
    """Without those that a comment switches off; columns in characters, where Python has bytes."""
    if not found:
        return []
    ignored, lines = ignored_lines(source), source.split("\n")
    kept = []
    for one in found:
        if one.file == file:
            if any(here.covers(one.line, one.code) for here in ignored):
                continue
            before = lines[one.line - 1].encode()[: one.column - 1]
            one = replace(one, column=len(before.decode(errors="ignore")) + 1)
        kept.append(one)
    return sorted(set(kept))  # a helper is read wherever it is called


def _codes(field: str, given: Sequence[str]) -> set[str]:
    given = [given] if isinstance(given, str) else given
    by_name = {rule.name: rule.code for rule in RULES}
    codes = set()
    for one in given:
        code = by_name.get(one, one.upper())
        if code not in CODES:
            raise InvalidRequest(
                f"{field}: there is no rule {one!r}; the rules are {CODES[0]} to {CODES[-1]}",
                field=field,
            )
        codes.add(code)
    return codes
