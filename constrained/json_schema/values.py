"""Reading values out of a schema, with the place in every message; knows no keyword."""

import json
import urllib.parse
from decimal import Decimal
from fractions import Fraction
from typing import Final, TypeVar

from ..errors import GrammarError

_T = TypeVar("_T")

MOST: Final = 10**9
"""What more is counted as: nobody waits for so many."""


def expect(value: object, kind: type[_T], at: str) -> _T:
    if not isinstance(value, kind):
        raise GrammarError(f"{at}: {brief(value)} is not of type {kind.__name__}")
    return value


def count(value: object, at: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int | float) or value < 0 or value % 1:
        raise GrammarError(f"{at}: {brief(value)} is not a count")
    return min(int(value), MOST)


def number(value: object, at: str) -> Decimal:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise GrammarError(f"{at}: {brief(value)} is not a number")
    return Decimal(repr(value))


def is_multiple(value: Decimal, of: Decimal) -> bool:
    """By fractions: decimals round, or refuse, where the digits are many."""
    return (Fraction(value) / Fraction(of)).denominator == 1


def escape(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1")


def fragment(reference: str, at: str) -> str:
    """A reference within the document ("#..."), its percent-encoded characters decoded."""
    try:
        return urllib.parse.unquote(reference, errors="strict")
    except UnicodeDecodeError as error:
        raise GrammarError(f"{at}: {brief(reference)} is not percent-encoded UTF-8") from error


def brief(value: object) -> str:
    text = json.dumps(value, default=repr)
    return text if len(text) <= 60 else text[:60] + "..."
