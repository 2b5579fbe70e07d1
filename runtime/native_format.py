"""The native request and answer format: SGLang's sampling dict, its `meta_info`, its answers.

Owns: the names of that format and their translation. Shared by `Engine.generate`, the HTTP server
and `lang`, so that all three speak the same. Knows no transport and imports no torch.
"""

import difflib
import re
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from ..constrained.errors import GrammarError
from ..constrained.spec import (
    Choice,
    Constraint,
    Ebnf,
    JsonSchema,
    Lark,
    Regex,
    StructuralTag,
)
from .errors import InvalidRequest
from .protocol import Chunk, FinishReason, LogprobOptions, SamplingParams, TokenLogprob

# --- sampling parameters ----------------------------------------------------------------------


def _same(name: str, value: Any) -> Any:
    return value


def _texts(name: str, value: Any) -> tuple[Any, ...]:
    """One text or a sequence of them."""
    return (value,) if isinstance(value, str) else _items(name, value)


def _items(name: str, value: Any) -> tuple[Any, ...]:
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise InvalidRequest(f"{name}: {value!r} is not a list", field=name)
    return tuple(value)


def _bias(name: str, value: Any) -> tuple[tuple[int, float], ...]:
    """{"token id": bias}: JSON's keys are texts."""
    if not isinstance(value, Mapping):
        raise InvalidRequest(f"{name}: {value!r} is not an object of token ids", field=name)
    return tuple((_token_id(name, token), bias) for token, bias in value.items())


def _token_id(name: str, value: Any) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    try:
        return int(value, 10)
    except (TypeError, ValueError):
        raise InvalidRequest(f"{name}: {value!r} is not a token id", field=name) from None


_FIELDS: Final[dict[str, tuple[str, Callable[[str, Any], Any]]]] = {
    "max_new_tokens": ("max_tokens", _same),
    "min_new_tokens": ("min_tokens", _same),
    "n": ("n", _same),
    "stop": ("stop", _texts),
    "stop_token_ids": ("stop_token_ids", _items),
    "stop_regex": ("stop_regex", _texts),
    "temperature": ("temperature", _same),
    "top_p": ("top_p", _same),
    "top_k": ("top_k", _same),
    "min_p": ("min_p", _same),
    "frequency_penalty": ("frequency_penalty", _same),
    "presence_penalty": ("presence_penalty", _same),
    "repetition_penalty": ("repetition_penalty", _same),
    "ignore_eos": ("ignore_eos", _same),
    "skip_special_tokens": ("skip_special_tokens", _same),
    "no_stop_trim": ("no_stop_trim", _same),
    "logit_bias": ("logit_bias", _bias),
    "sampling_seed": ("seed", _same),
    "seed": ("seed", _same),
}
"""Name in the dict -> (name in SamplingParams, how its value is read)."""


def _regex(value: Any) -> Constraint:
    return Regex(value)


def _choice(value: Any) -> Constraint:
    return Choice(_items("choices", value))


_CONSTRAINTS: Final[dict[str, Callable[..., Constraint]]] = {
    "regex": _regex,
    "choices": _choice,
    "json_schema": JsonSchema.of,
    "ebnf": Ebnf,
    "lark": Lark,
    "structural_tag": StructuralTag.of,
}

JSON_OPTIONS: Final = {
    "json_whitespace": "whitespace",
    "json_key_order": "key_order",
    "json_integer_fraction": "integer_fraction",
    "json_open_objects": "open_objects",
}
"""Name in the dict, beside `json_schema` -> name in JsonSchema."""

# Named so that the answer can be clearer than "unknown"; null asks for nothing.
_UNSUPPORTED: Final = frozenset({"custom_params", "beam_width"})

# Tells slow tokenizers whether to put spaces around special tokens. Ours is fast and puts none
# where the tokens hold none, whatever this says; SGLang's programs always send it.
_WITHOUT_MEANING: Final = "spaces_between_special_tokens"


def sampling_from_dict(values: Mapping[str, Any]) -> SamplingParams:
    """SamplingParams from SGLang's names; null stands for the default.

    `stop` and `stop_regex` are a text or a list. At most one of `regex`, `choices`,
    `json_schema` (text or object; beside it the JSON_OPTIONS may stand), `ebnf`, `lark` and
    `structural_tag` (text or object). Raises InvalidRequest that names the key.
    """
    if not isinstance(values, Mapping):
        raise InvalidRequest(
            f"sampling_params: {values!r} is not an object", field="sampling_params"
        )
    given = {name: value for name, value in values.items() if value is not None}
    for name in values:
        _check_name(name, name in given)
    fields: dict[str, Any] = {}
    for name, value in given.items():
        if name in _FIELDS:
            target, read = _FIELDS[name]
            if target in fields:
                raise InvalidRequest(f"{name}: the seed is given twice", field=name)
            fields[target] = read(name, value)
    named = [name for name in _CONSTRAINTS if name in given]
    if len(named) > 1:
        raise InvalidRequest(
            f"{named[1]}: it cannot be used together with {named[0]}", field=named[1]
        )
    options = [name for name in JSON_OPTIONS if name in given]
    if options and named != ["json_schema"]:
        raise InvalidRequest(
            f"{options[0]}: it goes with json_schema, and with it alone", field=options[0]
        )
    for name in named:
        fields["constraint"] = _constraint(
            name, given[name], {option: given[option] for option in options}
        )
    try:
        return SamplingParams(**fields)
    except InvalidRequest as error:
        raise renamed(error, sampling_names(given)) from None


