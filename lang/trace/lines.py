"""The lines of a program while its source is read, and what each of them says.

Owns: which vertices end up in which block. Mutable, for one reading. A frame is open for every
compound statement that is being read; a line's vertices go to the innermost one, and when the frame
closes, each line that said something within it gets one vertex around that.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from . import graph as g


class Line:
    """A state: the program's own, or one of a fork's branches. depth: frames open at its birth."""

    def __init__(self, label: str, depth: int) -> None:
        self.label = label
        self.depth = depth


class Group:
    """The branches of one fork."""

    def __init__(self, number: int, name: str, parent: Line, depth: int) -> None:
        self.number = number
        self.name = name
        self.parent = parent
        self.lines: dict[str, Line] = {}
        self._depth = depth

    def line(self, label: str) -> Line:
        return self.lines.setdefault(label, Line(label, self._depth))


@dataclass(eq=False)
class Pass:
    """An open frame. own: lines of whose branches this frame is the loop."""

    blocks: dict[Line, list[g.Vertex]] = field(default_factory=dict)
    own: set[Line] = field(default_factory=set)


class Lines:
    def __init__(self) -> None:
        self.main = Line("s", 0)
        self._frames = [Pass()]
        self._groups: list[Group] = []

    @property
    def frame(self) -> Pass:
        """The innermost one."""
        return self._frames[-1]

    def add(self, line: Line, *vertices: g.Vertex) -> None:
        self._frames[-1].blocks.setdefault(line, []).extend(vertices)

    def fork(self, line: Line, name: str, size: str, place: g.Place) -> Group:
        group = Group(len(self._groups), name, line, len(self._frames) - 1)
        self._groups.append(group)
        self.add(line, g.Fork(group.number, name, size, (), place))
        return group

    @contextmanager
    def within(
        self, wrap: Callable[[g.Block], g.Vertex], only: Line | None = None
    ) -> "Iterator[Pass]":
        """A frame; `only`: the one line that is wrapped."""
        with self._frame() as frame:
            yield frame
        for line, block in frame.blocks.items():
            is_wrapped = (
                block
                and line.depth < len(self._frames)  # a line born within is not within again
                and line not in frame.own
                and only in (None, line)
            )
            self.add(line, *([wrap(tuple(block))] if is_wrapped else block))

    def choose(self, test: str, place: g.Place, cases: Sequence[Callable[[], None]]) -> None:
        """One of these happens."""
        frames = []
        for case in cases:
            with self._frame() as frame:
                case()
            frames.append(frame)
        for line in dict.fromkeys(line for frame in frames for line in frame.blocks):
            blocks = tuple(tuple(frame.blocks.get(line, ())) for frame in frames)
            if line.depth >= len(self._frames):
                self.add(line, *(vertex for block in blocks for vertex in block))
            else:
                self.add(line, g.Alternatives(test, blocks, place))

    @contextmanager
    def _frame(self) -> "Iterator[Pass]":
        self._frames.append(Pass())
        try:
            yield self._frames[-1]
        finally:
            self._frames.pop()

    def is_asked_in_turn(self, line: Line, name: g.VarName | None) -> bool:
        """Whether, in a loop over branches, this turn of the loop has asked this line for `name`
        (None: for anything)."""
        turns = [at for at, frame in enumerate(self._frames) if line in frame.own]
        if not turns:
            return False
        waits = False
        for frame in self._frames[turns[-1] :]:
            for vertex in g.walk(tuple(frame.blocks.get(line, ()))):
                if isinstance(vertex, g.Generate | g.Choose) and _are_same(vertex.name, name):
                    waits = True
                elif isinstance(vertex, g.Read) and _are_same(vertex.name, name):
                    waits = False  # that one has waited
        return waits

    def settled(self) -> g.Block:
        """The program's block, forks filled in, roles closed. Ends the reading."""
        assert len(self._frames) == 1
        return self._settle(tuple(self._frames[0].blocks.get(self.main, ())))

    def _settle(self, block: g.Block) -> g.Block:
        return tuple(self._settle_vertex(vertex) for vertex in closed_roles(block))

    def _settle_vertex(self, vertex: g.Vertex) -> g.Vertex:
        match vertex:
            case g.Role() | g.VarScope() | g.Loop():
                return replace(vertex, body=self._settle(vertex.body))
            case g.Alternatives():
                return replace(vertex, cases=tuple(map(self._settle, vertex.cases)))
            case g.Fork(group):
                blocks = self._frames[0].blocks
                lanes = [
                    g.Lane(label, self._settle(tuple(blocks.get(line, ()))))
                    for label, line in self._groups[group].lines.items()
                ]
                return replace(vertex, name=self._groups[group].name, lanes=tuple(lanes))
            case g.Join(group):
                return replace(vertex, name=self._groups[group].name)
            case _:
                return vertex


def _are_same(one: g.VarName | None, other: g.VarName | None) -> bool:
    """None: everything."""
    return one is None or other is None or one.may_be(other)


def closed_roles(block: g.Block) -> g.Block:
    """The block with each role's begin and end in it made one scope."""
    done: list[g.Vertex] = []
    begins: list[int] = []  # where in `done`
    for vertex in block:
        if isinstance(vertex, g.RoleBegin):
            begins.append(len(done))
        if isinstance(vertex, g.RoleEnd) and begins:
            begin = done[begins[-1]]
            if isinstance(begin, g.RoleBegin) and begin.role == vertex.role:
                at = begins.pop()
                done[at:] = [g.Role(begin.role, tuple(done[at + 1 :]), begin.place)]
                continue
        done.append(vertex)
    return tuple(done)
