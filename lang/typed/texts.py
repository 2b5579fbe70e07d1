"""How single values are written, as regexes: each text that matches is read back as a value.

Owns: dates, times, durations, UUIDs and decimals. Written so that Python's `re`, ECMA 262 and Rust
understand the same by them: ASCII classes, no anchors. Knows nothing of types and schemas.
"""

import datetime
from collections.abc import Iterable
from typing import Final, Literal

Zone = Literal["aware", "naive"] | None
"""Whether a time must, or must not, say its offset from UTC; None: as it likes."""

ANY_TEXT: Final = r"(?:[^\n]|\n)*"
# All that Python or Unicode calls a blank.
_BLANKS: Final = r"\t-\r\x1c- \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000\ufeff"
STRIPPED: Final = rf"(?:[^{_BLANKS}](?:{ANY_TEXT}[^{_BLANKS}])?)?"

INTEGER: Final = "(?:0|-?[1-9][0-9]*)"

_YEAR: Final = "(?:000[1-9]|00[1-9][0-9]|0[1-9][0-9]{2}|[1-9][0-9]{3})"
_LEAP_YEAR: Final = (
    "(?:[0-9]{2}(?:0[48]|[2468][048]|[13579][26])|(?:0[48]|[2468][048]|[13579][26])00)"
)
DATE: Final = (
    f"(?:{_YEAR}-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])"
    "|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)|02-(?:0[1-9]|1[0-9]|2[0-8]))"
    f"|{_LEAP_YEAR}-02-29)"
)
_CLOCK: Final = "(?:[01][0-9]|2[0-3]):[0-5][0-9]"
_OFFSET: Final = {"aware": f"(?:Z|[+-]{_CLOCK})", "naive": "", None: f"(?:Z|[+-]{_CLOCK})?"}

_SECONDS: Final = r"[0-9]{1,6}(?:\.[0-9]{1,6})?S"
_MINUTES: Final = f"[0-9]{{1,6}}M(?:{_SECONDS})?"
_TIMES: Final = f"T(?:[0-9]{{1,6}}H(?:{_MINUTES}|{_SECONDS})?|{_MINUTES}|{_SECONDS})"
_DAYS: Final = "(?:[0-9]{1,6}Y(?:[0-9]{1,8}D)?|[0-9]{1,8}D)"
DURATION: Final = f"-?P(?:{_DAYS}(?:{_TIMES})?|{_TIMES})"
"""ISO 8601 in years of 365 days, days, hours, minutes and seconds; years stay below 10**6."""


def time(zone: Zone) -> str:
    return rf"{_CLOCK}:[0-5][0-9](?:\.[0-9]{{1,6}})?{_OFFSET[zone]}"


def date_time(zone: Zone) -> str:
    return f"{DATE}T{time(zone)}"


def uuid(version: int | None) -> str:
    """`version` None: any 128 bits."""
    if version is None:
        return "[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
    return f"[0-9a-f]{{8}}-[0-9a-f]{{4}}-{version}[0-9a-f]{{3}}-[89ab][0-9a-f]{{3}}-[0-9a-f]{{12}}"


def decimal(digits: int | None, places: int | None) -> str:
    """At most so many digits, and so many after the point; no exponent, no leading zeros."""
    if digits is None:
        return rf"-?(?:0|[1-9][0-9]*){_fraction(places)}"
    most = digits if places is None else min(places, digits)
    options = ["0" + _fraction(most)]
    for whole in range(1, digits - (places or 0) + 1):
        room = min(most, digits - whole)
        options.append(f"[1-9][0-9]{{{whole - 1}}}{_fraction(room)}")
    return f"-?(?:{'|'.join(options)})"


def _fraction(places: int | None) -> str:
    if places is None:
        return r"(?:\.[0-9]+)?"
    return rf"(?:\.[0-9]{{1,{places}}})?" if places else ""


def dates_between(first: datetime.date, last: datetime.date) -> str:
    """Dates in their order, which is that of their texts; not each one exists."""
    return between(first.isoformat(), last.isoformat())


def between(low: str, high: str) -> str:
    """Texts of one length from `low` to `high`, which have digits, or the same sign, everywhere."""
    if not low:
        return ""
    if low[0] == high[0]:
        return low[0] + between(low[1:], high[1:])
    zeros, nines = _filled(low[1:], "0"), _filled(low[1:], "9")
    first, last = int(low[0]), int(high[0])
    options = []
    if low[1:] != zeros:
        options.append(low[0] + between(low[1:], nines))
        first += 1
    if high[1:] != nines:
        options.append(high[0] + between(zeros, high[1:]))
        last -= 1
    if first <= last:
        options.append(f"[{first}-{last}]" + between(zeros, nines))
    return one_of(options)


def _filled(text: str, digit: str) -> str:
    return "".join(digit if char.isdigit() else char for char in text)


def one_of(patterns: Iterable[str]) -> str:
    return f"(?:{'|'.join(patterns)})"
