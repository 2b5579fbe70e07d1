"""Sampling options as programs state them: every one may be left to the next outer default.

Owns: the merge of a gen's options over its run's, and their translation to the protocol's records.
Knows no node and no state.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Any, Final

from ..runtime.errors import InvalidRequest
from ..runtime.protocol import Constraint, LogprobOptions, SamplingParams

# What `run` calls the options that `gen` calls otherwise (as in SGLang).
_RUN_NAMES: Final = {"max_new_tokens": "max_tokens", "min_new_tokens": "min_tokens"}


@dataclass(frozen=True)
class Sampling:
    """None means: as the run says, and then as `SamplingParams` says."""

    max_tokens: int | None = None
    min_tokens: int | None = None
    n: int | None = None
    stop: str | Sequence[str] | None = None
    stop_token_ids: Sequence[int] | None = None
    stop_regex: str | Sequence[str] | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    repetition_penalty: float | None = None
    ignore_eos: bool | None = None
    logit_bias: Mapping[int, float] | None = None
    seed: int | None = None
    return_logprob: bool | None = None
    logprob_start_len: int | None = None
    top_logprobs_num: int | None = None
    return_text_in_logprobs: bool | None = None
    heal: bool | None = None

    @classmethod
    def of_run(cls, options: Mapping[str, Any]) -> "Sampling":
        """From the options of `run`; `max_new_tokens` may also be written as in `gen`."""
        values: dict[str, Any] = {}
        for name, value in options.items():
            target = _RUN_NAMES.get(name, name)
            if target in values:
                raise InvalidRequest(f"{name} and {target} are the same option", field=name)
            values[target] = value
        sampling = cls(**values)
        try:
            sampling.check()
        except InvalidRequest as error:
            raise _renamed(error, options) from None
        return sampling

    def check(self, added_stop: tuple[str, ...] = ()) -> None:
        """Raises InvalidRequest, naming the field, for what is wrong whatever it is merged with."""
        # Without a limit of its own none is assumed: the other side of the merge may raise it.
        _made({"max_tokens": None, **self._fields(added_stop)})
        for name in ("return_logprob", "return_text_in_logprobs", "heal"):
            value = getattr(self, name)
            if value is not None and not isinstance(value, bool):
                raise InvalidRequest(f"{name}: {value!r} is not true or false", field=name)
        if self._asks_details():
            self._logprob_options()

    def over(self, defaults: "Sampling") -> "Sampling":
        """These options where given, the defaults elsewhere."""
        given, below = self.given(), defaults.given()
        if not given or not below:
            return self if given else defaults
        return Sampling(**{**below, **given})

    def given(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if value is not None}

    def params(
        self, constraint: Constraint | None = None, added_stop: tuple[str, ...] = ()
    ) -> SamplingParams:
        """Raises InvalidRequest, naming the field, where a value is out of its range."""
        return _made({"constraint": constraint, **self._fields(added_stop)})

    def _fields(self, added_stop: tuple[str, ...]) -> dict[str, Any]:
        """What is given, in the types of `SamplingParams`."""
        values = {name: v for name, v in self.given().items() if name not in _OTHER_NAMES}
        for name in ("stop", "stop_regex"):
            if name in values:
                values[name] = _texts(name, values[name])
        values["stop"] = (*values.get("stop", ()), *added_stop)
        if "stop_token_ids" in values:
            values["stop_token_ids"] = _ids("stop_token_ids", values["stop_token_ids"])
        if "logit_bias" in values:
            values["logit_bias"] = _bias(values["logit_bias"])
        return values

    def logprobs(self) -> LogprobOptions | None:
        """What to report of log-probabilities; None unless `return_logprob`. False turns off what
        run asked for; details without it are refused."""
        if self.return_logprob is False or not self._asks_details():
            return LogprobOptions() if self.return_logprob else None
        details = {
            "logprob_start_len": (self.logprob_start_len, (None, -1)),
            "top_logprobs_num": (self.top_logprobs_num, (None, 0)),
            "return_text_in_logprobs": (self.return_text_in_logprobs, (None, False)),
        }
        if self.return_logprob is None:
            for name, (value, idle) in details.items():
                if value not in idle:
                    raise InvalidRequest(f"{name} needs return_logprob=True", field=name)
            return None
        return self._logprob_options()

    def _asks_details(self) -> bool:
        details = (self.logprob_start_len, self.top_logprobs_num, self.return_text_in_logprobs)
        return details != (None, None, None)

    def _logprob_options(self) -> LogprobOptions:
        return LogprobOptions(
            start=-1 if self.logprob_start_len is None else self.logprob_start_len,
            top=0 if self.top_logprobs_num is None else self.top_logprobs_num,
            text=bool(self.return_text_in_logprobs),
        )


# Not of `SamplingParams`.
_OTHER_NAMES: Final = {
    "heal",
    "return_logprob",
    "logprob_start_len",
    "top_logprobs_num",
    "return_text_in_logprobs",
}
RUN_OPTIONS: Final = frozenset(option.name for option in fields(Sampling)) | frozenset(_RUN_NAMES)


def _made(values: dict[str, Any]) -> SamplingParams:
    """Equal values share one record: loops ask for the same options again and again."""
    if "stop_token_ids" not in values and "logit_bias" not in values:
        try:
            return _cached(tuple(values), *values.values())
        except TypeError:  # what cannot be hashed
            pass
    return SamplingParams(**values)


# typed: 1, 1.0 and True are equal, and not all of them valid. Within a tuple it cannot tell.
@lru_cache(maxsize=256, typed=True)
def _cached(names: tuple[str, ...], *values: Any) -> SamplingParams:
    return SamplingParams(**dict(zip(names, values, strict=True)))


def _texts(name: str, value: str | Sequence[str]) -> tuple[str, ...]:
    if isinstance(value, str):
        return (value,)
    if not isinstance(value, Sequence):
        raise InvalidRequest(f"{name}: {value!r} is neither a text nor a list of texts", field=name)
    return tuple(value)


def _ids(name: str, value: object) -> tuple[Any, ...]:
    """One id or a sequence of them."""
    if isinstance(value, int):
        return (value,)
    if isinstance(value, str | bytes) or not isinstance(value, Sequence):
        raise InvalidRequest(f"{name}: {value!r} is not a list of token ids", field=name)
    return tuple(value)


def _bias(value: Mapping[int, float]) -> tuple[tuple[int, float], ...]:
    if not isinstance(value, Mapping):
        raise InvalidRequest(
            f"logit_bias: {value!r} is not a dict from token id to bias", field="logit_bias"
        )
    return tuple(value.items())


def _renamed(error: InvalidRequest, options: Mapping[str, Any]) -> InvalidRequest:
    """The error in the words of `run`."""
    for name, target in _RUN_NAMES.items():
        if error.field == target and name in options:
            return InvalidRequest(name + str(error).removeprefix(target), field=name)
    return error
