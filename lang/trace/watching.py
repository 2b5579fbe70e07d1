"""The graph of a program from one run of it: what it said with these arguments, as it said it.

Owns: the account that is kept of a run, and the answers that stand for a model's where none is
asked: its name in angle brackets for a gen, the shortest text that a constraint allows, the first
option. The program's own code runs, once, with all that it does.
"""

from collections.abc import Mapping
from contextlib import closing
from dataclasses import replace
from typing import Any, Final

from ...runtime.constraint_facts import constraint_facts
from ...runtime.errors import InvalidRequest
from ...runtime.protocol import GenerateRequest
from ...runtime.scripted import ScriptedClient
from ..arguments import Call
from ..execution import Execution
from ..nodes import Gen, Literal, Media, Node, Reasoning, RoleBegin, RoleEnd, Select, Sequence
from ..observer import Added, Event, Forked, Joined, ScopeBegun, ScopeEnded
from ..options import RunOptions
from ..recording import Aside
from . import graph as g
from .lines import closed_roles
from .values import is_plain

_ANSWER: Final = "<answer>"


def watched(call: Call, backend: object | None) -> g.Graph:
    """Run it, on this back end or on answers of our own, and tell what it said. Raises what the
    program raises."""
    if backend is not None:
        return _watched(call, backend)
    with closing(ScriptedClient(_answer)) as client:
        return _watched(call, Aside(client))


def _watched(call: Call, backend: object) -> g.Graph:
    execution = Execution(call, RunOptions(backend=backend))
    account = _Account(execution.branch)
    execution.run.observer = account.take
    state = execution.to_end()
    error = state.error()
    if error is not None:
        raise error
    given = call.described({}).arguments
    parameters = tuple(g.Parameter(name, _shown(value)) for name, value in given.items())
    code = getattr(call.func, "__code__", None)
    place = g.Place(code.co_filename, code.co_firstlineno) if code is not None else g.NOWHERE
    return g.Graph(call.program, parameters, account.block(execution.branch), place)


def _shown(value: object) -> str:
    return str(value) if is_plain(value) else repr(value)


def _answer(request: GenerateRequest) -> str:
    constraint = request.sampling.constraint
    if constraint is None:
        return _ANSWER
    facts = constraint_facts(constraint)
    if facts.fault is not None:
        raise InvalidRequest(f"constraint: {facts.fault.message}", field="constraint")
    text = facts.shortest_text()
    if text is None:
        raise InvalidRequest("constraint: its shortest text is too long to stand for an answer")
    return text


class _Account:
    """What each branch has said so far. Written by the threads of the program, one at a time."""

    def __init__(self, root: object) -> None:
        self._blocks: dict[object, list[list[g.Vertex]]] = {root: [[]]}  # open scopes, inner last
        self._groups: list[tuple[object, ...]] = []

    def take(self, event: Event) -> None:
        match event:
            case Added(branch, node):
                self._blocks[branch][-1] += _vertices(node)
            case ScopeBegun(branch):
                self._blocks[branch].append([])
            case ScopeEnded(branch, name):
                body = tuple(self._blocks[branch].pop())
                self._blocks[branch][-1].append(g.VarScope(g.VarName((name,)), body))
            case Forked(branch, children):
                for child in children:
                    self._blocks[child] = [[]]
                number = len(self._groups)
                self._groups.append(children)
                fork = g.Fork(number, _name(number), str(len(children)))
                self._blocks[branch][-1].append(fork)
            case Joined(branch, children, mode):
                number = self._groups.index(children)
                self._blocks[branch][-1].append(g.Join(number, _name(number), mode))

    def block(self, branch: object) -> g.Block:
        """All that the branch has said, with what its forks have."""
        vertices = [vertex for scope in self._blocks[branch] for vertex in scope]
        return self._settled(tuple(vertices))

    def _settled(self, block: g.Block) -> g.Block:
        return tuple(self._settled_vertex(vertex) for vertex in closed_roles(block))

    def _settled_vertex(self, vertex: g.Vertex) -> g.Vertex:
        match vertex:
            case g.Role() | g.VarScope():
                return replace(vertex, body=self._settled(vertex.body))
            case g.Fork(group):
                children = enumerate(self._groups[group])
                lanes = [g.Lane(str(at), self.block(child)) for at, child in children]
                return replace(vertex, lanes=tuple(lanes))
            case _:
                return vertex


def _name(number: int) -> str:
    return f"#{number + 1}"


def _vertices(node: Node) -> list[g.Vertex]:
    match node:
        case Literal(text):
            return [g.Constant(text)]
        case Sequence(items):
            return [vertex for item in items for vertex in _vertices(item)]
        case Gen():
            return [g.Generate("gen", _var(node.name), _options(node), _place(node.location))]
        case Select(name, choices):
            source = repr(list(choices))
            return [g.Choose(_var(name), choices, source, _place(node.location))]
        case Reasoning(items):
            made = [vertex for item in items for vertex in _vertices(item)]
            names = [item.name for item in items if isinstance(item, Gen)]
            return [*made, *(g.Assign(g.VarName((f"{n}_reasoning_content",))) for n in names)]
        case Media(kind, source):
            return [g.Media(kind, repr(source))]
        case RoleBegin(role):
            return [g.RoleBegin(role)]
        case RoleEnd(role):
            return [g.RoleEnd(role)]
        case _:
            raise AssertionError(f"{node!r} was accepted, and nobody knows what it is")


def _options(gen: Gen) -> tuple[g.Option, ...]:
    given: Mapping[str, Any] = gen.sampling.given()
    if gen.constraint is not None:
        given = {**given, "constraint": gen.constraint}
    return tuple(g.Option(name, repr(value), True, value) for name, value in given.items())


def _var(name: str | None) -> g.VarName | None:
    return None if name is None else g.VarName((name,))


def _place(location: str | None) -> g.Place:
    """From "file:line"."""
    file, _, line = (location or "").rpartition(":")
    return g.Place(file, int(line)) if line.isdigit() else g.NOWHERE
