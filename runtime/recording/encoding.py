"""The protocol's records as JSON values, and back.

Owns: that form. A record is an object whose "is" names its class; fields at their default are left
out, so that a file stays readable and an old one is still read when a field is added.
"""

import base64
from collections.abc import Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from typing import Any, Final

from .. import errors, protocol
from ..errors import EngineError, InvalidRequest, SapwoodError
from ..protocol import FinishKind, FinishReason

_RECORDS: Final[dict[str, type]] = {
    name: value
    for name, value in vars(protocol).items()
    if is_dataclass(value) and isinstance(value, type)
}
_KIND: Final = "is"


def encode(value: Any) -> Any:
    """A record, or what its fields hold, as a JSON value. TypeError for anything else."""
    if is_dataclass(value) and not isinstance(value, type):
        name = type(value).__name__
        if _RECORDS.get(name) is not type(value):
            raise TypeError(f"{name} is not kept in recordings")
        given = {one.name: getattr(value, one.name) for one in fields(value)}
        kept = {one.name for one in fields(value) if given[one.name] != _default(one)}
        return {_KIND: name} | {key: encode(given[key]) for key in given if key in kept}
    if isinstance(value, tuple | list):
        return [encode(item) for item in value]
    if isinstance(value, Mapping):
        return {str(key): encode(item) for key, item in value.items()}
    if isinstance(value, bytes):
        return {_KIND: "bytes", "base64": base64.b64encode(value).decode()}
    if value is None or isinstance(value, str | int | float):
        return value
    raise TypeError(f"{type(value).__name__} is not kept in recordings")


def decode(value: Any) -> Any:
    """The record that `encode` made this of. ValueError where it is none."""
    if isinstance(value, list):
        return tuple(map(decode, value))
    if not isinstance(value, dict):
        return value
    name = value.get(_KIND)
    if name is None:
        return {key: decode(item) for key, item in value.items()}
    if name == "bytes":
        return base64.b64decode(value["base64"])
    record = _RECORDS.get(name)
    if record is None:
        raise ValueError(f"{name!r} is no record that this version knows")
    given = {key: decode(item) for key, item in value.items() if key != _KIND}
    if record is FinishReason:
        given["kind"] = FinishKind(given["kind"])
    return record(**given)


def _default(of: "Field[Any]") -> Any:
    if of.default_factory is not MISSING:
        return of.default_factory()
    return of.default


def encode_error(error: BaseException) -> dict[str, Any]:
    field = {"field": error.field} if isinstance(error, InvalidRequest) and error.field else {}
    return {"type": type(error).__name__, "message": str(error), **field}


def decode_error(value: Mapping[str, Any]) -> SapwoodError:
    """An error of the runtime's own kinds; any other becomes an EngineError that names it."""
    kind = getattr(errors, value["type"], None)
    if kind is InvalidRequest:
        return InvalidRequest(value["message"], field=value.get("field"))
    if isinstance(kind, type) and issubclass(kind, SapwoodError):
        return kind(value["message"])
    return EngineError(f"{value['type']}: {value['message']}")
