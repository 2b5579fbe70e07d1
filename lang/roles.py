"""The verbs `s.system`, `s.user` and `s.assistant`.

Owns: their two forms, a message at once and a message of what is added inside a `with` block.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import overload

from .branch import Branch
from .nodes import Expression, RoleBegin, RoleEnd, sequence


class RoleVerb:
    """`s.user(x)` adds a message; `with s.user():` makes one of what is added inside."""

    def __init__(self, branch: Branch, role: str) -> None:
        self._branch = branch
        self._role = role

    @overload
    def __call__(self) -> AbstractContextManager[None]: ...
    @overload
    def __call__(self, expression: Expression) -> None: ...
    def __call__(self, expression: Expression | None = None) -> AbstractContextManager[None] | None:
        if expression is None:
            return self._scope()
        self._branch.submit(sequence(RoleBegin(self._role), expression, RoleEnd(self._role)))
        return None

    @contextmanager
    def _scope(self) -> Iterator[None]:
        self._branch.submit(RoleBegin(self._role))
        try:
            yield
        finally:
            self._branch.submit(RoleEnd(self._role))
