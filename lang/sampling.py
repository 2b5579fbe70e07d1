"""Sampling options as programs state them: every one may be left to the next outer default.

Owns: the merge of a gen's options over its run's, and their translation to the protocol's records.
Knows no node and no state.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
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

    @classmethod
    def of_run(cls, options: Mapping[str, Any]) -> "Sampling":
        """From the options of `run`; `max_new_tokens` may also be written as in `gen`."""
        values: dict[str, Any] = {}
        for name, value in options.items():
            target = _RUN_NAMES.get(name, name)
            if target in values:
                raise InvalidRequest(f"{name} and {target} are the same option", field=name)
            values[target] = value
        return cls(**values)

    def over(self, defaults: "Sampling") -> "Sampling":
        """These options where given, the defaults elsewhere."""
        return Sampling(
            **{
                name: getattr(defaults, name) if value is None else value
                for name, value in self.given(keep_none=True).items()
            }
        )

    def given(self, *, keep_none: bool = False) -> dict[str, Any]:
        values = {option.name: getattr(self, option.name) for option in fields(self)}
        return {name: v for name, v in values.items() if keep_none or v is not None}

    def params(
        self, constraint: Constraint | None = None, added_stop: tuple[str, ...] = ()
    ) -> SamplingParams:
        """Raises InvalidRequest, naming the field, where a value is out of its range."""
        values = {name: v for name, v in self.given().items() if name not in _LOGPROB_NAMES}
        for name in ("stop", "stop_regex"):
            if name in values:
                values[name] = _texts(name, values[name])
        values["stop"] = (*values.get("stop", ()), *added_stop)
        if "stop_token_ids" in values:
            ids = values["stop_token_ids"]
            values["stop_token_ids"] = (ids,) if isinstance(ids, int) else tuple(ids)
        if "logit_bias" in values:
            values["logit_bias"] = _bias(values["logit_bias"])
        return SamplingParams(constraint=constraint, **values)

    def logprobs(self) -> LogprobOptions | None:
        """What to report of log-probabilities; None unless `return_logprob`."""
        details = {
            "logprob_start_len": self.logprob_start_len,
            "top_logprobs_num": self.top_logprobs_num,
            "return_text_in_logprobs": self.return_text_in_logprobs,
        }
        if not self.return_logprob:
            for name, value in details.items():
                if value:
                    raise InvalidRequest(f"{name} needs return_logprob=True", field=name)
            return None
        return LogprobOptions(
            start=-1 if self.logprob_start_len is None else self.logprob_start_len,
            top=self.top_logprobs_num or 0,
            text=bool(self.return_text_in_logprobs),
        )


_LOGPROB_NAMES: Final = {
    "return_logprob",
    "logprob_start_len",
    "top_logprobs_num",
    "return_text_in_logprobs",
}
RUN_OPTIONS: Final = frozenset(option.name for option in fields(Sampling)) | frozenset(_RUN_NAMES)


def _texts(name: str, value: str | Sequence[str]) -> tuple[str, ...]:
    if isinstance(value, str):
        return (value,)
    if not isinstance(value, Sequence):
        raise InvalidRequest(f"{name}: {value!r} is neither a text nor a list of texts", field=name)
    return tuple(value)


def _bias(value: Mapping[int, float]) -> tuple[tuple[int, float], ...]:
    if not isinstance(value, Mapping):
        raise InvalidRequest(
            f"logit_bias: {value!r} is not a dict from token id to bias", field="logit_bias"
        )
    return tuple(value.items())
