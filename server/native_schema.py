"""The native body (SGLang's `/generate`) as a record. Every field either works or is refused by its
name."""

from typing import Annotated, Any

from pydantic import PlainValidator

from ..runtime.protocol import Ids, Prompt, Text
from .body import Body
from .openai_schema import Refused, is_id, only


def _texts(value: Any) -> Any:
    texts = value if isinstance(value, list) else [value]
    if value is not None and (not texts or not all(isinstance(text, str) for text in texts)):
        raise ValueError("must be a text or a non-empty list of texts")
    return value


def _ids(value: Any) -> Any:
    rows = value if isinstance(value, list) else [None]
    if value is not None and (not rows or not (_are_ids(rows) or all(map(_are_ids, rows)))):
        raise ValueError("must be a non-empty list of token ids, or a list of such lists")
    return value


def _are_ids(row: Any) -> bool:
    return isinstance(row, list) and all(map(is_id, row))


def _parts(value: Any) -> Prompt | None:
    if value is None:
        return None
    if not isinstance(value, list) or not value:
        raise ValueError('must be a non-empty list of parts {"ids": [...]} or {"text": "..."}')
    return tuple(_part(index, part) for index, part in enumerate(value))


def _part(index: int, part: Any) -> Ids | Text:
    match part:
        case {"ids": list(ids), **rest} if not rest and all(is_id(item) for item in ids):
            return Ids(tuple(ids))
        case {"text": str(text), **rest} if rest.keys() <= {"special"}:
            if isinstance(special := rest.get("special", False), bool):
                return Text(text, special)
    raise ValueError(
        f'part {index} is neither {{"ids": [...]}} nor {{"text": "...", "special": false}}'
    )


def _rids(value: Any) -> Any:
    rids = value if isinstance(value, list) else [value]
    if value is not None and not all(isinstance(rid, str) and rid for rid in rids):
        raise ValueError("must be a non-empty text or a list of them")
    return value


def _sampling(value: Any) -> Any:
    rows = value if isinstance(value, list) else [value]
    if value is not None and not all(isinstance(row, dict) for row in rows):
        raise ValueError("must be an object or a list of objects")
    return value


NotAsked = Annotated[None, only(False)]


class GenerateBody(Body):
    """Exactly one of `text`, `input_ids` and `prompt` (token-exact parts: one prompt) is given."""

    text: Annotated[str | list[str] | None, PlainValidator(_texts)] = None
    input_ids: Annotated[list[int] | list[list[int]] | None, PlainValidator(_ids)] = None
    prompt: Annotated[Prompt | None, PlainValidator(_parts)] = None
    sampling_params: Annotated[dict[str, Any] | list[Any] | None, PlainValidator(_sampling)] = None
    rid: Annotated[str | list[str] | None, PlainValidator(_rids)] = None
    return_logprob: bool | None = None
    logprob_start_len: int | None = None
    top_logprobs_num: int | None = None
    return_text_in_logprobs: bool | None = None
    stream: bool | None = None
    heal: bool | None = None
    extra_key: str | None = None
    return_prompt_token_ids: bool | None = None

    input_embeds: Refused = None
    image_data: Annotated[None, only([])] = None
    video_data: Annotated[None, only([])] = None
    audio_data: Annotated[None, only([])] = None
    modalities: Annotated[None, only([])] = None
    lora_path: Refused = None
    session_id: Refused = None
    session_params: Refused = None
    token_ids_logprob: Refused = None
    custom_logit_processor: Refused = None
    return_hidden_states: NotAsked = None
    priority: Refused = None
