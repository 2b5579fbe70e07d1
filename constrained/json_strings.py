"""How strings are written in JSON, and the string formats we know; knows nothing of schemas."""

from typing import Final

from .code_points import Ranges, complement, intersection, normalize
from .nfa import Nfa

# Always escaped, in the short form; the remaining control characters are never generated.
_ESCAPED: Final = {
    0x22: b'\\"',
    0x5C: b"\\\\",
    8: b"\\b",
    9: b"\\t",
    10: b"\\n",
    12: b"\\f",
    13: b"\\r",
}
_RAW: Final[Ranges] = complement(normalize([(0, 0x1F), (0x22, 0x22), (0x5C, 0x5C), (0x7F, 0x9F)]))

ANY_CHARACTER: Final[Ranges] = normalize([*_RAW, *((code, code) for code in _ESCAPED)])
"""The characters that generated JSON strings may hold."""


def escaped_character(nfa: Nfa, ranges: Ranges, then: int) -> int:
    """One character of a set, as it is written between the quotes of a JSON string."""
    options = [nfa.character(intersection(ranges, _RAW), then)]
    for code, text in _ESCAPED.items():
        if intersection(ranges, ((code, code),)):
            options.append(nfa.text(text, then))
    return nfa.either(options)


_YEAR: Final = r"(000[1-9]|00[1-9][0-9]|0[1-9][0-9]{2}|[1-9][0-9]{3})"
_LEAP_YEAR: Final = r"([0-9]{2}(0[48]|[2468][048]|[13579][26])|(0[48]|[2468][048]|[13579][26])00)"
_DATE: Final = (
    rf"({_YEAR}-((0[13578]|1[02])-(0[1-9]|[12][0-9]|3[01])|(0[469]|11)-(0[1-9]|[12][0-9]|30)"
    rf"|02-(0[1-9]|1[0-9]|2[0-8]))|{_LEAP_YEAR}-02-29)"
)
_CLOCK: Final = r"([01][0-9]|2[0-3]):[0-5][0-9]"
_TIME: Final = rf"{_CLOCK}:[0-5][0-9](\.[0-9]{{1,6}})?(Z|[+-]{_CLOCK})"

FORMATS: Final = {
    "date": _DATE,
    "time": _TIME,
    "date-time": rf"{_DATE}T{_TIME}",
    "uuid": r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}",
}
"""Format name -> regex of the string's content (RFC 3339 and RFC 4122; characters without escapes).

outlines-core's `time` wants a backslash before the fraction, its dates include 30 February and its
times lack offsets, so these are our own.
"""
