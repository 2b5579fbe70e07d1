"""`s`: what a program's function writes to and reads from.

Owns: the public verbs on one branch of a run. Adding never waits; reading waits for what is read.
"""

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Generic, overload
from weakref import WeakMethod

from ..runtime.errors import InvalidRequest
from .branch import Branch
from .forks import ForkGroup
from .nodes import Expression
from .reads import Read, wait
from .reaper import REAPER
from .roles import RoleVerb
from .streaming import TextCursor, VariableCursor, follow, stream
from .typed import expect

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    R = TypeVar("R", default=Any, covariant=True)  # `ProgramState` alone says nothing of it
else:
    from typing import TypeVar

    R = TypeVar("R", covariant=True)
T = TypeVar("T")


class ProgramState(Generic[R]):
    """One line of a running program. Dropping the last reference to it aborts what it still runs.

    Every read raises ProgramError, with the original error as its cause, if what it reads failed;
    none waits for something that can no longer come. `ret_value` is the function's return value,
    an R by the function's annotation.
    """

    def __init__(self, branch: Branch, *, outside: bool = False, owner: bool = True) -> None:
        # outside: a handle for a reader beside the function, which may still be running.
        self._branch = branch
        self._outside = outside
        if owner:
            executor = branch.executor
            action = executor.cancel if outside else executor.abandon
            REAPER.when_dropped(self, WeakMethod(action))

    # --- adding --------------------------------------------------------------------------------

    def __iadd__(self, expression: Expression) -> "ProgramState[R]":
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

    # --- forks ---------------------------------------------------------------------------------

    def fork(self, size: int = 1, position_ids_offset: list[int] | None = None) -> ForkGroup:
        """`size` branches that go on from here side by side, sharing all that was said so far.

        `position_ids_offset` (SGLang's, a number for each branch) says where the branches' texts
        will stand once they are joined by their KV. They are joined by their text, so that
        positions follow from it.
        """
        branches = self._branch.fork(size, position_ids_offset)
        return ForkGroup(self._branch, [ProgramState(branch) for branch in branches])

    @contextmanager
    def copy(self, position_ids_offset: list[int] | None = None) -> "Iterator[ProgramState]":
        """One fork, joined at the end of the `with` block."""
        group = self.fork(1, position_ids_offset)
        yield group[0]
        group.join()

    # --- reading -------------------------------------------------------------------------------

    def text(self) -> str:
        """The whole text, template text included; waits for all that was added."""
        self.sync()
        return self._branch.executor.transcript.text()

    def messages(self) -> list[dict[str, str]]:
        """The finished messages as {"role", "content"}; waits for all that was added."""
        self.sync()
        return [dict(message) for message in self._branch.executor.transcript.messages]

    def sync(self) -> None:
        """Wait for all that was added."""
        self._wait(self._branch.end(for_body=self._outside))

    def error(self) -> BaseException | None:
        """Wait for all that was added; what failed, if anything did."""
        self._wait(self._branch.rest(for_body=self._outside))
        return self._branch.error()

    def _wait(self, read: Read[T]) -> T:
        return wait(self._branch.run, read)

    def cancel(self) -> None:
        """Abort this line and its forks; what is finished stays readable."""
        self._branch.executor.cancel()

    def get_var(self, name: str) -> Any:
        """Wait for the variable. KeyError if the program has none of this name."""
        return self._wait(self._branch.variable(name, for_body=self._outside)).value

    @overload
    def get(self, name: str, type: type[T]) -> T: ...
    @overload
    def get(self, name: str, type: object | None = None) -> Any: ...
    def get(self, name: str, type: object | None = None) -> Any:
        """`get_var`, checked to be a `type` (TypeError if it is none); so mypy knows what it is."""
        value = self.get_var(name)
        if type is not None:
            expect(value, type, f"variable {name!r}")
        return value

    def set_var(self, name: str, value: Any) -> None:
        self._branch.set(name, value)

    def get_meta_info(self, name: str) -> Any:
        """How the variable came about: a dict, a list of them for several samples or forks, or
        None for one that was set by hand."""
        return self._wait(self._branch.variable(name, for_body=self._outside)).meta

    def __getitem__(self, name: str) -> Any:
        return self.get_var(name)

    def __setitem__(self, name: str, value: Any) -> None:
        self.set_var(name, value)

    def __contains__(self, name: str) -> bool:
        """Does not wait."""
        return name in self._branch.variables

    @property
    def variables(self) -> tuple[str, ...]:
        """The names so far, in the order in which they came. Does not wait."""
        return tuple(self._branch.variables)

    @property
    def ret_value(self) -> R:
        """What the function returned, whatever its annotation says; from outside, waits for it."""
        read = self._branch.returned(for_body=self._outside)
        return self._wait(read)  # type: ignore[no-any-return]  # Branch has no R

    def __str__(self) -> str:
        """`ProgramState(<the text>)`, or what failed; waits for all that was added."""
        self._wait(self._branch.rest(for_body=self._outside))
        return repr(self)

    def __repr__(self) -> str:
        """The text so far, or what failed. Does not wait, not even for the run's lock: whoever
        holds that may be what is being debugged."""
        error = self._branch.error()
        if error is not None:
            return f"<ProgramState failed: {error}>"
        return f"ProgramState({self._branch.executor.transcript.text()})"

    # --- streaming -----------------------------------------------------------------------------

    def text_iter(self, var_name: str | None = None) -> Iterator[str]:
        """The text piece by piece as it comes, of everything or of one variable.

        A run without `stream=True` gives it in one piece, when it is there.
        """
        run = self._branch.run
        if var_name is None:
            yield from follow(run, TextCursor(self._branch, for_body=self._outside))
        else:
            cursor = VariableCursor(self._branch, var_name, for_body=self._outside)
            yield from (text for text, _ in follow(run, cursor) if text)

    async def text_async_iter(
        self, var_name: str | None = None, return_meta_data: bool = False
    ) -> AsyncIterator[Any]:
        """`text_iter` for an event loop; `return_meta_data`: yields (text, meta info) of a
        variable, where the log-probabilities are those of the tokens since the last piece."""
        if return_meta_data and var_name is None:
            raise InvalidRequest("return_meta_data needs var_name", field="return_meta_data")
        pieces = stream(self._branch, var_name, with_meta=return_meta_data, for_body=self._outside)
        async for piece in pieces:
            yield piece
