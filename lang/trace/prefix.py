"""The constant beginning of a program: what every run of it says first, whatever its arguments.

Owns: where that beginning ends. Reads a graph alone; runs nothing.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from ..nodes import Literal, Node, RoleBegin, RoleEnd
from . import graph as g


@dataclass(frozen=True)
class Prefix:
    """nodes: to be added to a state."""

    nodes: tuple[Node, ...]

    @property
    def text(self) -> str:
        """Its own text, without the marks of its roles."""
        return "".join(node.text for node in self.nodes if isinstance(node, Literal))


class _End(Exception):
    """The prefix ends here."""


def constant_prefix(graph: g.Graph) -> Prefix:
    nodes: list[Node] = []
    try:
        for node in _nodes(graph.body):
            nodes.append(node)
    except _End:
        pass
    return Prefix(tuple(nodes))


def _nodes(block: g.Block) -> Iterator[Node]:
    for vertex in block:
        match vertex:
            case g.Constant(text):
                yield Literal(text)
            case g.Argument(_, str(value)):
                yield Literal(value)
            case g.Role(role, body):
                yield RoleBegin(role)
                yield from _nodes(body)
                yield RoleEnd(role)
            case g.RoleBegin(role):
                yield RoleBegin(role)
            case g.RoleEnd(role):
                yield RoleEnd(role)
            case g.VarScope(_, body):
                yield from _nodes(body)
            case g.Assign() | g.Call():  # they say nothing
                pass
            case _:
                raise _End
