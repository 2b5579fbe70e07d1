"""Functions of a state as programs: `@function` and the ways to run one.

Owns: the split of `run`'s keyword arguments into the program's own and options, and the execution
of the function's body. Knows no nodes.
"""

import difflib
import functools
import inspect
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Generic, Literal, overload

from ..runtime.errors import InvalidRequest
from ..runtime.recording.runs import RunInfo, source_digest
from . import batch
from .branch import Branch
from .recording import IN_BODY, client_of_run
from .run import Run
from .sampling import RUN_OPTIONS, Sampling
from .state import ProgramState

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    from .trace.graph import Graph

    R = TypeVar("R", default=Any, covariant=True)  # `Program` alone says nothing of it
else:
    from typing import TypeVar

    R = TypeVar("R", covariant=True)
T = TypeVar("T")

_OPTIONS: Final = RUN_OPTIONS | {"stream", "backend", "use_thread"}


class Program(Generic[R]):
    """A function of a state `s` and arguments of its own, which returns an R (`state.ret_value`).
    Immutable; may run many times at once.

    A keyword that is a parameter of the function goes to the function, also where `run` has an
    option of that name (so such an option cannot be set for this program).
    """

    def __init__(self, func: Callable[..., R], bound: Mapping[str, Any] | None = None) -> None:
        name = getattr(func, "__qualname__", repr(func))
        if inspect.iscoroutinefunction(func) or inspect.isasyncgenfunction(func):
            raise TypeError(f"{name}: async functions cannot be programs; write a plain `def`")
        if inspect.isgeneratorfunction(func):
            raise TypeError(f"{name}: generator functions cannot be programs; `yield` has no use")
        self._signature = inspect.signature(func)
        parameters = list(self._signature.parameters.values())
        if not parameters or parameters[0].name != "s":
            raise TypeError(f'{name}: the first parameter of a program must be named "s"')
        self._rest = [p.name for p in parameters if p.kind is p.VAR_POSITIONAL]
        self._takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters)
        self.func = func
        self.arg_names = [
            p.name for p in parameters[1:] if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)
        ]
        self._bound = dict(bound or {})
        functools.update_wrapper(self, func)

    def __repr__(self) -> str:
        return f"<program {self.name}{self._signature}>"

    @property
    def name(self) -> str:
        return str(getattr(self.func, "__name__", "program"))

    def bind(self, **kwargs: Any) -> "Program[R]":
        """The program with these arguments fixed; they win over those of a call."""
        for key in kwargs:
            if key not in self.arg_names and not self._takes_any:
                raise TypeError(f"bind: {self.name} has no parameter {key!r}{self._nearest(key)}")
        return Program(self.func, {**self._bound, **kwargs})

    def __call__(self, *args: Any, **kwargs: Any) -> ProgramState[R]:
        return self.run(*args, **kwargs)

    def run(self, *args: Any, **kwargs: Any) -> ProgramState[R]:
        """Run the function; returns when its body has ended, while generations may still run.

        `args` and `kwargs` are the function's; besides them `kwargs` may hold

        - defaults for every gen: max_new_tokens=128, min_new_tokens, n=1, stop, stop_token_ids,
          stop_regex, temperature=1.0, top_p, top_k, min_p, frequency_penalty, presence_penalty,
          repetition_penalty, ignore_eos, logit_bias, seed, return_logprob, logprob_start_len,
          top_logprobs_num, return_text_in_logprobs;
        - backend: an Engine or Client instead of the default one;
        - stream=True: return at once, the body running in a thread, for `state.text_iter()`;
        - use_thread=False: let every step end before the body goes on.

        An error of the body is raised, after all that the program still ran was aborted.
        """
        arguments, options = self._split(kwargs)
        stream = _flag("stream", options.pop("stream", False))
        threaded = _flag("use_thread", options.pop("use_thread", True))
        backend = options.pop("backend", None)
        call = self._call(args, arguments)
        client = client_of_run(backend, lambda: self._described(args, arguments, options))
        run = Run(
            self.name, client, Sampling.of_run(options), stream=stream, synchronous=not threaded
        )
        if stream:
            return _start(run, call)
        state = ProgramState(Branch(run))
        _run_body(run, state, call)
        if run.body_error is not None:
            raise run.body_error
        return state

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
        **options: Any,
    ) -> list[ProgramState[R]] | Iterator[ProgramState[R]]:
        """Run the function once per item, many at a time; the results are in the items' order.

        `batch_kwargs`: a list of dicts of arguments, or of lists of positional ones. `options`: the
        sampling defaults of `run`; one `seed` holds for every item, so that equal items give equal
        results, and a list of seeds gives each item its own. `num_threads`: how many at a time.
        `on_error`: "raise" the first error of an item and abort the rest, or "keep" a failed item's
        state in its place, where access raises what went wrong. `generator_style`: yield the
        results one by one, in order; closing the generator aborts the rest.
        """
        for name in options:
            if name not in RUN_OPTIONS:
                raise TypeError(f"run_batch has no option {name!r}{_near(name, RUN_OPTIONS)}")
        if not isinstance(batch_kwargs, list | tuple):
            raise TypeError(f"run_batch: {type(batch_kwargs).__name__} is not a list of items")
        items = [self._item(index, item) for index, item in enumerate(batch_kwargs)]
        calls = [self._item_call(index, item) for index, item in enumerate(items)]
        given = _per_item(options, len(calls))
        defaults = [Sampling.of_run(one) for one in given]
        if not calls:
            return iter(()) if generator_style else []
        clients = [
            client_of_run(backend, partial(self._described, *item, one))
            for item, one in zip(items, given, strict=True)
        ]
        runs = [Run(self.name, *one) for one in zip(clients, defaults, strict=True)]
        jobs = [_job(run, call) for run, call in zip(runs, calls, strict=True)]
        plan = batch.Plan.of(len(jobs), num_threads, on_error, progress_bar)
        return batch.generate(jobs, plan) if generator_style else batch.gather(jobs, plan)

    # --- before it runs ------------------------------------------------------------------------

    def trace(self, *args: Any, **kwargs: Any) -> "Graph":
        """The graph of all that the program says, asks, forks and joins, from its source: nothing
        of it runs. `print` shows it as a tree, `.mermaid()` as a flowchart.

        The function's arguments may be given as far as they are known. Raises InvalidRequest where
        the source of the function is not to be found.
        """
        from .trace.tracing import traced  # reads source, which running a program never does

        return traced(self.func, args, {**kwargs, **self._bound})

    # --- arguments -----------------------------------------------------------------------------

    def _split(self, kwargs: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """(the function's arguments, options of run)."""
        arguments: dict[str, Any] = {}
        options: dict[str, Any] = {}
        for key, value in kwargs.items():
            if key in self.arg_names:
                arguments[key] = value
            elif key in _OPTIONS:
                options[key] = value
            elif self._takes_any:
                arguments[key] = value
            else:
                raise TypeError(
                    f"{self.name} has no parameter, and run no option, {key!r}{self._nearest(key)}"
                )
        return arguments, options

    def _nearest(self, key: str) -> str:
        return _near(key, [*self.arg_names, *_OPTIONS])

    def _item(self, index: int, item: object) -> tuple[Sequence[Any], Mapping[str, Any]]:
        if isinstance(item, Mapping):
            return (), item
        if isinstance(item, list | tuple):
            return item, {}
        raise TypeError(
            f"item {index} of run_batch: {item!r} is neither a dict of arguments nor a list of them"
        )

    def _item_call(
        self, index: int, item: tuple[Sequence[Any], Mapping[str, Any]]
    ) -> Callable[[ProgramState], Any]:
        try:
            return self._call(*item)
        except TypeError as error:
            raise TypeError(f"item {index} of run_batch: {error}") from None

    def _call(
        self, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> Callable[[ProgramState], Any]:
        """The body with its arguments; TypeError if they do not fit the function."""
        merged = {**kwargs, **self._bound}
        try:
            self._signature.bind(None, *args, **merged)
        except TypeError as error:
            raise TypeError(f"{self.name}: {error}") from None
        return lambda state: self.func(state, *args, **merged)

    def _described(
        self, args: Sequence[Any], kwargs: Mapping[str, Any], options: Mapping[str, Any]
    ) -> RunInfo:
        given = dict(self._signature.bind(None, *args, **{**kwargs, **self._bound}).arguments)
        del given[next(iter(self._signature.parameters))]
        code = getattr(inspect.unwrap(self.func), "__code__", None)
        return RunInfo(
            self.func.__qualname__,
            getattr(code, "co_filename", None),
            source_digest(self.func),
            {name: list(v) if name in self._rest else v for name, v in given.items()},
            options,
            nested=IN_BODY.get(),
        )


def _job(run: Run, call: Callable[[ProgramState], Any]) -> batch.Job:
    state = ProgramState(Branch(run))
    return batch.Job(state, lambda: _run_body(run, state, call))


def _start(run: Run, call: Callable[[ProgramState], Any]) -> ProgramState:
    """Run a body in a thread; the state returned is a reader's, which owns the run."""
    branch = Branch(run)
    inside = ProgramState(branch, owner=False)
    thread = threading.Thread(
        target=_run_body, args=(run, inside, call), name=f"program {run.program}", daemon=True
    )
    state = ProgramState(branch, outside=True)
    thread.start()
    return state


def _run_body(run: Run, state: ProgramState, call: Callable[[ProgramState], Any]) -> None:
    """Its error is kept in the run, and aborts all that the body started."""
    error: BaseException | None = None
    outside = IN_BODY.set(True)
    try:
        state._branch.return_value = call(state)
    except BaseException as raised:  # whoever reads the state gets it, and `run` raises it
        error = raised
        state._branch.executor.cancel(raised)
    finally:
        IN_BODY.reset(outside)
    run.end_body(error)


def _flag(name: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise InvalidRequest(f"{name}: {value!r} is not true or false", field=name)
    return value


def _near(key: str, known: Sequence[str] | frozenset[str]) -> str:
    matches = difflib.get_close_matches(key, known, n=1)
    return f"; did you mean {matches[0]!r}?" if matches else ""


def _per_item(options: dict[str, Any], size: int) -> list[dict[str, Any]]:
    seeds = options.get("seed")
    if not isinstance(seeds, list | tuple):
        return [options] * size
    if len(seeds) != size:
        raise InvalidRequest(f"seed: {len(seeds)} seeds for {size} items", field="seed")
    return [{**options, "seed": seed} for seed in seeds]


@overload
def function(func: Callable[..., T], num_api_spec_tokens: None = None) -> Program[T]: ...


@overload
def function(
    func: None = None, num_api_spec_tokens: int | None = None
) -> Callable[[Callable[..., T]], Program[T]]: ...


def function(
    func: Callable[..., T] | None = None, num_api_spec_tokens: int | None = None
) -> Program[T] | Callable[[Callable[..., T]], Program[T]]:
    """Decorator: a function whose first parameter is `s` becomes a Program.

    Raises TypeError for what cannot be one, and InvalidRequest for `num_api_spec_tokens`, which
    is an option for remote text APIs that this runtime does not have.
    """
    if num_api_spec_tokens is not None:
        raise InvalidRequest(
            "num_api_spec_tokens is not supported: leave it out", field="num_api_spec_tokens"
        )
    return Program if func is None else Program(func)
