"""Reading values out of a schema, with the place in every message; knows no keyword."""

import json
from decimal import Decimal
from typing import Final, TypeVar

from .errors import GrammarError
from .json_shape import JsonType

_T = TypeVar("_T")


def types_of(value: object) -> frozenset[JsonType]:
    if isinstance(value, bool):
        return frozenset(("boolean",))
    if isinstance(value, int) or (isinstance(value, float) and value.is_integer()):
        return frozenset(("integer", "number"))
    for python, kind in _PYTHON_TYPES:
        if isinstance(value, python):
            return frozenset((kind,))
    raise AssertionError(value)


_PYTHON_TYPES: Final[tuple[tuple[type, JsonType], ...]] = (
    (float, "number"),
    (str, "string"),
    (list, "array"),
    (dict, "object"),
    (type(None), "null"),
)


def expect(value: object, kind: type[_T], at: str) -> _T:
    if not isinstance(value, kind):
        raise GrammarError(f"{at}: {brief(value)} is not of type {kind.__name__}")
    return value


def count(value: object, at: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int | float) or value < 0 or value % 1:
        raise GrammarError(f"{at}: {brief(value)} is not a count")
    return int(value)


def number(value: object, at: str) -> Decimal:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise GrammarError(f"{at}: {brief(value)} is not a number")
    return Decimal(repr(value))


def escape(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1")


def brief(value: object) -> str:
    text = json.dumps(value, default=repr)
    return text if len(text) <= 60 else text[:60] + "..."
