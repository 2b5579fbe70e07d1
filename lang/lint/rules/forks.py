"""Rules about forks: what makes branches wait for each other."""

from collections.abc import Iterator
from typing import Final

from ...trace import graph as g
from ..findings import Found, Rule
from ..subject import Subject


def _serial(subject: Subject) -> Iterator[Found]:
    """Adding to a branch does not wait, reading from it does. A loop that asks a branch and reads
    its answer in the same turn begins the next branch only when this one is done: the branches run
    one after another. Ask in one loop, read in a second one."""
    for vertex in subject.graph.walk():
        if isinstance(vertex, g.Read) and vertex.in_turn:
            what = "a branch" if vertex.name is None else f"variable {vertex.name} of a branch"
            yield Found(vertex.place, f"this waits for {what} before the next branch begins")


RULES: Final = (Rule("SW016", "serial-branches", "warning", _serial),)
