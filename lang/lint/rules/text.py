"""Rules about the prompt's text: what keeps a cached prefix from being found again."""

from collections.abc import Callable, Iterator
from typing import Final

from ...trace import graph as g
from ..findings import Found, Rule
from ..subject import Subject

_FEW: Final = 16  # tokens, a page: what is less is never shared anyway


def _early(subject: Subject, why: Callable[[g.Computed], str | None]) -> Iterator[Found]:
    """The first text that differs, if constant text comes after it and nothing was asked before."""
    vertices = list(subject.graph.walk())
    for at, vertex in enumerate(vertices):
        if isinstance(vertex, g.Generate | g.Choose):
            return
        reason = why(vertex) if isinstance(vertex, g.Computed) else None
        if reason is None:
            continue
        lost = "".join(one.text for one in vertices[at:] if isinstance(one, g.Constant))
        if subject.tokens.count(lost) >= _FEW:
            yield Found(
                vertex.place,
                f"this text differs by {reason}: {subject.tokens.told(lost)} of constant text "
                "after it are computed anew in every run",
            )
        return


def _volatile(subject: Subject) -> Iterator[Found]:
    """Runs share the prompt up to where they first differ. A time, a new id or a random draw ahead
    of constant text makes all of that text different, so it is computed again and again. Say what
    varies last, or pass it in as an argument where it is the same for many runs."""
    return _early(subject, lambda text: text.volatile)


def _unordered(subject: Subject) -> Iterator[Found]:
    """Text made from a set, a folder's listing or a dict without sorted keys can come in another
    order in the next process, or for an equal value: the prompt is another one then, and what was
    cached of it is not found. Sort it first."""
    return _early(subject, lambda text: text.unordered if text.volatile is None else None)


RULES: Final = (
    Rule("SW001", "volatile-text", "warning", _volatile),
    Rule("SW002", "unordered-text", "warning", _unordered),
)
