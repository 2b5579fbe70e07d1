"""How variables go through a program: where each may be set, read, and gathered by a join.

Owns: the walk over a graph's lines that keeps account of names. Knows no rule: it only tells what
happened.
"""

from dataclasses import dataclass, field, replace

from ..trace import graph as g


@dataclass(frozen=True)
class Undefined:
    """A read of a variable that nothing before it can have set."""

    name: str
    place: g.Place
    known: tuple[str, ...]


@dataclass(frozen=True)
class SetAgain:
    """A variable that is generated anew where nobody has read it yet."""

    name: str
    place: g.Place
    before: g.Place


@dataclass(frozen=True)
class Kept:
    """A join that leaves a variable as it was before the fork."""

    name: str
    place: g.Place


@dataclass(frozen=True)
class Collision:
    """A variable of the branches that the forking line has set too since the fork."""

    name: str
    place: g.Place


Event = Undefined | SetAgain | Kept | Collision


@dataclass
class _Line:
    """names: what may be set; fresh: what surely was generated and not read yet; unseen: whether
    something out of sight may have set anything."""

    names: list[g.VarName] = field(default_factory=list)
    fresh: dict[str, g.Place] = field(default_factory=dict)
    unseen: bool = False

    def copy(self) -> "_Line":
        return replace(self, names=list(self.names), fresh={})

    def has(self, name: g.VarName) -> bool:
        return any(known.may_be(name) for known in self.names)


@dataclass(frozen=True)
class _Forked:
    """before: names at the fork; branches: names that a branch may have set."""

    before: tuple[g.VarName, ...]
    branches: tuple[g.VarName, ...]


def events(block: g.Block) -> list[Event]:
    """What happens to the variables of a program, each thing once."""
    walk = _Walk()
    walk.block(block, _Line())
    return list(dict.fromkeys(walk.events))


class _Walk:
    def __init__(self) -> None:
        self.events: list[Event] = []
        self._forks: dict[int, _Forked] = {}

    def block(self, block: g.Block, line: _Line) -> None:
        for vertex in block:
            self._vertex(vertex, line)

    def _vertex(self, vertex: g.Vertex, line: _Line) -> None:
        match vertex:
            case g.Generate(_, name) | g.Choose(name):
                if name is not None:
                    self._generated(name, vertex.place, line)
            case g.Assign(name):
                line.names.append(name)
                line.fresh.pop(str(name), None)
            case g.Read(name):
                self._read(name, vertex.place, line)
            case g.Escape():
                line.unseen = True
                line.fresh.clear()
            case g.Role(_, body):
                self.block(body, line)
            case g.VarScope(name, body):
                self.block(body, line)
                line.names.append(name)
            case g.Loop(_, body):
                self._loop(body, line)
            case g.Alternatives(_, cases):
                self._alternatives(cases, line)
            case g.Fork():
                self._fork(vertex, line)
            case g.Join():
                self._join(vertex, line)

    def _generated(self, name: g.VarName, place: g.Place, line: _Line) -> None:
        if name.exact is not None:
            before = line.fresh.get(name.exact)
            if before is not None:
                self.events.append(SetAgain(name.exact, place, before))
            line.fresh[name.exact] = place
        line.names.append(name)

    def _read(self, name: g.VarName | None, place: g.Place, line: _Line) -> None:
        if name is None or name.exact is None:
            line.fresh.clear()
            return
        line.fresh.pop(name.exact, None)
        if not line.has(name) and not line.unseen:
            known = tuple(dict.fromkeys(str(one) for one in line.names))
            self.events.append(Undefined(name.exact, place, known))

    def _loop(self, body: g.Block, line: _Line) -> None:
        """Twice: a later turn meets what an earlier one has set."""
        inner = line.copy()
        inner.names += set_names(body)
        inner.unseen = inner.unseen or any(isinstance(v, g.Escape) for v in g.walk(body))
        self.block(body, inner)
        inner.fresh = {}
        self.block(body, inner)
        self._leave(inner, line)

    def _alternatives(self, cases: tuple[g.Block, ...], line: _Line) -> None:
        ends = []
        for case in cases:
            inner = line.copy()
            self.block(case, inner)
            ends.append(inner)
        for inner in ends:
            self._leave(inner, line)

    def _leave(self, inner: _Line, line: _Line) -> None:
        line.names += [name for name in inner.names if name not in line.names]
        line.unseen = line.unseen or inner.unseen
        line.fresh.clear()  # it may have been read, or set

    def _fork(self, fork: g.Fork, line: _Line) -> None:
        branches = []
        own = [set_names(lane.body) for lane in fork.lanes]
        for at, lane in enumerate(fork.lanes):
            inner = line.copy()
            # A branch that is told by its number is one of "each" too.
            inner.names += [name for other in own[:at] + own[at + 1 :] for name in other]
            self.block(lane.body, inner)
            branches += own[at]
            line.unseen = line.unseen or inner.unseen
        line.fresh = {} if fork.lanes else line.fresh  # a branch may read what it takes over
        self._forks[fork.group] = _Forked(tuple(line.names), tuple(branches))

    def _join(self, join: g.Join, line: _Line) -> None:
        forked = self._forks.get(join.group)
        if forked is None or join.mode != "gather_variable":
            return
        before = {name.exact for name in forked.before} - {None}
        since = {name.exact for name in line.names[len(forked.before) :]} - {None}
        for name in dict.fromkeys(forked.branches):
            if name.exact is None:
                line.names.append(name)
            elif name.exact in before:
                self.events.append(Kept(name.exact, join.place))
            elif name.exact in since:
                self.events.append(Collision(name.exact, join.place))
            else:
                line.names.append(name)


def set_names(block: g.Block) -> list[g.VarName]:
    """Every variable that may be set in a block."""
    names: list[g.VarName] = []
    for vertex in g.walk(block):
        if isinstance(vertex, g.Generate | g.Choose | g.Assign | g.VarScope):
            if vertex.name is not None:
                names.append(vertex.name)
    return names
