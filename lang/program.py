"""Functions of a state as programs: `@function` and the ways to run one.

Owns: the public face of a program. Knows neither how arguments are told from options nor how a body
runs.
"""

import functools
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, Literal, overload

from ..runtime.errors import InvalidRequest
from . import batch
from .arguments import Call, Parameters, nearest
from .execution import Execution, check_async, refuse_loop
from .options import BATCH_NAMES, RunOptions, flag, per_item
from .speculative import check_tokens
from .state import ProgramState

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    from .async_state import AsyncProgramState
    from .compiled import CompiledProgram
    from .lint.findings import Finding
    from .trace.graph import Graph

    R = TypeVar("R", default=Any, covariant=True)  # `Program` alone says nothing of it
else:
    from typing import TypeVar

    R = TypeVar("R", covariant=True)
T = TypeVar("T")


class Program(Generic[R]):
    """A function of a state `s` and arguments of its own, which returns an R (`state.ret_value`).
    Immutable; may run many times at once. The function may be `async def`: its `s` is an
    AsyncProgramState then.

    A keyword that is a parameter of the function goes to the function, also where `run` has an
    option of that name (so such an option cannot be set for this program).
    """

    def __init__(
        self,
        func: Callable[..., R] | Callable[..., Awaitable[R]],
        bound: Mapping[str, Any] | None = None,
        num_api_spec_tokens: int | None = None,
    ) -> None:
        check_tokens(num_api_spec_tokens)
        self._parameters = Parameters(func, bound or {}, num_api_spec_tokens)
        self.func = func
        self.arg_names = self._parameters.names
        functools.update_wrapper(self, func)

    def __repr__(self) -> str:
        return f"<program {self.name}{self._parameters.signature}>"

    @property
    def name(self) -> str:
        return self._parameters.program

    @property
    def bound(self) -> Mapping[str, Any]:
        """The arguments that `bind` has fixed."""
        return self._parameters.bound

    def bind(self, **kwargs: Any) -> "Program[R]":
        """The program with these arguments fixed; they win over those of a call."""
        self._parameters.check_bound(kwargs)
        return Program(
            self.func,
            {**self._parameters.bound, **kwargs},
            self._parameters.num_api_spec_tokens,
        )

    def __call__(self, *args: Any, **kwargs: Any) -> ProgramState[R]:
        return self.run(*args, **kwargs)

    def run(self, *args: Any, **kwargs: Any) -> ProgramState[R]:
        """Run the function; returns when its body has ended, while generations may still run.

        `args` and `kwargs` are the function's; besides them `kwargs` may hold

        - defaults for every gen: max_new_tokens=128, min_new_tokens, n=1, stop, stop_token_ids,
          stop_regex, temperature=1.0, top_p, top_k, min_p, frequency_penalty, presence_penalty,
          repetition_penalty, ignore_eos, logit_bias, seed, return_logprob, logprob_start_len,
          top_logprobs_num, return_text_in_logprobs, heal=True;
        - backend: an Engine or Client instead of the default one;
        - timeout: seconds after which all that the program still runs is aborted, and reads raise
          ProgramTimeout;
        - stream=True: return at once, the body running in a thread, for `state.text_iter()`;
        - use_thread=False: let every step end before the body goes on.

        An error of the body is raised, after all that the program still ran was aborted. An async
        function runs on an event loop of its own; where one is running already, use `arun`.
        """
        call, options = self._parameters.split(args, kwargs)
        ways = RunOptions.of(options)
        check_async(call, ways)
        refuse_loop(call, "arun")
        execution = Execution(call, ways)
        return execution.in_thread() if ways.stream else execution.to_end()

    @overload
    def arun(
        self, *args: Any, stream: Literal[False] = False, **kwargs: Any
    ) -> Coroutine[Any, Any, ProgramState[R]]: ...

    @overload
    def arun(
        self, *args: Any, stream: Literal[True], **kwargs: Any
    ) -> "Coroutine[Any, Any, AsyncProgramState[R]]": ...

    def arun(
        self, *args: Any, **kwargs: Any
    ) -> "Coroutine[Any, Any, ProgramState[R] | AsyncProgramState[R]]":
        """`run` for an event loop, which it never blocks: `state = await program.arun(...)`.

        The state comes once all that the program started has ended, so that reading it waits for
        nothing; with `stream=True` at once, and its reads are awaited. An `async def` body is part
        of the awaiting task, and costs no thread; a plain one runs on a thread of its own.
        Cancelling the task aborts the program. `timeout` raises ProgramTimeout.
        """
        call, options = self._parameters.split(args, kwargs)
        ways = RunOptions.of(options)
        check_async(call, ways)
        from . import async_execution  # loads asyncio

        return async_execution.start(call, ways) if ways.stream else async_execution.run(call, ways)

    @overload
    def run_batch(
        self,
        batch_kwargs: Sequence[Any],
        *,
        backend: object | None = None,
        num_threads: int | Literal["auto"] = "auto",
        progress_bar: bool = False,
        generator_style: Literal[False] = False,
        on_error: batch.OnError = "raise",
        retries: int = 0,
        **options: Any,
    ) -> list[ProgramState[R]]: ...

    @overload
    def run_batch(
        self,
        batch_kwargs: Sequence[Any],
        *,
        backend: object | None = None,
        num_threads: int | Literal["auto"] = "auto",
        progress_bar: bool = False,
        generator_style: Literal[True],
        on_error: batch.OnError = "raise",
        retries: int = 0,
        **options: Any,
    ) -> Iterator[ProgramState[R]]: ...

    def run_batch(
        self,
        batch_kwargs: Sequence[Any],
        *,
        backend: object | None = None,
        num_threads: int | Literal["auto"] = "auto",
        progress_bar: bool = False,
        generator_style: bool = False,
        on_error: batch.OnError = "raise",
        retries: int = 0,
        **options: Any,
    ) -> list[ProgramState[R]] | Iterator[ProgramState[R]]:
        """Run the function once per item, many at a time; the results are in the items' order.

        `batch_kwargs`: a list of dicts of arguments, or of lists of positional ones. `options`: the
        sampling defaults of `run`; one `seed` holds for every item, so that equal items give equal
        results, and a list of seeds gives each item its own; `timeout`: seconds for each attempt at
        an item. `num_threads`: how many at a time.
        `on_error`: "raise" the first error of an item and abort the rest, or "keep" a failed item's
        state in its place, where access raises what went wrong. `retries`: how many more times an
        item is tried, in a state of its own, that failed with an error of the engine or the
        network, or with a timeout (`batch.is_retryable`).
        `generator_style`: yield the results one by one, in order; closing the generator aborts the
        rest, and so does Ctrl-C.
        """
        calls, ways = self._items("run_batch", batch_kwargs, {**options, "backend": backend})
        flag("generator_style", generator_style)
        flag("progress_bar", progress_bar)
        if not calls:
            return iter(()) if generator_style else []
        refuse_loop(calls[0], "arun_batch")
        limit = batch.num_at_a_time("num_threads", num_threads)
        plan = batch.Plan.of(len(calls), limit, on_error, retries, progress_bar)
        self._before_batch(len(calls), backend)
        jobs = [Execution(*one) for one in zip(calls, ways, strict=True)]
        return batch.generate(jobs, plan) if generator_style else batch.gather(jobs, plan)

    def arun_batch(
        self,
        batch_kwargs: Sequence[Any],
        *,
        backend: object | None = None,
        num_concurrent: int | Literal["auto"] = "auto",
        on_error: batch.OnError = "raise",
        retries: int = 0,
        **options: Any,
    ) -> Coroutine[Any, Any, list[ProgramState[R]]]:
        """`run_batch` for an event loop, which it never blocks; the states are whole, as `arun`'s.

        `num_concurrent`: how many run at a time; "auto": 1,000 of an async function, and as many as
        `run_batch` takes threads of a plain one. Cancelling the task aborts all.
        """
        calls, ways = self._items("arun_batch", batch_kwargs, {**options, "backend": backend})
        limit = batch.num_at_a_time(
            "num_concurrent", num_concurrent, is_async=self._parameters.is_async
        )
        plan = batch.Plan.of(len(calls), limit, on_error, retries)
        from . import async_batch  # loads asyncio

        ahead = partial(self._before_batch, len(calls), backend)
        return async_batch.gather(list(zip(calls, ways, strict=True)), plan, ahead)

    def _items(
        self, verb: str, items: object, options: Mapping[str, Any]
    ) -> tuple[list[Call], list[RunOptions]]:
        for name in options:
            if name not in BATCH_NAMES:
                raise TypeError(f"{verb} has no option {name!r}{nearest(name, BATCH_NAMES)}")
        calls = self._parameters.items(verb, items)
        return calls, [RunOptions.of(one) for one in per_item(options, len(calls))]

    def _before_batch(self, size: int, backend: object | None) -> None:
        """What a compiled program does when everything of a batch has been checked."""

    # --- before it runs ------------------------------------------------------------------------

    def trace(
        self, *args: Any, execute: bool = False, backend: object | None = None, **kwargs: Any
    ) -> "Graph":
        """The graph of all that the program says, asks, forks and joins, from its source: nothing
        of it runs. `print` shows it as a tree, `.mermaid()` as a flowchart.

        The function's arguments may be given as far as they are known. Raises InvalidRequest where
        the source of the function is not to be found.

        `execute=True` runs the program instead, once, with these arguments and all that its code
        does, and tells what it said. `backend` answers; without one no model is asked: each gen
        says "<answer>", or the shortest text of its constraint, and each select its first option.
        (Other programs that it runs go to their own back ends.)
        """
        from .trace.tracing import traced  # reads source, which running a program never does

        if execute:
            from .trace.watching import watched

            return watched(self._parameters.call(args, kwargs), backend)
        if backend is not None:
            raise InvalidRequest("backend has no use without execute=True", field="backend")
        return traced(self.func, args, {**kwargs, **self.bound})

    def compile(self) -> "CompiledProgram[R]":
        """The program with its constant beginning found, from its source: nothing of it runs.
        A batch of it computes that beginning once ahead, and `warm` does so at any time.

        Raises InvalidRequest where the source of the function is not to be found.
        """
        from .compiled import CompiledProgram

        return CompiledProgram(self.func, self.bound, self._parameters.num_api_spec_tokens)

    def cache(self, backend: object | None = None) -> None:
        """Compute the constant beginning now, as SGLang's programs ask for it; see `compile`."""
        self.compile().warm(backend)

    def check(self, *, select: Sequence[str] = (), ignore: Sequence[str] = ()) -> "list[Finding]":
        """What `sapwood lint` finds in this program; nothing of it runs. `select`: only these
        rules, by code or name; `ignore`: all but these (docs/lint.md lists them)."""
        from .lint.checker import Check

        return Check.of(select, ignore).program(self.func)


@overload
def function(
    func: Callable[..., Coroutine[Any, Any, T]], num_api_spec_tokens: int | None = None
) -> Program[T]: ...


@overload
def function(func: Callable[..., T], num_api_spec_tokens: int | None = None) -> Program[T]: ...


@overload
def function(
    func: None = None, num_api_spec_tokens: int | None = None
) -> Callable[[Callable[..., T]], Program[T]]: ...


def function(
    func: Callable[..., Any] | None = None, num_api_spec_tokens: int | None = None
) -> Program[Any] | Callable[[Callable[..., T]], Program[T]]:
    """Decorator: a function whose first parameter is `s`, plain or async, becomes a Program.

    `num_api_spec_tokens`: with a vendor's model, ask for so many tokens at once and cut the gens
    from the answer, see `speculative`. With a runtime of ours, for which no call is too short, it
    changes nothing. Raises TypeError for what cannot be a program.
    """
    check_tokens(num_api_spec_tokens)
    if func is None:
        return partial(Program, num_api_spec_tokens=num_api_spec_tokens)
    return Program(func, num_api_spec_tokens=num_api_spec_tokens)