def sampling_names(values: Mapping[str, Any]) -> dict[str, str]:
    """Field of SamplingParams -> the key of this format that stands for it in `values`."""
    names = {"max_tokens": "max_new_tokens", "min_tokens": "min_new_tokens"}
    for name, (target, _) in _FIELDS.items():
        if values.get(name) is not None:
            names[target] = name
    for name in _CONSTRAINTS:
        if values.get(name) is not None:
            names["constraint"] = name
    return names


def renamed(error: InvalidRequest, names: Mapping[str, str]) -> InvalidRequest:
    """The error in the caller's words. `names`: our field -> the caller's key."""
    field = error.field
    if field is None:
        return error
    name, text = names.get(field, field), str(error)
    if field in ("max_tokens", "min_tokens"):  # they quote numbers alone, so the name is the field
        text = re.sub(r"(?<= )max_tokens\b", names.get("max_tokens", "max_tokens"), text)
    if text.startswith(f"{field}:"):
        text = name + text.removeprefix(field)
    return error if text == str(error) and name == field else InvalidRequest(text, field=name)


def _check_name(name: str, is_given: bool) -> None:
    if name in _FIELDS or name in _CONSTRAINTS or name in JSON_OPTIONS:
        return
    if name == _WITHOUT_MEANING:
        return
    if name in _UNSUPPORTED:
        if is_given:
            raise InvalidRequest(f"{name}: it is not supported", field=name)
        return
    near = difflib.get_close_matches(str(name), [*_FIELDS, *_CONSTRAINTS, *JSON_OPTIONS], n=1)
    hint = f"; did you mean {near[0]}?" if near else ""
    raise InvalidRequest(f"{name}: unknown sampling parameter{hint}", field=str(name))


def _constraint(name: str, value: Any, options: Mapping[str, Any]) -> Constraint:
    try:
        return _CONSTRAINTS[name](value, **{JSON_OPTIONS[key]: options[key] for key in options})
    except GrammarError as error:
        field = next((key for key in options if JSON_OPTIONS[key] in str(error)), name)
        raise InvalidRequest(f"{field}: {error}", field=field) from error


# --- answers ----------------------------------------------------------------------------------


class MetaInfo:
    """The `meta_info` of one sample, grown chunk by chunk.

    `logprobs`: what the request asked for; without it the log-probability keys are absent. Each is
    [logprob, token id, text], the text None unless `logprobs.text`.
    """

    def __init__(
        self, request_id: str, logprobs: LogprobOptions | None = None, started: float | None = None
    ) -> None:
        """`started`: by `time.perf_counter()`; now, if None."""
        self._request_id = request_id
        self._options = logprobs
        self._started = time.perf_counter() if started is None else started
        self._latency: float | None = None
        self._chunk: Chunk | None = None
        self._prompt: list[TokenLogprob] = []
        self._output: list[TokenLogprob] = []

    def add(self, chunk: Chunk) -> None:
        self._chunk = chunk
        self._prompt += chunk.prompt_logprobs or ()
        self._output += chunk.logprobs
        if chunk.finish is not None:
            self._latency = time.perf_counter() - self._started

    def as_dict(self) -> dict[str, Any]:
        """After the first chunk, at any time; `finish_reason` is None and `e2e_latency` (seconds)
        absent before the last."""
        assert self._chunk is not None, "no chunk was added"
        usage = self._chunk.usage
        info: dict[str, Any] = {
            "id": self._request_id,
            "finish_reason": _finish(self._chunk.finish, usage.completion_tokens),
            "prompt_tokens": usage.prompt_tokens,
            "completion_tokens": usage.completion_tokens,
            "cached_tokens": usage.cached_tokens,
            "forced_tokens": usage.forced_tokens,
            "num_retractions": usage.num_preemptions,
        }
        if self._latency is not None:
            info["e2e_latency"] = self._latency
        if self._options is not None:
            info |= self._logprob_keys(self._options)
        return info

    def _logprob_keys(self, options: LogprobOptions) -> dict[str, Any]:
        keys: dict[str, Any] = {
            "input_token_logprobs": [_entry(entry) for entry in self._prompt],
            "output_token_logprobs": [_entry(entry) for entry in self._output],
            "output_token_logprobs_length": len(self._output),
        }
        if options.top:
            keys["input_top_logprobs"] = [_top(entry) for entry in self._prompt]
            keys["output_top_logprobs"] = [_top(entry) for entry in self._output]
        return keys


def _finish(finish: FinishReason | None, num_tokens: int) -> dict[str, Any] | None:
    return None if finish is None else finish.as_dict(num_tokens)


def _entry(entry: TokenLogprob) -> list[Any]:
    return [entry.logprob, entry.token_id, _text(entry.piece)]


def _top(entry: TokenLogprob) -> list[list[Any]] | None:
    """None where there is no distribution: before a prompt's first token."""
    if entry.logprob is None:
        return None
    pieces = entry.top_pieces or (None,) * len(entry.top)
    return [
        [logprob, token, _text(piece)]
        for (token, logprob), piece in zip(entry.top, pieces, strict=True)
    ]


def _text(piece: bytes | None) -> str | None:
    return None if piece is None else piece.decode("utf-8", "replace")


class NativeAnswer:
    """One sample's answer, grown chunk by chunk: text, ids and `meta_info` from the start on."""

    def __init__(
        self, request_id: str, logprobs: LogprobOptions | None = None, started: float | None = None
    ) -> None:
        self._meta = MetaInfo(request_id, logprobs, started)
        self._texts: list[str] = []
        self._ids: list[int] = []

    def add(self, chunk: Chunk) -> None:
        self._texts.append(chunk.text)
        self._ids += chunk.token_ids
        self._meta.add(chunk)

    def as_dict(self) -> dict[str, Any]:
        self._texts = ["".join(self._texts)]
        return {
            "text": self._texts[0],
            "output_ids": list(self._ids),
            "meta_info": self._meta.as_dict(),
        }
