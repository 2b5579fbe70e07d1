"""Rules about messages: how their roles open and close, and who may speak in them."""

from collections.abc import Iterator
from typing import Final

from ...trace import graph as g
from ..findings import Found, Rule
from ..subject import Subject

_UNSURE: Final = "?"  # which role is open depends on the run
_Open = tuple[str | None, g.Place]


def _misused(subject: Subject) -> Iterator[Found]:
    """A message begins where none is open and ends with its own role; anything else is refused when
    the program comes to it. One that is never closed is missing from `messages()` and has no end
    mark (where branches fork from it, that may be meant). The scopes `s.user(...)` and `with
    s.user():` cannot be left open."""
    walk = _Roles()
    role, place = walk.block(subject.graph.body, (None, g.NOWHERE))
    yield from walk.found
    if role not in (None, _UNSURE):
        yield Found(place, f"this {role} message is never closed")


class _Roles:
    def __init__(self) -> None:
        self.found: list[Found] = []

    def block(self, block: g.Block, open_role: _Open) -> _Open:
        for vertex in block:
            open_role = self._vertex(vertex, open_role)
        return open_role

    def _vertex(self, vertex: g.Vertex, open_role: _Open) -> _Open:
        match vertex:
            case g.Role(role, body, place):
                self._begin(role, place, open_role)
                self.block(body, (role, place))
            case g.RoleBegin(role, place):
                self._begin(role, place, open_role)
                return role, place
            case g.RoleEnd(role, place):
                self._end(role, place, open_role)
                return None, place
            case g.Escape():
                return _UNSURE, vertex.place
            case g.Fork():
                for lane in vertex.lanes:
                    self.block(lane.body, open_role)
                return (_UNSURE, vertex.place) if open_role[0] else open_role
            case g.Alternatives() | g.Loop():
                ends = [self.block(body, open_role) for body in g.blocks(vertex)]
                if any(end[0] != open_role[0] for end in ends):
                    return _UNSURE, vertex.place
            case g.VarScope(_, body):
                return self.block(body, open_role)
        return open_role

    def _begin(self, role: str, place: g.Place, open_role: _Open) -> None:
        if open_role[0] not in (None, _UNSURE):
            message = f"a {role} message begins inside a {open_role[0]} message"
            self.found.append(Found(place, message))

    def _end(self, role: str, place: g.Place, open_role: _Open) -> None:
        if open_role[0] not in (role, _UNSURE):
            state = "no message" if open_role[0] is None else f"a {open_role[0]} message"
            self.found.append(Found(place, f"a {role} message ends here where {state} is open"))


def _wrong_speaker(subject: Subject) -> Iterator[Found]:
    """Chat models are trained to speak in the assistant's messages. Asked inside a user's or the
    system's message, they answer in a place where they never did. Put the gen into an assistant
    message."""
    for vertex in subject.graph.walk():
        if isinstance(vertex, g.Role) and vertex.role != "assistant":
            for inner in g.walk(vertex.body):
                if isinstance(inner, g.Generate | g.Choose):
                    message = f"this asks the model inside a {vertex.role} message"
                    yield Found(inner.place, message)


RULES: Final = (
    Rule("SW014", "role-misuse", "error", _misused),
    Rule("SW015", "wrong-speaker", "warning", _wrong_speaker),
)
