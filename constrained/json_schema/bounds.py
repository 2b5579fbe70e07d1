"""Numbers between bounds, as regexes of their decimal text; knows nothing of schemas.

Bounded numbers are written without an exponent and with few enough digits that the double nearest
to the text is on the same side of each bound as the text itself.
"""

from decimal import Decimal
from typing import Final

from ..errors import Unsupported

Bound = tuple[Decimal, bool]
"""A limit and whether it is excluded."""

_MOST_DIGITS: Final = 15
_FRACTION_DIGITS: Final = 6
_NEVER: Final = "(?!)"


def bounded_integer(low: Bound | None, high: Bound | None) -> str:
    """The integers within the bounds; raises Unsupported where there are none."""
    least = None if low is None else _first_integer_above(low)
    most = None if high is None else -_first_integer_above((-high[0], high[1]))
    if least is not None and most is not None and least > most:
        raise Unsupported("no integer lies within the bounds")
    options: list[str] = []
    if least is None or least < 0:
        start = 1 if most is None or most >= 0 else -most
        options.append("-" + _naturals(start, None if least is None else -least))
    if most is None or most >= 0:
        options.append(_naturals(max(least or 0, 0), most))
    return _any(options)


def _first_integer_above(bound: Bound) -> int:
    value, excluded = bound
    rounded = int(value.to_integral_value("ROUND_CEILING"))
    return rounded + 1 if excluded and rounded == value else rounded


def _naturals(low: int, high: int | None) -> str:
    """`low` to `high` (None: without end), with no leading zero."""
    if high is None:
        digits = len(str(low))
        longer = f"[1-9][0-9]{{{digits},}}"
        return _any([_naturals(low, 10**digits - 1), longer])
    options: list[str] = []
    while low <= high:
        top = min(high, 10 ** len(str(low)) - 1)
        options.append(_same_length(str(low), str(top)))
        low = top + 1
    return _any(options)


def _same_length(low: str, high: str) -> str:
    """Digit strings from `low` to `high`, which have the same length."""
    if not low:
        return ""
    if low[0] == high[0]:
        return low[0] + _same_length(low[1:], high[1:])
    rest = len(low) - 1
    first, last = int(low[0]), int(high[0])
    options: list[str] = []
    if low[1:] != "0" * rest:
        options.append(low[0] + _same_length(low[1:], "9" * rest))
        first += 1
    if high[1:] != "9" * rest:
        options.append(high[0] + _same_length("0" * rest, high[1:]))
        last -= 1
    if first <= last:
        options.append(f"[{first}-{last}]" + (f"[0-9]{{{rest}}}" if rest else ""))
    return _any(options)


def bounded_number(low: Bound | None, high: Bound | None) -> str:
    """The decimals within the bounds; raises Unsupported where none can be written."""
    options: list[str] = []
    if low is None or low[0] < 0:
        mirrored = None if low is None else (-low[0], low[1])
        least = (Decimal(0), True) if high is None or high[0] >= 0 else (-high[0], high[1])
        options.append("-" + _magnitudes(least, mirrored))
    if high is None or high[0] >= 0:
        least = low if low is not None and low[0] >= 0 else (Decimal(0), False)
        options.append(_magnitudes(least, high))
    options = [option for option in options if _NEVER not in option]
    if not options:
        raise Unsupported("no number of a few digits lies within the bounds")
    return _any(options)


def _magnitudes(low: Bound, high: Bound | None) -> str:
    """Decimals from `low` >= 0 to `high`: by whole part, then by fraction."""
    width = max(_FRACTION_DIGITS, _fraction_length(low), _fraction_length(high))
    whole, part = _split(low, width)
    top, top_part = (whole, "") if high is None else _split(high, width)
    if len(str(top)) + width > _MOST_DIGITS:
        # So near to what a double can tell apart only whole numbers are written.
        if max(_fraction_length(low), _fraction_length(high)) > 0:
            raise Unsupported(f"bounds of more than {_MOST_DIGITS} digits are not supported")
        first = whole + (low[1] and int(part) == 0)
        last = None if high is None else top - (high[1] and int(top_part) == 0)
        return _NEVER if last is not None and first > last else _naturals(first, last)
    any_fraction = rf"(\.[0-9]{{1,{width}}})?"
    if high is None:
        options = [str(whole) + _fraction(part, None, low[1], False)]
        options.append(_naturals(whole + 1, None) + any_fraction)
        return _any([option for option in options if _NEVER not in option])
    if whole > top:
        return _NEVER
    if whole == top:
        return str(whole) + _fraction(part, top_part, low[1], high[1])
    options = [
        str(whole) + _fraction(part, None, low[1], False),
        str(top) + _fraction("0" * width, top_part, False, high[1]),
    ]
    if whole + 1 < top:
        options.append(_naturals(whole + 1, top - 1) + any_fraction)
    return _any([option for option in options if _NEVER not in option] or [_NEVER])


def _fraction_length(bound: Bound | None) -> int:
    exponent = 0 if bound is None else bound[0].normalize().as_tuple().exponent
    return max(0, -exponent) if isinstance(exponent, int) else 0


def _split(bound: Bound, width: int) -> tuple[int, str]:
    """The whole part, and the fraction as `width` digits."""
    digits = str(int(bound[0].scaleb(width))).rjust(width + 1, "0")
    return int(digits[:-width]), digits[-width:]


def _fraction(low: str, high: str | None, above: bool, below: bool) -> str:
    """An optional fraction between two digit strings of equal length (`high` None: to the end)."""
    width = len(low)
    first = int(low) + above
    last = 10**width - 1 if high is None else int(high) - below
    if first > last:
        return _NEVER
    digits = _at_most_as_long(str(first).rjust(width, "0"), str(last).rjust(width, "0"))
    return rf"(\.{digits})?" if first == 0 else rf"\.{digits}"


def _at_most_as_long(low: str, high: str) -> str:
    """Digits, at least one, that lie from `low` to `high` when zeros fill up their length."""
    rest = len(low) - 1
    zeros, nines = "0" * rest, "9" * rest
    first, last = int(low[0]), int(high[0])
    if first == last:
        return low[0] + _or_none(low[1:], high[1:])
    options: list[str] = []
    if low[1:] != zeros:
        options.append(low[0] + _or_none(low[1:], nines))
        first += 1
    if high[1:] != nines:
        options.append(high[0] + _or_none(zeros, high[1:]))
        last -= 1
    if first <= last:
        options.append(f"[{first}-{last}]" + (f"[0-9]{{0,{rest}}}" if rest else ""))
    return _any(options)


def _or_none(low: str, high: str) -> str:
    if not low:
        return ""
    digits = _at_most_as_long(low, high)
    return digits if int(low) else f"({digits})?"


def _any(options: list[str]) -> str:
    return options[0] if len(options) == 1 else f"({'|'.join(options)})"
