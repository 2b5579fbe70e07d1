"""Sets of Unicode scalar values as sorted ranges; knows nothing of bytes or automata.

What a class such as `\\w` holds is never written down here: `re` itself is asked, by matching it
against every scalar value, so the two cannot differ.
"""

import re
import sys
from array import array
from collections.abc import Iterable
from functools import lru_cache
from typing import Final

Ranges = tuple[tuple[int, int], ...]
"""Sorted, disjoint, non-adjacent ranges of scalar values, both ends included."""

SURROGATES: Final = (0xD800, 0xDFFF)
ALL: Final[Ranges] = ((0, 0xD7FF), (0xE000, 0x10FFFF))


def normalize(ranges: Iterable[tuple[int, int]]) -> Ranges:
    """Sorted, merged, without the surrogates (they have no UTF-8 form)."""
    merged: list[tuple[int, int]] = []
    for low, high in sorted(ranges):
        if merged and low <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(high, merged[-1][1]))
        else:
            merged.append((low, high))
    return intersection(tuple(merged), ALL)


def intersection(a: Ranges, b: Ranges) -> Ranges:
    out: list[tuple[int, int]] = []
    i = j = 0
    while i < len(a) and j < len(b):
        low, high = max(a[i][0], b[j][0]), min(a[i][1], b[j][1])
        if low <= high:
            out.append((low, high))
        if a[i][1] < b[j][1]:
            i += 1
        else:
            j += 1
    return tuple(out)


def complement(ranges: Ranges) -> Ranges:
    """All scalar values that are not in `ranges`."""
    out: list[tuple[int, int]] = []
    at = 0
    for low, high in ranges:
        if low > at:
            out.append((at, low - 1))
        at = high + 1
    if at <= 0x10FFFF:
        out.append((at, 0x10FFFF))
    return intersection(tuple(out), ALL)


@lru_cache(maxsize=1)
def _every_character() -> str:
    codes = array("I", range(SURROGATES[0])) + array("I", range(SURROGATES[1] + 1, 0x110000))
    return codes.tobytes().decode("utf-32-le" if sys.byteorder == "little" else "utf-32-be")


@lru_cache(maxsize=1)
def _cased_characters() -> str:
    return "".join(c for c in _every_character() if c.lower() != c or c.upper() != c)


@lru_cache(maxsize=4096)
def case_variants(char: str, flags: int) -> Ranges:
    """What the letter `char` matches under `re` flags that ignore case."""
    found = re.findall(re.escape(char), _cased_characters() + char, flags)
    return normalize((ord(variant), ord(variant)) for variant in found)


@lru_cache(maxsize=2048)
def matched_by_re(atom: str, flags: int) -> Ranges:
    """The scalar values that the one-character pattern `atom` matches under `re` flags."""
    runs = re.compile(f"(?:{atom})+", flags).finditer(_every_character())
    return normalize((_scalar(run.start()), _scalar(run.end() - 1)) for run in runs)


def _scalar(index: int) -> int:
    return index if index < SURROGATES[0] else index + 0x800
