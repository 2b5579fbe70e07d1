"""The branches of one fork, and what becomes of them.

Owns: adding to all branches at once, and joining them into the branch that forked them.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal, get_args

from ..runtime.errors import InvalidRequest
from .branch import Branch
from .nodes import Expression, Node
from .steps import AddText

if TYPE_CHECKING:
    from .state import ProgramState

JoinMode = Literal["gather_variable", "concate_and_append"]
JoinErrors = Literal["raise", "keep", "none"]


class ForkGroup:
    """Indexable and iterable in branch order. `forks += x` adds x to every branch: the same text or
    expression to all, one of a list to each, or `x(i)` where x is a function."""

    def __init__(self, parent: Branch, states: "list[ProgramState]") -> None:
        self._parent = parent
        self._states = states
        # A new branch has the variables of the fork, whatever its parent is given later.
        self._inherited = frozenset(states[0]._branch.variables)
        self._joined = False

    def __len__(self) -> int:
        return len(self._states)

    def __iter__(self) -> "Iterator[ProgramState]":
        return iter(self._states)

    def __getitem__(self, index: int) -> "ProgramState":
        return self._states[index]

    def __setitem__(self, index: int, value: "ProgramState") -> None:
        """Only so that `forks[i] += x` works."""
        if value is not self._states[index]:
            raise TypeError("a branch of a fork cannot be replaced")

    def __iadd__(
        self, other: Expression | Sequence[Expression] | Callable[[int], Expression]
    ) -> "ForkGroup":
        for state, expression in zip(self._states, self._spread(other), strict=True):
            state._branch.submit(expression)
        return self

    def _spread(self, other: object) -> list[Any]:
        if isinstance(other, str | Node):
            return [other] * len(self)
        if callable(other):
            return [other(index) for index in range(len(self))]
        if isinstance(other, list | tuple):
            if len(other) != len(self):
                raise InvalidRequest(
                    f"{len(other)} expressions were added to {len(self)} branches: one each"
                )
            return list(other)
        raise TypeError(
            f"{type(other).__name__} {other!r} cannot be added to branches: add text, an "
            "expression, a list of one each, or a function of the branch's index"
        )

    def join(self, mode: JoinMode = "gather_variable", errors: JoinErrors = "raise") -> None:
        """Wait for every branch and take over what they made; they end with this.

        "gather_variable": each variable whose name was not there at the fork becomes a list in the
        branch that forked, in branch order (a branch that has no variable of this name is left
        out). A name from before the fork keeps its value, also where branches set it anew: read
        theirs as `forks[i][name]`. InvalidRequest, before anything is joined, if the branch that
        forked got a variable of a gathered name since the fork: one of the two would be lost.
        "concate_and_append": the branches' own texts are appended, one after another.

        `errors`: "raise" the first branch's error; or let its place in each list hold the
        ProgramError ("keep") or None ("none"); a failed branch's text is not appended.
        """
        for name, value, kind in (("mode", mode, JoinMode), ("errors", errors, JoinErrors)):
            if value not in get_args(kind):
                raise InvalidRequest(f"{name}: {value!r} is none of {get_args(kind)}", field=name)
        if self._joined:
            raise InvalidRequest("these branches were joined already")
        branches = [state._branch for state in self._states]
        if mode == "gather_variable":
            names = self._gathered(branches)
            self._wait(branches, errors)
            self._gather(branches, names, errors)
        else:
            self._wait(branches, errors)
            self._append(branches)
        self._joined = True
        for branch in branches:
            branch.joined = True

    def _wait(self, branches: list[Branch], errors: JoinErrors) -> None:
        """Until all rest; with "raise", until the first failure."""
        run = self._parent.run
        with run.changed:
            run.changed.wait_for(
                lambda: (
                    all(branch.executor.idle for branch in branches)
                    or (errors == "raise" and any(branch.executor.failure for branch in branches))
                )
            )
        for index, branch in enumerate(branches):
            error = branch.error() if errors == "raise" else None
            if error is not None:
                error.add_note(f"in branch {index} of {len(branches)}")
                raise error

    def _gathered(self, branches: list[Branch]) -> list[str]:
        """The names that are new since the fork; none may be new in the parent too."""
        new = dict.fromkeys(name for branch in branches for name in branch.variables)
        names = [name for name in new if name not in self._inherited]
        for name in names:
            if name in self._parent.variables:
                raise InvalidRequest(
                    f"join: variable {name!r} was set both in the branches and, since the fork, in "
                    f"the branch that forked; give one another name, or read forks[i][{name!r}] "
                    "and do not join",
                    field=name,
                )
        return names

    def _gather(self, branches: list[Branch], names: list[str], errors: JoinErrors) -> None:
        for name in names:
            values: list[Any] = []
            metas: list[Any] = []
            for branch in branches:
                variable = branch.variables.get(name)
                failure = variable.failure if variable is not None else branch.executor.failure
                if failure is not None:
                    values.append(failure.error() if errors == "keep" else None)
                    metas.append(None)
                elif variable is not None:
                    values.append(variable.value)
                    metas.append(variable.meta)
            self._parent.set(name, values, metas)

    def _append(self, branches: list[Branch]) -> None:
        for branch in branches:
            if branch.roles != self._parent.roles or branch.open_role != self._parent.open_role:
                raise InvalidRequest(
                    'join("concate_and_append"): a branch began or ended a message, so that its '
                    "text cannot simply follow another's"
                )
        for branch in branches:
            executor = branch.executor
            if executor.failure is None:
                for piece in executor.transcript.pieces[executor.first_piece :]:
                    self._parent.executor.submit(AddText(piece.text, piece.special))
