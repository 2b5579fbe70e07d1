"""Formats as the corpus means them, for jsonschema to check with no further packages.

Owns: a `FormatChecker`: jsonschema's own checks where it has them, and small patterns for the
formats that it would need other packages for. They need not be complete, only right about the
documents here.
"""

import re
from datetime import date
from typing import Final

from jsonschema import FormatChecker

_TIME: Final = r"([01]\d|2[0-3]):[0-5]\d:([0-5]\d|60)(\.\d+)?(Z|[+-]([01]\d|2[0-3]):[0-5]\d)"
_LABEL: Final = r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_URI_CHARACTERS: Final = r"([A-Za-z0-9\-._~:/?#\[\]@!$&'()*+,;=]|%[0-9A-Fa-f]{2})*"
_PATTERNS: Final = {
    "time": _TIME,
    "duration": r"P(?=[\dT])(\d+Y)?(\d+M)?(\d+D)?(T(?=\d)(\d+H)?(\d+M)?(\d+S)?)?|P\d+W",
    "hostname": rf"(?=.{{1,253}}$){_LABEL}(\.{_LABEL})*",
    "uri": rf"[A-Za-z][A-Za-z0-9+.-]*:{_URI_CHARACTERS}",
    "uri-reference": _URI_CHARACTERS,
    "json-pointer": r"(/([^~/]|~[01])*)*",
    "relative-json-pointer": r"(0|[1-9]\d*)(#|(/([^~/]|~[01])*)*)",
}


def format_checker() -> FormatChecker:
    checker = FormatChecker()
    for name, pattern in _PATTERNS.items():
        checker.checks(name)(lambda text, p=pattern: _matches(p, text))
    checker.checks("date-time")(_is_date_time)
    return checker


def _matches(pattern: str, text: object) -> bool:
    return not isinstance(text, str) or re.fullmatch(pattern, text, re.ASCII) is not None


def _is_date_time(text: object) -> bool:
    if not isinstance(text, str):
        return True
    day, _, clock = text.partition("T")
    try:
        date.fromisoformat(day)
    except ValueError:
        return False
    return len(day) == 10 and _matches(_TIME, clock)
