"""OpenAI's bodies as records. Every field either works or is refused by its name; none is accepted
and ignored.

Owns: names, types and the shapes that one field may take ("stop" is a text or a list). Ranges are
the runtime's (`SamplingParams` checks them), so that every way in refuses the same values.
"""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, PlainValidator

from .body import Body, quoted

MAX_PROMPTS = 1024  # prompts of one body
MAX_TOP_LOGPROBS = 20


def one_or_many(value: Any) -> Any:
    """A single text stands for a list of one."""
    return [value] if isinstance(value, str) else value


def only(*neutral: object) -> PlainValidator:
    """A known field that this server does not honour: absent, null or a value that asks for nothing
    new."""

    def check(value: Any) -> None:
        if value is not None and value not in neutral:
            raise ValueError("not supported by this server")

    return PlainValidator(check)


Refused = Annotated[None, only()]
Strings = Annotated[list[str], BeforeValidator(one_or_many)]


def _token_ids(value: dict[str, float]) -> dict[str, float]:
    for name in value:
        if not (name.isascii() and name.isdecimal() and len(name) < 20):
            raise ValueError(f"{quoted(name)} is not a token id")
    return value


class StreamOptions(Body):
    include_usage: bool | None = None
    include_obfuscation: Annotated[None, only(False)] = None


def _schema(value: Any) -> Any:
    if not isinstance(value, dict | bool):
        raise ValueError("must be an object or a boolean")
    return value


def _schema_or_text(value: Any) -> Any:
    if value is not None and not isinstance(value, dict | str):
        raise ValueError("must be a JSON schema, as an object or as its text")
    return value


class NamedSchema(Body):
    """`strict` false is honoured as true: the output always follows the schema."""

    schema_: Annotated[Any, PlainValidator(_schema)] = Field(alias="schema")
    name: str | None = None
    description: str | None = None
    strict: bool | None = None


class ResponseFormat(Body):
    """`structures` and `triggers`, or `format`: of a structural tag."""

    type: Literal["text", "json_object", "json_schema", "structural_tag"]
    json_schema: NamedSchema | None = None
    structures: list[Any] | None = None
    triggers: list[Any] | None = None
    format: dict[str, Any] | None = None


class SamplingFields(Body):
    """What chat and completions share. OpenAI's own fields first, then those that Sapwood adds."""

    model: str | None = None  # absent: the one that is served
    temperature: float | None = None
    top_p: float | None = None
    n: int | None = None
    max_tokens: int | None = None
    stop: Strings | None = None
    seed: int | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    logit_bias: Annotated[dict[str, float], AfterValidator(_token_ids)] | None = None
    response_format: ResponseFormat | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    user: str | None = None  # names the caller's own user; changes nothing, at OpenAI neither

    top_k: int | None = None
    min_p: float | None = None
    min_tokens: int | None = None
    repetition_penalty: float | None = None
    ignore_eos: bool | None = None
    stop_token_ids: list[int] | None = None
    stop_regex: Strings | None = None
    no_stop_trim: bool | None = None
    skip_special_tokens: bool | None = None
    regex: str | None = None
    json_schema: Annotated[Any, AfterValidator(_schema_or_text)] = None
    ebnf: str | None = None
    lark: str | None = None
    cache_salt: str | None = None

    metadata: Refused = None
    store: Annotated[None, only(False)] = None
    service_tier: Annotated[None, only("auto", "default")] = None


# --- chat --------------------------------------------------------------------------------------


class TextPart(Body):
    type: Annotated[
        Literal["text"],
        BeforeValidator(lambda kind: _supported(kind, ("text",), "only text parts are")),
    ]
    text: str


def _supported(value: Any, known: Sequence[str], hint: str) -> Any:
    if value not in known:
        raise ValueError(f"not supported by this server, {hint}")
    return value


def _as_parts(value: Any) -> Any:
    if isinstance(value, str):
        return [{"type": "text", "text": value}]
    if not isinstance(value, list):
        raise ValueError("must be a text or a list of text parts")
    return value


ROLES = ("system", "user", "assistant")


class Message(Body):
    role: Annotated[
        Literal["system", "user", "assistant"],
        BeforeValidator(lambda role: _supported(role, ROLES, f"the roles are {', '.join(ROLES)}")),
    ]
    content: Annotated[list[TextPart], BeforeValidator(_as_parts)]

    # What a reply holds when it is sent back as it came.
    name: Refused = None
    refusal: Refused = None
    audio: Refused = None
    function_call: Refused = None
    reasoning_content: Refused = None
    tool_calls: Annotated[None, only([])] = None
    annotations: Annotated[None, only([])] = None

    @property
    def text(self) -> str:
        return "".join(part.text for part in self.content)


class ChatRequest(SamplingFields):
    messages: list[Message] = Field(min_length=1)
    max_completion_tokens: int | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = Field(default=None, ge=0, le=MAX_TOP_LOGPROBS)

    continue_final_message: bool = False
    add_generation_prompt: bool | None = None
    chat_template_kwargs: dict[str, Any] | None = None

    tools: Annotated[None, only([])] = None
    tool_choice: Annotated[None, only("none")] = None
    parallel_tool_calls: Refused = None
    functions: Annotated[None, only([])] = None
    function_call: Annotated[None, only("none")] = None
    modalities: Annotated[None, only(["text"])] = None
    audio: Refused = None
    prediction: Refused = None
    reasoning_effort: Refused = None
    verbosity: Refused = None
    web_search_options: Refused = None


# --- completions -------------------------------------------------------------------------------


def is_id(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def prompts(value: Any) -> tuple[str | tuple[int, ...], ...]:
    """A prompt is a text or token ids; a body holds one or a list of them."""
    if isinstance(value, str):
        return (value,)
    if not isinstance(value, list) or not value:
        raise ValueError("must be a text, token ids, or a non-empty list of either")
    if all(is_id(item) for item in value):
        return (tuple(value),)
    if len(value) > MAX_PROMPTS:
        raise ValueError(f"{len(value)} prompts, at most {MAX_PROMPTS} are allowed")
    return tuple(_prompt(index, item) for index, item in enumerate(value))


def _prompt(index: int, item: Any) -> str | tuple[int, ...]:
    if isinstance(item, str):
        return item
    if isinstance(item, list) and all(is_id(token) for token in item):
        return tuple(item)
    raise ValueError(f"item {index} is neither a text nor a list of token ids")


class CompletionRequest(SamplingFields):
    prompt: Annotated[tuple[str | tuple[int, ...], ...], PlainValidator(prompts)]
    echo: bool = False
    logprobs: int | None = Field(default=None, ge=0, le=MAX_TOP_LOGPROBS)

    suffix: Annotated[None, only("")] = None
    best_of: Annotated[None, only(1)] = None
