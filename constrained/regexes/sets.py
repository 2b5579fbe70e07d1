r"""Sets of characters with a name: `\d`, `\w`, `\s`, Unicode properties, and letters of any case.

The ASCII forms are written down; of the Unicode forms each is made when it is first asked for.
"""

import re
import unicodedata
from functools import lru_cache
from itertools import groupby
from typing import Final

from ..code_points import ALL, Ranges, case_variants, complement, matched_by_re, normalize

NEWLINE: Final[Ranges] = ((10, 10),)

ASCII_FORMS: Final[dict[str, Ranges]] = {
    "d": ((0x30, 0x39),),
    "w": ((0x30, 0x39), (0x41, 0x5A), (0x5F, 0x5F), (0x61, 0x7A)),
    "s": ((9, 13), (32, 32)),
}
_SPACES: Final[Ranges] = (
    (9, 13),
    (28, 32),
    (0x85, 0x85),
    (0xA0, 0xA0),
    (0x1680, 0x1680),
    (0x2000, 0x200A),
    (0x2028, 0x2029),
    (0x202F, 0x202F),
    (0x205F, 0x205F),
    (0x3000, 0x3000),
)

ECMA_SPACES: Final[Ranges] = normalize([*_SPACES, (0xFEFF, 0xFEFF)])
"""What `re` or ECMA 262 takes for white space."""

# Besides its other case, what `re` takes for an ASCII letter where case is ignored.
_ODD_CASES: Final = {"i": "\u0130\u0131", "s": "\u017f", "k": "\u212a"}


@lru_cache(maxsize=64)
def category(letter: str, ascii: bool) -> Ranges:
    r"""What `re` means by `\d`, `\w`, `\s` and, of upper-case letters, their complements."""
    if letter.isupper():
        return complement(category(letter.lower(), ascii))
    if ascii:
        return ASCII_FORMS[letter]
    return _SPACES if letter == "s" else matched_by_re("\\" + letter, 0)


@lru_cache(maxsize=2048)
def any_case(ranges: Ranges, ascii: bool) -> Ranges:
    """A set, and what `re` takes for its members where case is ignored."""
    if ranges and ranges[-1][1] >= 128:
        flags = int(re.IGNORECASE | (re.ASCII if ascii else re.UNICODE))
        if len(ranges) == 1 and ranges[0][0] == ranges[0][1]:
            return case_variants(chr(ranges[0][0]), flags)
        members = "".join(f"\\U{low:08x}-\\U{high:08x}" for low, high in ranges)
        return matched_by_re(f"[{members}]", flags)
    found = list(ranges)
    for low, high in ranges:
        for letter in map(chr, range(low, high + 1)):
            if letter.isalpha():
                others = letter.swapcase() + ("" if ascii else _ODD_CASES.get(letter.lower(), ""))
                found += ((ord(other), ord(other)) for other in others)
    return normalize(found)


@lru_cache(maxsize=1)
def no_boundary_in_empty_text() -> bool:
    r"""Whether `\B` does not match in the empty text: so it was in `re` up to Python 3.13."""
    return re.search(r"\B", "") is None


def unicode_property(name: str) -> Ranges | None:
    r"""What `\p{name}` holds; None for a property that we do not know."""
    if name in _WHOLE:
        return _WHOLE[name]
    kind, equals, value = name.partition("=")
    if equals and kind not in ("gc", "General_Category"):
        return None
    value = _CATEGORY_NAMES.get(value if equals else name, "")
    if value not in _CATEGORIES:
        return None
    return _general_category(value)


@lru_cache(maxsize=64)
def _general_category(value: str) -> Ranges:
    if value == "LC":
        wanted: tuple[str, ...] = ("Lu", "Ll", "Lt")
    else:
        wanted = tuple(name for name in _general_categories() if name.startswith(value))
    return normalize(pair for name in wanted for pair in _general_categories()[name])


@lru_cache(maxsize=1)
def _general_categories() -> dict[str, list[tuple[int, int]]]:
    found: dict[str, list[tuple[int, int]]] = {}
    at = 0
    for name, run in groupby(map(unicodedata.category, map(chr, range(0x110000)))):
        length = sum(1 for _ in run)
        found.setdefault(name, []).append((at, at + length - 1))
        at += length
    return found


# Names and aliases of the values of General_Category, as Unicode lists them.
_CATEGORIES: Final = {
    "C": "Other",
    "Cc": "Control cntrl",
    "Cf": "Format",
    "Cn": "Unassigned",
    "Co": "Private_Use",
    "Cs": "Surrogate",
    "L": "Letter",
    "LC": "Cased_Letter",
    "Ll": "Lowercase_Letter",
    "Lm": "Modifier_Letter",
    "Lo": "Other_Letter",
    "Lt": "Titlecase_Letter",
    "Lu": "Uppercase_Letter",
    "M": "Mark Combining_Mark",
    "Mc": "Spacing_Mark",
    "Me": "Enclosing_Mark",
    "Mn": "Nonspacing_Mark",
    "N": "Number",
    "Nd": "Decimal_Number digit",
    "Nl": "Letter_Number",
    "No": "Other_Number",
    "P": "Punctuation punct",
    "Pc": "Connector_Punctuation",
    "Pd": "Dash_Punctuation",
    "Pe": "Close_Punctuation",
    "Pf": "Final_Punctuation",
    "Pi": "Initial_Punctuation",
    "Po": "Other_Punctuation",
    "Ps": "Open_Punctuation",
    "S": "Symbol",
    "Sc": "Currency_Symbol",
    "Sk": "Modifier_Symbol",
    "Sm": "Math_Symbol",
    "So": "Other_Symbol",
    "Z": "Separator",
    "Zl": "Line_Separator",
    "Zp": "Paragraph_Separator",
    "Zs": "Space_Separator",
}
_CATEGORY_NAMES: Final = {
    name: short for short, names in _CATEGORIES.items() for name in (short, *names.split())
}
_WHOLE: Final[dict[str, Ranges]] = {"Any": ALL, "ASCII": ((0, 127),)}
