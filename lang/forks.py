"""The branches of one fork, and what becomes of them.

Owns: adding to all branches at once, and joining them into the branch that forked them.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal, get_args

from ..runtime.errors import InvalidRequest
from .branch import Branch
from .nodes import Expression, Node
from .observer import Joined
from .reads import Read, reach, wait
from .steps import AddText

if TYPE_CHECKING:
    from .async_state import AsyncProgramState
    from .state import ProgramState

JoinMode = Literal["gather_variable", "concate_and_append"]
JoinErrors = Literal["raise", "keep", "none"]
Addition = Expression | Sequence[Expression] | Callable[[int], Expression]


class ForkGroup:
    """Indexable and iterable in branch order. `forks += x` adds x to every branch: the same text or
    expression to all, one of a list to each, or `x(i)` where x is a function."""

    def __init__(self, parent: Branch, states: "list[ProgramState]") -> None:
        self._states = states
        self._branches = Branches(parent, [state._branch for state in states])

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

    def __iadd__(self, other: Addition) -> "ForkGroup":
        self._branches.add(other)
        return self

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
        wait(self._branches.run, self._branches.joined(mode, errors))


class AsyncForkGroup:
    """The `ForkGroup` of an async program: `join` is awaited."""

    def __init__(self, parent: Branch, states: "list[AsyncProgramState]") -> None:
        self._states = states
        self._branches = Branches(parent, [state._branch for state in states])

    def __len__(self) -> int:
        return len(self._states)

    def __iter__(self) -> "Iterator[AsyncProgramState]":
        return iter(self._states)

    def __getitem__(self, index: int) -> "AsyncProgramState":
        return self._states[index]

    def __setitem__(self, index: int, value: "AsyncProgramState") -> None:
        """Only so that `forks[i] += x` works."""
        if value is not self._states[index]:
            raise TypeError("a branch of a fork cannot be replaced")

    def __iadd__(self, other: Addition) -> "AsyncForkGroup":
        self._branches.add(other)
        return self

    async def join(self, mode: JoinMode = "gather_variable", errors: JoinErrors = "raise") -> None:
        """See `ForkGroup.join`."""
        await reach(self._branches.run, self._branches.joined(mode, errors))


class Branches:
    """The branches themselves, whoever holds them. Never waits."""

    def __init__(self, parent: Branch, branches: list[Branch]) -> None:
        self.run = parent.run
        self._parent = parent
        self._branches = branches
        # A new branch has the variables of the fork, whatever its parent is given later.
        self._inherited = frozenset(branches[0].variables)
        self._is_joined = False

    def add(self, other: object) -> None:
        for branch, expression in zip(self._branches, self._spread(other), strict=True):
            branch.submit(expression)

    def _spread(self, other: object) -> list[Any]:
        size = len(self._branches)
        if isinstance(other, str | Node):
            return [other] * size
        if callable(other):
            return [other(index) for index in range(size)]
        if isinstance(other, list | tuple):
            if len(other) != size:
                raise InvalidRequest(
                    f"{len(other)} expressions were added to {size} branches: one each"
                )
            return list(other)
        raise TypeError(
            f"{type(other).__name__} {other!r} cannot be added to branches: add text, an "
            "expression, a list of one each, or a function of the branch's index"
        )

    def joined(self, mode: JoinMode, errors: JoinErrors) -> Read[None]:
        """All rest, or one failed that counts; joins them, see `ForkGroup.join`."""
        for name, value, kind in (("mode", mode, JoinMode), ("errors", errors, JoinErrors)):
            if value not in get_args(kind):
                raise InvalidRequest(f"{name}: {value!r} is none of {get_args(kind)}", field=name)
        if self._is_joined:
            raise InvalidRequest("these branches were joined already")
        names = self._gathered() if mode == "gather_variable" else None
        return Read(self._rest(errors), lambda: self._join(names, errors))

    def _rest(self, errors: JoinErrors) -> Callable[[], bool]:
        """Until all rest; with "raise", until the first failure."""
        executors = [branch.executor for branch in self._branches]

        position = 0  # those before it were at rest; they are not asked again at every change
        failures = -1  # in the run, when the branches were last asked

        def ready() -> bool:
            nonlocal position, failures
            if errors == "raise" and failures != self.run.num_failures:
                failures = self.run.num_failures
                if any(executor.failure for executor in executors):
                    return True
            while position < len(executors) and executors[position].idle:
                position += 1
            if position < len(executors):
                return False
            position = 0
            return all(executor.idle for executor in executors)

        return ready

    def _join(self, names: list[str] | None, errors: JoinErrors) -> None:
        if errors == "raise":
            self._raise_first_error()
        if names is None:
            self._append()
        else:
            self._gather(names, errors)
        self._is_joined = True
        for branch in self._branches:
            branch.joined = True
        mode: JoinMode = "concate_and_append" if names is None else "gather_variable"
        self.run.observer(Joined(self._parent, tuple(self._branches), mode))

    def _raise_first_error(self) -> None:
        for index, branch in enumerate(self._branches):
            error = branch.error()
            if error is not None:
                error.add_note(f"in branch {index} of {len(self._branches)}")
                raise error

    def _gathered(self) -> list[str]:
        """The names that are new since the fork; none may be new in the parent too."""
        new = dict.fromkeys(name for branch in self._branches for name in branch.variables)
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

    def _gather(self, names: list[str], errors: JoinErrors) -> None:
        for name in names:
            values: list[Any] = []
            metas: list[Any] = []
            for branch in self._branches:
                variable = branch.variables.get(name)
                failure = variable.failure if variable is not None else branch.executor.failure
                if failure is not None:
                    values.append(failure.error() if errors == "keep" else None)
                    metas.append(None)
                elif variable is not None:
                    values.append(variable.value)
                    metas.append(variable.meta)
            self._parent.set(name, values, metas)

    def _append(self) -> None:
        parent = self._parent
        for branch in self._branches:
            if branch.roles != parent.roles or branch.open_role != parent.open_role:
                raise InvalidRequest(
                    'join("concate_and_append"): a branch began or ended a message, so that its '
                    "text cannot simply follow another's"
                )
        for branch in self._branches:
            executor = branch.executor
            if executor.failure is None:
                for piece in executor.transcript.pieces[executor.first_piece :]:
                    parent.executor.submit(AddText(piece.text, piece.special))
