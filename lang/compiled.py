"""Programs whose constant beginning is known before they run: `Program.compile()`.

Owns: what is done with that beginning, and when it pays. Running is the program's own.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from .api import gen
from .backend import resolve
from .program import Program, R
from .recording import Aside, is_replaying
from .state import ProgramState
from .trace.prefix import Prefix, constant_prefix
from .trace.tracing import traced

_CHARACTERS: Final = 3  # of a token, rather fewer than they have


class CompiledProgram(Program[R]):
    """A program that computes the constant beginning of its runs ahead of them.

    `run_batch` does so once, before its items start; `warm` whenever it is called, as a server
    does before the first request. Results are the program's. Nothing else is issued earlier: a
    gen's prompt holds all that its line says before it, so no two gens of a line are independent,
    and those of different branches or programs run together anyway.
    """

    def __init__(
        self,
        func: Callable[..., R] | Callable[..., Awaitable[R]],
        bound: Mapping[str, Any] | None = None,
        num_api_spec_tokens: int | None = None,
    ) -> None:
        super().__init__(func, bound, num_api_spec_tokens)
        self._prefix: Prefix = constant_prefix(traced(func, (), bound or {}, unrolls=True))

    @property
    def prefix(self) -> str:
        """The text with which every run begins, without the marks of its roles."""
        return self._prefix.text

    def bind(self, **kwargs: Any) -> "CompiledProgram[R]":
        """See `Program.bind`; arguments that are fixed may make the beginning longer."""
        program = super().bind(**kwargs)
        return CompiledProgram(program.func, program.bound, self._parameters.num_api_spec_tokens)

    def warm(self, backend: object | None = None) -> int:
        """Compute the beginning now, and wait for it. How many tokens of it the back end had not
        cached; 0 too where there is no beginning, the back end takes no tokens, or a recording
        answers. It is no part of a recording."""
        if not self._prefix.nodes or is_replaying():
            return 0
        client = resolve(backend)
        if client.info().abilities.speaks != "ids":
            return 0
        state = Program(self._say_prefix).run(backend=Aside(client))
        meta = state.get_meta_info("prefix")
        return int(meta["prompt_tokens"] - meta["cached_tokens"])

    def _say_prefix(self, s: ProgramState) -> None:
        for node in self._prefix.nodes:
            s += node
        s += gen("prefix", max_tokens=0)

    def _before_batch(self, size: int, backend: object | None) -> None:
        if size < 2 or is_replaying():
            return
        page = resolve(backend).info().page_size
        if len(self.prefix) >= _CHARACTERS * page:
            self.warm(backend)
