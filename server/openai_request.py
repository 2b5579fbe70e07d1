"""OpenAI's bodies to `GenerateRequest`s: pure translation, no IO.

Owns: OpenAI's defaults (they differ from the native ones) and the rule that one request has one
constraint.
"""

from typing import Any

from ..runtime.errors import InvalidRequest
from ..runtime.protocol import (
    Constraint,
    Ebnf,
    GenerateRequest,
    Ids,
    JsonSchema,
    Lark,
    LogprobOptions,
    Prompt,
    Regex,
    SamplingParams,
    StructuralTag,
    as_prompt,
)
from .generations import FieldNames, in_callers_words
from .openai_schema import ChatRequest, CompletionRequest, ResponseFormat, SamplingFields

RESPONSE_SCHEMA = "response_format.json_schema.schema"
COMPLETION_MAX_TOKENS = 16
"""OpenAI's default for completions. A chat's is whatever the context has left after the prompt."""


def sampling(body: SamplingFields, max_tokens: int | None) -> SamplingParams:
    """How to sample for `body`. Raises InvalidRequest that names the field out of range."""
    given = {
        "temperature": body.temperature,
        "top_p": body.top_p,
        "n": body.n,
        "seed": body.seed,
        "frequency_penalty": body.frequency_penalty,
        "presence_penalty": body.presence_penalty,
        "top_k": body.top_k,
        "min_p": body.min_p,
        "min_tokens": body.min_tokens,
        "repetition_penalty": body.repetition_penalty,
        "ignore_eos": body.ignore_eos,
        "no_stop_trim": body.no_stop_trim,
        "skip_special_tokens": body.skip_special_tokens,
    }
    return SamplingParams(
        max_tokens=max_tokens,
        stop=tuple(body.stop or ()),
        stop_token_ids=tuple(body.stop_token_ids or ()),
        stop_regex=tuple(body.stop_regex or ()),
        logit_bias=tuple((int(token), bias) for token, bias in (body.logit_bias or {}).items()),
        constraint=constraint(body),
        **{name: value for name, value in given.items() if value is not None},  # type: ignore[arg-type]
    )


def constraint(body: SamplingFields) -> Constraint | None:
    """The one constraint that `body` asks for, if any."""
    found = _constraints(body)
    if len(found) > 1:
        names = " and ".join(found)
        raise InvalidRequest(f"{names}: only one constraint can hold", field=list(found)[1])
    return next(iter(found.values()), None)


def _constraints(body: SamplingFields) -> dict[str, Constraint]:
    """By the field that asks for it."""
    found: dict[str, Constraint] = {}
    if body.regex is not None:
        found["regex"] = Regex(body.regex)
    if body.json_schema is not None:
        found["json_schema"] = _schema("json_schema", body.json_schema)
    if body.ebnf is not None:
        found["ebnf"] = Ebnf(body.ebnf)
    if body.lark is not None:
        found["lark"] = Lark(body.lark)
    wanted = body.response_format
    if wanted is not None:
        if (wanted.type == "json_schema") != (wanted.json_schema is not None):
            raise InvalidRequest(
                'response_format.json_schema: belongs to type "json_schema", and to it alone',
                field="response_format.json_schema",
            )
        if wanted.type == "json_object":
            found["response_format.type"] = JsonSchema.of({"type": "object"})
        found |= _structural_tag(wanted)
        if wanted.json_schema is not None:
            found[RESPONSE_SCHEMA] = _schema(RESPONSE_SCHEMA, wanted.json_schema.schema_)
    return found


def _structural_tag(wanted: ResponseFormat) -> dict[str, Constraint]:
    names = ("structures", "triggers", "format")
    given = {name: value for name in names if (value := getattr(wanted, name)) is not None}
    if wanted.type != "structural_tag":
        if given:
            field = f"response_format.{next(iter(given))}"
            raise InvalidRequest(f'{field}: belongs to type "structural_tag"', field=field)
        return {}
    try:
        tag = StructuralTag.of({"type": "structural_tag", **given})
        tag.check()
    except ValueError as error:
        raise InvalidRequest(f"response_format: {error}", field="response_format") from None
    return {"response_format": tag}


