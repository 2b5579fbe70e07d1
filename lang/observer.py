"""What can be seen of a run while it speaks: events, and who is told of them.

Owns: the records between a run's branches and a watcher. Knows no branch: one is only an object.
"""

from collections.abc import Callable
from dataclasses import dataclass

from .nodes import Node


@dataclass(frozen=True)
class Added:
    branch: object
    node: Node


@dataclass(frozen=True)
class ScopeBegun:
    branch: object


@dataclass(frozen=True)
class ScopeEnded:
    branch: object
    name: str


@dataclass(frozen=True)
class Forked:
    branch: object
    children: tuple[object, ...]


@dataclass(frozen=True)
class Joined:
    branch: object
    children: tuple[object, ...]
    mode: str


Event = Added | ScopeBegun | ScopeEnded | Forked | Joined
Observer = Callable[[Event], None]
"""Called on the thread that says it, in the order of the program, once it is accepted."""


def nobody(event: Event) -> None:
    """The observer of an ordinary run."""
