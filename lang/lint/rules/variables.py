"""Rules about variables: never set, never read, set for nothing, lost in a join."""

import difflib
from collections.abc import Iterator
from typing import Final

from ...trace import graph as g
from ..findings import Found, Rule
from ..flow import Collision, Kept, SetAgain, Undefined, events, set_names
from ..subject import Subject


def _undefined(subject: Subject) -> Iterator[Found]:
    """Reading a variable that nothing before has generated or set raises KeyError when the program
    comes to it."""
    for event in events(subject.graph.body):
        if isinstance(event, Undefined):
            near = difflib.get_close_matches(event.name, event.known, n=1)
            hint = f": did you mean {near[0]!r}?" if near else ""
            yield Found(event.place, f"nothing before this sets variable {event.name!r}{hint}")


def _unused(subject: Subject) -> Iterator[Found]:
    """A variable that neither the program nor the rest of its file reads is often a misspelt name,
    or one that a later change left behind. Looked for only where the file runs the program and
    reads results by their names. Read it, or leave the name away: the text stays in the prompt."""
    uses, vertices = subject.uses, list(subject.graph.walk())
    if not uses.runs or uses.reads_all or any(isinstance(v, g.Escape | g.Return) for v in vertices):
        return
    read = [v.name for v in vertices if isinstance(v, g.Read)]
    names = {name.exact for name in set_names(subject.graph.body)}
    if None in read or not names & uses.texts:
        return
    for vertex in vertices:
        if not isinstance(vertex, g.Generate | g.Choose) or vertex.name is None:
            continue
        name = vertex.name
        if name.exact is None or name.exact in uses.texts:
            continue
        if not any(one is not None and one.may_be(name) for one in read):
            yield Found(vertex.place, f"variable {name.exact!r} is never read")


def _set_again(subject: Subject) -> Iterator[Found]:
    """Two generations of one name, one after the other: the second takes the name, and what the
    first one said can be read by no name any more. Name them apart."""
    for event in events(subject.graph.body):
        if isinstance(event, SetAgain):
            yield Found(
                event.place,
                f"variable {event.name!r} was generated on line {event.before.line} already, and "
                "nothing has read it since",
            )


def _join(subject: Subject) -> Iterator[Found]:
    """A join gathers the variables that are new in the branches. A name from before the fork keeps
    its value, and the branches' values are lost; a name that the forking line itself has set since
    the fork is refused. Give the branches' variable a name of its own, or read `forks[i][name]`."""
    for event in events(subject.graph.body):
        match event:
            case Kept(name, place):
                said = f"variable {name!r} is from before the fork: this join does not gather it"
                yield Found(place, said)
            case Collision(name, place):
                said = f"variable {name!r} was set in the branches and, since the fork, beside them"
                yield Found(place, said)


def _taken_over(subject: Subject) -> Iterator[Found]:
    """A parameter and a variable of the same name are two things: `s["x"]` is the variable, `x`
    the parameter, and a reader takes one for the other. Name them apart."""
    parameters = {parameter.name for parameter in subject.graph.parameters}
    for vertex in subject.graph.walk():
        if isinstance(vertex, g.Generate | g.Choose) and vertex.name is not None:
            if vertex.name.exact in parameters:
                said = f"variable {vertex.name} has the name of a parameter of the program"
                yield Found(vertex.place, said)


RULES: Final = (
    Rule("SW007", "undefined-variable", "error", _undefined),
    Rule("SW008", "unused-variable", "note", _unused),
    Rule("SW009", "variable-set-again", "warning", _set_again),
    Rule("SW010", "join-collision", "warning", _join),
    Rule("SW011", "variable-named-as-parameter", "note", _taken_over),
)