def field_names(body: SamplingFields) -> FieldNames:
    """What this body calls the runtime's fields."""
    names = {}
    if isinstance(body, ChatRequest):
        names["prompt"] = "messages"
        is_old = body.max_tokens is not None and body.max_completion_tokens is None
        names["max_tokens"] = "max_tokens" if is_old else "max_completion_tokens"
    own = [
        name for name in ("regex", "json_schema", "ebnf", "lark") if getattr(body, name) is not None
    ]
    wanted = body.response_format
    if own:
        names["constraint"] = own[0]
    elif wanted is not None and wanted.type != "json_schema":
        names["constraint"] = "response_format"
    else:
        names["constraint"] = RESPONSE_SCHEMA
    return names


def _schema(field: str, schema: object) -> JsonSchema:
    try:
        return JsonSchema.of(schema)  # type: ignore[arg-type]
    except ValueError as error:
        raise InvalidRequest(f"{field}: {error}", field=field) from None


def check_stream_options(body: SamplingFields) -> bool:
    """Whether the stream ends with its usage."""
    if body.stream_options is not None and not body.stream:
        raise InvalidRequest("stream_options: needs stream true", field="stream_options")
    return bool(body.stream_options and body.stream_options.include_usage)


# --- chat --------------------------------------------------------------------------------------


def chat_max_tokens(body: ChatRequest) -> int | None:
    """The limit that the caller set; None: whatever the context has left."""
    old, new = body.max_tokens, body.max_completion_tokens
    if old is not None and new is not None and old != new:
        raise InvalidRequest(
            f"max_tokens and max_completion_tokens: they are one limit, got {old} and {new}",
            field="max_tokens",
        )
    return old if new is None else new


def chat_template_switches(body: ChatRequest) -> tuple[bool, bool]:
    """(add_generation_prompt, continue_final_message)."""
    if not body.continue_final_message:
        return body.add_generation_prompt is not False, False
    if body.add_generation_prompt:
        raise InvalidRequest(
            "add_generation_prompt: true begins a new message, which "
            "continue_final_message forbids",
            field="add_generation_prompt",
        )
    if body.messages[-1].role != "assistant":
        raise InvalidRequest(
            "continue_final_message: the last message must be the assistant's",
            field="continue_final_message",
        )
    return False, True


RESERVED = ("messages", "add_generation_prompt", "continue_final_message")


def chat_template_kwargs(body: ChatRequest) -> dict[str, Any]:
    """Further variables of the template. What they hold counts as the template's own text."""
    given = body.chat_template_kwargs or {}
    for name in RESERVED:
        if name in given:
            raise InvalidRequest(
                f"chat_template_kwargs.{name}: set by the request's own field {name}",
                field=f"chat_template_kwargs.{name}",
            )
    return given


def chat_logprobs(body: ChatRequest) -> LogprobOptions | None:
    if not body.logprobs:
        if body.top_logprobs is not None:
            raise InvalidRequest("top_logprobs: needs logprobs true", field="top_logprobs")
        return None
    return LogprobOptions(top=body.top_logprobs or 0, text=True)


def chat_request(body: ChatRequest, prompt: Prompt, request_id: str) -> GenerateRequest:
    max_tokens = chat_max_tokens(body)
    with in_callers_words(field_names(body)):
        how = sampling(body, max_tokens)
    return GenerateRequest(
        prompt,
        how,
        chat_logprobs(body),
        namespace=body.cache_salt or "",
        request_id=request_id,
    )


# --- completions -------------------------------------------------------------------------------


def completion_requests(body: CompletionRequest, answer_id: str) -> list[GenerateRequest]:
    """One request per prompt; a text prompt's special tokens are parsed, as a tokenizer does."""
    limit = COMPLETION_MAX_TOKENS if body.max_tokens is None else body.max_tokens
    how = sampling(body, limit)
    return [
        GenerateRequest(
            as_prompt(prompt) if isinstance(prompt, str) else (Ids(prompt),),
            how,
            _completion_logprobs(body, prompt),
            namespace=body.cache_salt or "",
            request_id=f"{answer_id}-{index}",
        )
        for index, prompt in enumerate(body.prompt)
    ]


def _completion_logprobs(
    body: CompletionRequest, prompt: str | tuple[int, ...]
) -> LogprobOptions | None:
    """Ids that are to be echoed are spelled by way of their log-probabilities."""
    spelled = body.echo and not isinstance(prompt, str)
    if body.logprobs is None and not spelled:
        return None
    return LogprobOptions(start=0 if body.echo else -1, top=body.logprobs or 0, text=True)
