"""From the bytes of a request to a checked record, or to an error that names the field and quotes
the value.

Owns: the size limit, the content type, strict JSON (no NaN, no infinity, no name twice, no half
characters) and the wording of validation errors. Knows no endpoint.
"""

import json
import math
import re
from typing import Any, NoReturn, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from starlette.requests import Request

from ..runtime.errors import InvalidRequest
from .errors import BadBody, BodyTooLarge, WrongContentType

MAX_QUOTED = 80  # characters of a bad value that an error message repeats

Record = TypeVar("Record", bound="Body")


class Body(BaseModel):
    """A body, or a part of one: unknown fields are refused, and no value is converted ("1" is not
    1)."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


async def read_record(request: Request, record: type[Record], max_bytes: int) -> Record:
    """The request's body as `record`. Raises HttpError or InvalidRequest."""
    return checked(record, await read_json(request, max_bytes))


async def read_json(request: Request, max_bytes: int) -> Any:
    content_type = request.headers.get("content-type", "")
    if not re.match(r"application/([\w.-]+\+)?json\s*(;|$)", content_type, re.IGNORECASE):
        shown = repr(content_type) if content_type else "none"
        raise WrongContentType(f"Content-Type must be application/json, got {shown}")
    return parse_json(await _read_bytes(request, max_bytes))


async def _read_bytes(request: Request, max_bytes: int) -> bytes:
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > max_bytes:
        raise BodyTooLarge(f"the body has {declared} bytes, at most {max_bytes} are allowed")
    received = bytearray()
    async for piece in request.stream():
        received += piece
        if len(received) > max_bytes:
            raise BodyTooLarge(f"the body has more than the {max_bytes} bytes allowed")
    return bytes(received)


# --- JSON --------------------------------------------------------------------------------------


def parse_json(body: bytes) -> Any:
    """The JSON value in `body`. Raises BadBody, with the position or the field at fault."""
    try:
        text = body.decode("utf-8-sig")  # some editors put a byte order mark before it
    except UnicodeDecodeError as error:
        raise BadBody(f"the body is not UTF-8 (byte {error.start})") from None
    try:
        value = json.loads(
            text,
            parse_constant=_refuse_constant,
            parse_float=_finite,
            object_pairs_hook=_unique_names,
        )
    except json.JSONDecodeError as error:
        raise BadBody(f"the body is not JSON: {error}") from None
    except RecursionError:
        raise BadBody("the body is nested too deeply") from None
    except ValueError as error:  # an integer of thousands of digits
        raise BadBody(f"the body is not JSON: {error}") from None
    if "\\u" in text:
        _refuse_half_characters(value, ())
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise BadBody(f"{name} is not a number that JSON knows")


def _finite(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise BadBody(f"{quoted(digits)} is too large for a number")
    return value


def _unique_names(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    record = dict(pairs)
    if len(record) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise BadBody(f"{quoted(twice)} is given twice in one object", param=twice)
    return record


def _refuse_half_characters(value: Any, path: tuple[int | str, ...]) -> None:
    """An escape such as \\ud800 alone is half a character: no tokenizer takes it."""
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError as error:
            where = dotted(path) or "the body"
            raise BadBody(
                f"{where}: half a character (lone surrogate) at position {error.start}",
                param=dotted(path) or None,
            ) from None
    elif isinstance(value, list):
        for index, item in enumerate(value):
            _refuse_half_characters(item, (*path, index))
    elif isinstance(value, dict):
        for name, item in value.items():
            _refuse_half_characters(name, path)
            _refuse_half_characters(item, (*path, name))


# --- records -----------------------------------------------------------------------------------


def checked(record: type[Record], value: Any) -> Record:
    """`value` as `record`. Raises InvalidRequest that names the first field at fault and quotes
    what it held."""
    if not isinstance(value, dict):
        raise InvalidRequest(f"the body must be a JSON object, got {quoted(value)}")
    try:
        return record.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        path = dotted(first["loc"])
        raise InvalidRequest(f"{path or 'the body'}: {_complaint(first)}", field=path) from None


WANTED = {
    "string_type": "must be a text",
    "int_type": "must be an integer",
    "float_type": "must be a number",
    "bool_type": "must be true or false",
    "list_type": "must be a list",
    "dict_type": "must be an object",
    "model_type": "must be an object",
    "too_short": "must not be empty",
}


def _complaint(error: Any) -> str:
    match error["type"]:
        case kind if kind in WANTED:
            return f"{WANTED[kind]}, got {quoted(error['input'])}"
        case "missing":
            return "this field is required"
        case "extra_forbidden":
            return f"unknown field (value {quoted(error['input'])})"
        case "value_error":
            return f"{error['ctx']['error']}, got {quoted(error['input'])}"
        case _:
            message = error["msg"]
            return f"{message[0].lower()}{message[1:]}, got {quoted(error['input'])}"


def dotted(path: tuple[int | str, ...]) -> str:
    """("messages", 0, "content") as people write it: messages[0].content."""
    text = ""
    for step in path:
        if isinstance(step, str):
            step = step[:MAX_QUOTED]
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else step
    return text


def quoted(value: Any) -> str:
    """A value as JSON would write it, cut where it is long."""
    if isinstance(value, str):
        value = value[: MAX_QUOTED + 1]
    elif isinstance(value, list):
        value = value[: MAX_QUOTED // 2]
    text = json.dumps(value, ensure_ascii=True, default=repr)
    return text if len(text) <= MAX_QUOTED else f"{text[:MAX_QUOTED]}..."
