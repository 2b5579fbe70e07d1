"""`s` of an `async def` program.

Owns: the public verbs on one branch of a run, for an event loop. Adding never waits; every read is
awaited, and blocks nothing.
"""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any, Final, Generic, overload
from weakref import WeakMethod

from ..runtime.errors import InvalidRequest
from .branch import Branch
from .forks import AsyncForkGroup
from .nodes import Expression
from .reads import Read, reach
from .reaper import REAPER
from .roles import RoleVerb
from .streaming import stream
from .typed import expect

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    R = TypeVar("R", default=Any, covariant=True)  # `AsyncProgramState` alone says nothing of it
else:
    from typing import TypeVar

    R = TypeVar("R", covariant=True)
T = TypeVar("T")

# Reads of a plain program's state, and what to write here instead.
_AWAITED: Final = {
    "get_var": "await s.get(name)",
    "ret_value": "await s.result()",
    "text_iter": "async for piece in s.stream(name)",
    "text_async_iter": "async for piece in s.stream(name)",
}


class AsyncProgramState(Generic[R]):
    """One line of a running async program. Dropping the last reference to it aborts what it runs.

    Every read raises ProgramError, with the original error as its cause, if what it reads failed;
    none waits for something that can no longer come. Cancelling a read ends the read alone.
    """

    def __init__(self, branch: Branch, *, outside: bool = False, owner: bool = True) -> None:
        # outside: a handle for a reader beside the function, which may still be running.
        self._branch = branch
        self._outside = outside
        if owner:
            action = branch.cancel_program if outside else branch.executor.abandon
            REAPER.when_dropped(self, WeakMethod(action))

    # --- adding --------------------------------------------------------------------------------

    def __iadd__(self, expression: Expression) -> "AsyncProgramState[R]":
        self._branch.submit(expression)
        return self

    @property
    def system(self) -> RoleVerb:
        """`s.system(x)` adds a message; `with s.system():` makes one of what is added inside."""
        return RoleVerb(self._branch, "system")

    @property
    def user(self) -> RoleVerb:
        """See `system`."""
        return RoleVerb(self._branch, "user")

    @property
    def assistant(self) -> RoleVerb:
        """See `system`."""
        return RoleVerb(self._branch, "assistant")

    @contextmanager
    def var_scope(self, name: str) -> Iterator[None]:
        """Keep the text that is added inside as variable `name`."""
        with self._branch.scope(name):
            yield

    def set_var(self, name: str, value: Any) -> None:
        self._branch.set(name, value)

    def __setitem__(self, name: str, value: Any) -> None:
        self.set_var(name, value)

    # --- forks ---------------------------------------------------------------------------------

    def fork(self, size: int = 1) -> AsyncForkGroup:
        """`size` branches that go on from here side by side, sharing all that was said so far."""
        branches = self._branch.fork(size)
        return AsyncForkGroup(self._branch, [AsyncProgramState(branch) for branch in branches])

    @asynccontextmanager
    async def copy(self) -> "AsyncIterator[AsyncProgramState]":
        """One fork, joined at the end of the `async with` block."""
        group = self.fork(1)
        yield group[0]
        await group.join()

    # --- reading -------------------------------------------------------------------------------

    @overload
    async def get(self, name: str, type: type[T]) -> T: ...
    @overload
    async def get(self, name: str, type: object | None = None) -> Any: ...
    async def get(self, name: str, type: object | None = None) -> Any:
        """The variable's value, checked to be a `type` if one is given (TypeError if it is none).
        KeyError if the program has none of this name."""
        variable = await self._reach(self._branch.variable(name, for_body=self._outside))
        if type is not None:
            expect(variable.value, type, f"variable {name!r}")
        return variable.value

    async def get_meta_info(self, name: str) -> Any:
        """How the variable came about: a dict, a list of them for several samples or forks, or
        None for one that was set by hand."""
        variable = await self._reach(self._branch.variable(name, for_body=self._outside))
        return variable.meta

    async def text(self) -> str:
        """The whole text, template text included, once all that was added is there."""
        await self.sync()
        return self._branch.executor.transcript.text()

    async def messages(self) -> list[dict[str, str]]:
        """The finished messages as {"role", "content"}, once all that was added is there."""
        await self.sync()
        return [dict(message) for message in self._branch.executor.transcript.messages]

    async def sync(self) -> None:
        """Until all that was added is there."""
        await self._reach(self._branch.end(for_body=self._outside))

    async def error(self) -> BaseException | None:
        """What failed, if anything did, once all that was added has ended."""
        await self._reach(self._branch.rest(for_body=self._outside))
        return self._branch.error()

    async def result(self) -> R:
        """What the function returned; from outside, once it has."""
        read = self._branch.returned(for_body=self._outside)
        return await self._reach(read)

    async def stream(
        self, name: str | None = None, return_meta_data: bool = False
    ) -> AsyncIterator[Any]:
        """The text piece by piece as it comes, of everything or of one variable.

        `return_meta_data`: (text, meta info) of a variable, where the log-probabilities are those
        of the tokens since the last piece.
        """
        if return_meta_data and name is None:
            raise InvalidRequest("return_meta_data needs name", field="return_meta_data")
        pieces = stream(self._branch, name, with_meta=return_meta_data, for_body=self._outside)
        async for piece in pieces:
            yield piece

    async def _reach(self, read: Read[T]) -> T:
        return await reach(self._branch.run, read)

    # --- what does not wait --------------------------------------------------------------------

    def cancel(self) -> None:
        """Abort this line and its forks; what is finished stays readable. From outside, the
        function is broken off too."""
        if self._outside:
            self._branch.cancel_program()
        else:
            self._branch.executor.cancel()

    def __contains__(self, name: str) -> bool:
        return name in self._branch.variables

    @property
    def variables(self) -> tuple[str, ...]:
        """The names so far, in the order in which they came."""
        return tuple(self._branch.variables)

    def __repr__(self) -> str:
        """The text so far, or what failed."""
        error = self._branch.error()
        if error is not None:
            return f"<AsyncProgramState failed: {error}>"
        return f"AsyncProgramState({self._branch.executor.transcript.text()})"

    def __getitem__(self, name: str) -> Any:
        raise TypeError(
            f"s[{name!r}] would block the event loop of this async program: "
            f"write `await s.get({name!r})`"
        )

    def __getattr__(self, name: str) -> Any:
        if name in _AWAITED:
            raise AttributeError(
                f"s.{name} would block the event loop of this async program: "
                f"write `{_AWAITED[name]}`"
            )
        raise AttributeError(f"a program's state has no {name!r}")
