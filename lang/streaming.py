"""Reading a state's text while it grows.

Owns: cursors over the text of a branch or of one variable, and the two ways to follow one (a
blocking iterator and an asynchronous one). A cursor is read under the run's lock.
"""

from collections.abc import AsyncIterator, Iterator
from typing import Any, Protocol, TypeVar

from ..runtime.native_format import MetaInfo
from ..runtime.protocol import Chunk
from .branch import Branch
from .reads import Read, reach, wait
from .run import Run
from .variables import Variable

T = TypeVar("T")


class Cursor(Protocol[T]):
    def take(self) -> tuple[list[T], bool]:
        """(what is new, whether nothing more will come). The lock must be held."""
        ...

    def check(self) -> None:
        """After the end: raise what went wrong, if anything did."""
        ...


class TextCursor:
    """The whole text of a branch: as it is said where the run streams, else in one piece."""

    def __init__(self, branch: Branch, *, for_body: bool) -> None:
        self._branch, self._for_body = branch, for_body
        self._next = 0

    def take(self) -> tuple[list[str], bool]:
        executor, run = self._branch.executor, self._branch.run
        ended = executor.idle and (run.body_done or not self._for_body)
        if not (run.stream or ended):
            return [], False
        pieces = executor.transcript.pieces
        new, self._next = pieces[self._next :], len(pieces)
        return ["".join(piece.text for piece in new)] if new else [], ended

    def check(self) -> None:
        error = self._branch.error()
        if error is not None:
            raise error


class VariableCursor:
    """The text of one variable, with the meta info of each piece."""

    def __init__(self, branch: Branch, name: str, *, for_body: bool) -> None:
        self._branch, self._name, self._for_body = branch, name, for_body
        self._variable: Variable | None = None
        self._next = 0

    def take(self) -> tuple[list[tuple[str, Any]], bool]:
        run = self._branch.run
        if self._variable is None:
            self._variable = self._branch.variables.get(self._name)
            if self._variable is None:
                return [], run.body_done or not self._for_body
        variable = self._variable
        if variable.settled and not variable.chunks and variable.failure is None:
            return [(_as_text(variable), variable.meta)], True
        new = variable.chunks[self._next :]
        text = "".join(chunk.text for chunk in new)
        if not new or not (text or variable.settled):
            return [], variable.settled  # chunks without text wait for the next ones
        self._next = len(variable.chunks)
        return [(text, self._meta_of(variable, new))], variable.settled

    def _meta_of(self, variable: Variable, chunks: list[Chunk]) -> dict[str, Any]:
        """As of the last of these chunks; the log-probabilities are those of these alone."""
        piece = MetaInfo(variable.request_id, variable.logprobs)
        for chunk in chunks:
            piece.add(chunk)
        meta = piece.as_dict()
        if variable.settled and variable.meta:
            whole = variable.meta[0] if isinstance(variable.meta, list) else variable.meta
            meta["e2e_latency"] = whole["e2e_latency"]
        return meta

    def check(self) -> None:
        if self._variable is None:
            self._branch.variable(self._name).result()  # says that there is none
        elif self._variable.failure is not None:
            raise self._variable.failure.error()


def _as_text(variable: Variable) -> str:
    """A variable that did not come piece by piece is one piece; of several samples, the first. Of
    one with a type, the text that its value was read from."""
    value, meta = variable.value, variable.meta
    first = value[0] if isinstance(value, list) and value else value
    about = meta[0] if isinstance(meta, list) and meta else meta
    if isinstance(about, dict) and "text" in about:
        return str(about["text"])
    return first if isinstance(first, str) else str(first)


def follow(run: Run, cursor: Cursor[T]) -> Iterator[T]:
    """Blocks for each next piece; ends with the cursor, raising what went wrong."""
    ended = False
    while not ended:
        pieces, ended = wait(run, _next(cursor))
        yield from pieces
    cursor.check()


async def follow_async(run: Run, cursor: Cursor[T]) -> AsyncIterator[T]:
    """The same for an event loop, which is never blocked."""
    ended = False
    while not ended:
        pieces, ended = await reach(run, _next(cursor))
        for piece in pieces:
            yield piece
    cursor.check()


def _next(cursor: Cursor[T]) -> Read[tuple[list[T], bool]]:
    """What comes next, and whether it is the end."""
    taken: list[tuple[list[T], bool]] = []

    def ready() -> bool:
        if not taken:
            pieces, ended = cursor.take()
            if pieces or ended:
                taken.append((pieces, ended))
        return bool(taken)

    return Read(ready, lambda: taken[0])


async def stream(
    branch: Branch, name: str | None, *, with_meta: bool, for_body: bool
) -> AsyncIterator[Any]:
    """The text of a branch, or of one variable, piece by piece; `with_meta`: (text, meta info)."""
    if name is None:
        async for text in follow_async(branch.run, TextCursor(branch, for_body=for_body)):
            yield text
        return
    cursor = VariableCursor(branch, name, for_body=for_body)
    async for text, meta in follow_async(branch.run, cursor):
        if with_meta:
            yield text, meta
        elif text:
            yield text
