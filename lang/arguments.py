"""What a program's function takes: its own arguments, told apart from options of `run`.

Owns: the checks of a function that is to be a program and of the arguments of a call. Knows no run.
"""

import difflib
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..runtime.recording.runs import RunInfo, source_digest
from .options import RUN_NAMES
from .recording import IN_BODY


@dataclass(frozen=True)
class Call:
    """A function with its arguments, which fit it; called with a state."""

    program: str
    func: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    num_api_spec_tokens: int | None = None

    def __call__(self, state: object) -> Any:
        return self.func(state, *self.args, **self.kwargs)

    @property
    def is_async(self) -> bool:
        return inspect.iscoroutinefunction(self.func)

    def described(self, options: Mapping[str, Any]) -> RunInfo:
        """The run that this call and these options ask for."""
        signature = inspect.signature(self.func)
        state, *others = signature.parameters.values()
        given = dict(signature.bind(None, *self.args, **self.kwargs).arguments)
        del given[state.name]
        for rest in others:
            if rest.kind is rest.VAR_POSITIONAL and rest.name in given:
                given[rest.name] = list(given[rest.name])
        code = getattr(inspect.unwrap(self.func), "__code__", None)
        return RunInfo(
            self.func.__qualname__,
            getattr(code, "co_filename", None),
            source_digest(self.func),
            given,
            options,
            nested=IN_BODY.get(),
        )


class Parameters:
    """Those of a function after `s`, some of them fixed (`bound`). Immutable."""

    def __init__(
        self,
        func: Callable[..., Any],
        bound: Mapping[str, Any],
        num_api_spec_tokens: int | None = None,
    ) -> None:
        name = getattr(func, "__qualname__", repr(func))
        if inspect.isgeneratorfunction(func) or inspect.isasyncgenfunction(func):
            raise TypeError(f"{name}: generator functions cannot be programs; `yield` has no use")
        self.signature = inspect.signature(func)
        parameters = list(self.signature.parameters.values())
        if not parameters or parameters[0].name != "s":
            raise TypeError(f'{name}: the first parameter of a program must be named "s"')
        self.program = str(getattr(func, "__name__", "program"))
        self.bound = dict(bound)
        self.names = [
            p.name for p in parameters[1:] if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)
        ]
        self._func = func
        self.num_api_spec_tokens = num_api_spec_tokens
        self.is_async = inspect.iscoroutinefunction(func)
        self._takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters)

    def check_bound(self, names: Iterable[str]) -> None:
        for name in names:
            if name not in self.names and not self._takes_any:
                raise TypeError(
                    f"bind: {self.program} has no parameter {name!r}{self._nearest(name)}"
                )

    def split(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[Call, dict[str, Any]]:
        """(the call, options of run). TypeError for what is neither, and for what does not fit."""
        arguments: dict[str, Any] = {}
        options: dict[str, Any] = {}
        for key, value in kwargs.items():
            if key in self.names:
                arguments[key] = value
            elif key in RUN_NAMES:
                options[key] = value
            elif self._takes_any:
                arguments[key] = value
            else:
                raise TypeError(
                    f"{self.program} has no parameter, and run no option, {key!r}"
                    f"{self._nearest(key)}"
                )
        return self.call(args, arguments), options

    def call(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Call:
        merged = {**kwargs, **self.bound}
        try:
            self.signature.bind(None, *args, **merged)
        except TypeError as error:
            raise TypeError(f"{self.program}: {error}") from None
        return Call(self.program, self._func, tuple(args), merged, self.num_api_spec_tokens)

    def items(self, verb: str, items: object) -> list[Call]:
        """A call for each item of a batch: a dict of arguments, or a list of positional ones."""
        if not isinstance(items, list | tuple):
            raise TypeError(f"{verb}: {type(items).__name__} is not a list of items")
        return [self._item(f"item {index} of {verb}", item) for index, item in enumerate(items)]

    def _item(self, place: str, item: object) -> Call:
        try:
            if isinstance(item, Mapping):
                return self.call((), item)
            if isinstance(item, list | tuple):
                return self.call(item, {})
        except TypeError as error:
            raise TypeError(f"{place}: {error}") from None
        raise TypeError(f"{place}: {item!r} is neither a dict of arguments nor a list of them")

    def _nearest(self, key: str) -> str:
        return nearest(key, [*self.names, *RUN_NAMES])


def nearest(key: str, known: Iterable[str]) -> str:
    """The end of a message about an unknown name."""
    matches = difflib.get_close_matches(key, list(known), n=1)
    return f"; did you mean {matches[0]!r}?" if matches else ""
