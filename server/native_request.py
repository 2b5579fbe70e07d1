"""The native body to `GenerateRequest`s: pure translation, no IO."""

import secrets
from dataclasses import dataclass
from typing import Any

from ..runtime.errors import InvalidRequest
from ..runtime.native_format import sampling_from_dict, sampling_names
from ..runtime.protocol import (
    GenerateRequest,
    Ids,
    LogprobOptions,
    Prompt,
    as_prompt,
)
from .generations import FieldNames
from .native_schema import GenerateBody
from .openai_schema import MAX_PROMPTS


@dataclass(frozen=True)
class Generate:
    """What a body asks for. `as_list`: the answer is a list, since the prompt was one or n > 1.
    `names`: what the body calls each request's fields."""

    requests: list[GenerateRequest]
    names: list[FieldNames]
    as_list: bool
    stream: bool
    with_prompt_ids: bool


def generate(body: GenerateBody) -> Generate:
    """Raises InvalidRequest that names the field at fault."""
    prompts, as_list = _prompts(body)
    params = _sampling(body.sampling_params or {}, len(prompts))
    sampling = [sampling_from_dict(one) for one in params]
    rids = _rids(body.rid, len(prompts), as_list)
    requests = [
        GenerateRequest(
            prompt,
            how,
            _logprobs(body),
            namespace=body.extra_key or "",
            request_id=rid,
            heal=bool(body.heal),
        )
        for prompt, how, rid in zip(prompts, sampling, rids, strict=True)
    ]
    return Generate(
        requests,
        [{"prompt": _given(body)[0]} | sampling_names(one) for one in params],
        as_list=as_list or any(how.n > 1 for how in sampling),
        stream=bool(body.stream),
        with_prompt_ids=bool(body.return_prompt_token_ids),
    )


def _prompts(body: GenerateBody) -> tuple[list[Prompt], bool]:
    names = _given(body)
    if len(names) != 1:
        found = " and ".join(names) or "none"
        raise InvalidRequest(
            f"text: exactly one of text, input_ids and prompt must be given, got {found}",
            field=names[1] if names else "text",
        )
    if body.prompt is not None:
        return [body.prompt], False
    value: Any = getattr(body, names[0])
    if isinstance(value, str):
        return [as_prompt(value)], False
    if len(value) == 0 or isinstance(value[0], int):
        return [(Ids(tuple(value)),)], False
    if len(value) > MAX_PROMPTS:
        raise InvalidRequest(
            f"{names[0]}: {len(value)} prompts, at most {MAX_PROMPTS} are allowed",
            field=names[0],
        )
    if isinstance(value[0], str):
        return [as_prompt(text) for text in value], True
    return [(Ids(tuple(ids)),) for ids in value], True


def _given(body: GenerateBody) -> list[str]:
    """Under which names a prompt came."""
    return [name for name in ("text", "input_ids", "prompt") if getattr(body, name) is not None]


def _sampling(value: dict[str, Any] | list[Any], num_prompts: int) -> list[dict[str, Any]]:
    if isinstance(value, dict):
        return [value] * num_prompts
    if len(value) != num_prompts:
        raise InvalidRequest(
            f"sampling_params: {len(value)} objects for {num_prompts} prompts",
            field="sampling_params",
        )
    return value


def _rids(value: str | list[str] | None, num_prompts: int, as_list: bool) -> list[str]:
    if value is None:
        return [secrets.token_hex(16) for _ in range(num_prompts)]
    if isinstance(value, str):
        return [f"{value}_{index}" for index in range(num_prompts)] if as_list else [value]
    if len(value) != num_prompts:
        raise InvalidRequest(f"rid: {len(value)} ids for {num_prompts} prompts", field="rid")
    if len(set(value)) < len(value):
        raise InvalidRequest("rid: the same id is given twice", field="rid")
    return value


def _logprobs(body: GenerateBody) -> LogprobOptions | None:
    start, top = body.logprob_start_len, body.top_logprobs_num
    if body.return_logprob:
        text = bool(body.return_text_in_logprobs)
        return LogprobOptions(-1 if start is None else start, top or 0, text)
    for name, unset, value in (
        ("logprob_start_len", (None, -1), start),
        ("top_logprobs_num", (None, 0), top),
        ("return_text_in_logprobs", (None, False), body.return_text_in_logprobs),
    ):
        if value not in unset:
            raise InvalidRequest(f"{name}: needs return_logprob true", field=name)
    return None
