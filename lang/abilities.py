"""Refusals of what a back end cannot do, where a program says it and not when it is sent.

Owns: the checks of requests against `Abilities`. Knows no back end.
"""

from collections.abc import Sequence
from dataclasses import MISSING, fields
from typing import Any, Final

from ..runtime.errors import InvalidRequest
from ..runtime.protocol import EngineInfo, LogprobOptions, SamplingParams


def check_generate(
    info: EngineInfo, sampling: SamplingParams, logprobs: LogprobOptions | None
) -> None:
    """Raises InvalidRequest that names the option which the model lacks."""
    can = info.abilities
    if logprobs is not None and not can.logprobs:
        raise InvalidRequest(
            f"return_logprob: {info.model} tells no log-probabilities with token ids",
            field="return_logprob",
        )
    if can.options is not None:
        _check_options(info.model, sampling, can.options)
    if sampling.constraint is not None and can.constraints is not None:
        kind = type(sampling.constraint).__name__
        if kind not in can.constraints:
            known = ", ".join(can.constraints) or "none at all"
            field = _ARGUMENTS.get(kind, "constraint")
            raise InvalidRequest(
                f"{field}: {sampling.constraint!r}: of constraints {info.model} takes {known}",
                field=field,
            )


def check_heal(info: EngineInfo, asked: bool | None) -> bool:
    """Whether a prompt's last token may be drawn anew: where not said otherwise, it may."""
    has_tokens = info.abilities.speaks == "ids"
    if asked and not has_tokens:
        raise InvalidRequest(f"heal: True: {info.model} takes no tokens", field="heal")
    return has_tokens if asked is None else asked


def check_select(info: EngineInfo, options: Sequence[str]) -> None:
    if not info.abilities.select:
        raise InvalidRequest(
            f"choices: {list(options)!r}: select needs the log-probabilities of given text, which "
            f"{info.model} does not tell",
            field="choices",
        )


def check_place(info: EngineInfo, open_role: str | None, *, has_text: bool) -> None:
    """Where a gen may stand: models that speak in messages answer with a whole one."""
    can = info.abilities
    if can.speaks != "messages":
        return
    if open_role != "assistant":
        place = "outside of any message" if open_role is None else f"in a {open_role} message"
        raise InvalidRequest(
            f"gen: {place}: {info.model} speaks in messages, so a gen must stand in a message of "
            "the assistant",
            field="role",
        )
    if has_text and not can.prefill:
        raise InvalidRequest(
            f"gen: {info.model} speaks in messages, so nothing may stand before a gen in its "
            "message; api speculative execution, @function(num_api_spec_tokens=...), allows it",
            field="role",
        )


def _check_options(model: str, sampling: SamplingParams, taken: Sequence[str]) -> None:
    for name, default in _DEFAULTS.items():
        value = getattr(sampling, name)
        if value != default and name not in taken:
            raise InvalidRequest(f"{name}: {value!r}: {model} takes no {name}", field=name)


_ARGUMENTS: Final = {"Regex": "regex", "JsonSchema": "json_schema"}
"""Kind of constraint -> the argument of gen that makes it, where there is one."""

_DEFAULTS: Final[dict[str, Any]] = {
    option.name: option.default
    for option in fields(SamplingParams)
    if option.name != "constraint" and option.default is not MISSING
}
