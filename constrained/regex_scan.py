"""From pattern text to bare structure plus atoms; knows nothing of automata.

interegular parses the structure of a pattern, but not its atoms as Python means them (`\\w` is
ASCII there, `[]a]` an empty class, `^` and comments are refused, inline flags leak). So each class,
escape, anchor and case-insensitive letter is replaced here by a private-use placeholder that
interegular takes for a letter, and flags are resolved. `re.compile` has accepted the pattern before
it comes here: this scanner may rely on its being well formed.
"""

import enum
import re
import unicodedata
from dataclasses import dataclass
from typing import Final, NoReturn

from .code_points import Ranges, case_variants, complement, intersection, matched_by_re, normalize
from .errors import Unsupported


class Anchor(enum.Enum):
    """Zero-width atoms."""

    START = "^"
    END = "\\Z"
    END_OR_LAST_NEWLINE = "$"


class Dialect(enum.Enum):
    """Whose regexes these are.

    PYTHON: as `re` reads a str pattern. JSON: a JSON Schema `pattern`, where validators read `\\d`,
    `\\w`, `\\s` as ASCII (ECMA 262) or as Unicode (Python): an atom holds only what both accept.
    """

    PYTHON = "python"
    JSON = "json"


Atom = Ranges | Anchor


@dataclass(frozen=True)
class Scanned:
    """`structure` holds groups, alternations, quantifiers, letters and keys of `atoms` only."""

    structure: str
    atoms: dict[str, Atom]


_FIRST_PLACEHOLDER: Final = 0xF0000
_LAST_PLACEHOLDER: Final = 0xFFFFD
_QUANTIFIER: Final = re.compile(r"\{(\d*)(?:(,)(\d*))?\}")
_FLAGS: Final = re.compile(r"\(\?([aiLmsux]*)(?:-([imsx]+))?([:)])")
_CHARACTER: Final = re.compile(
    r"\\(?:x(?P<x>[0-9a-fA-F]{2})|u(?P<u>[0-9a-fA-F]{4})|U(?P<U>[0-9a-fA-F]{8})|N\{(?P<N>[^}]*)\}"
    r"|(?P<octal>0[0-7]{0,2}|[0-3][0-7]{2})|(?P<control>[abfnrtv])|(?P<literal>[^0-9A-Za-z]))"
    r"|(?P<plain>[^\\])",
    re.DOTALL,
)
_CONTROLS: Final = {"a": 7, "b": 8, "f": 12, "n": 10, "r": 13, "t": 9, "v": 11}
_CATEGORIES: Final = "dDsSwW"
_FLAG_VALUES: Final = {
    "a": re.ASCII,
    "i": re.IGNORECASE,
    "m": re.MULTILINE,
    "s": re.DOTALL,
    "u": re.UNICODE,
}


def scan(pattern: str, dialect: Dialect) -> Scanned:
    """Split a pattern that `re` accepts; raises Unsupported, naming the construct and its place."""
    return _Scanner(pattern, dialect).scan()


class _Scanner:
    def __init__(self, pattern: str, dialect: Dialect) -> None:
        self._pattern = pattern
        self._dialect = dialect
        self._at = 0
        self._flags = re.RegexFlag(0)
        self._outer_flags: list[re.RegexFlag] = []
        self._out: list[str] = []
        self._atoms: dict[str, Atom] = {}
        self._placeholders: dict[Atom, str] = {}

    def scan(self) -> Scanned:
        while self._at < len(self._pattern):
            self._step(self._pattern[self._at])
        return Scanned("".join(self._out), self._atoms)

    def _step(self, char: str) -> None:
        if char == "(":
            self._group()
        elif char == ")":
            self._flags = self._outer_flags.pop()
            self._emit(")", 1)
        elif char == "|":
            self._emit("|", 1)
        elif char in "*+?" or (char == "{" and self._quantifier_here() is not None):
            self._quantifier(char)
        elif char == "[":
            self._character_class()
        elif char == "\\":
            self._escape()
        elif char == ".":
            self._atom(self._by_re("."), 1)
        elif char in "^$":
            if self._flags & re.MULTILINE:
                self._refuse(f"{char!r} under the multiline flag")
            self._atom(Anchor.START if char == "^" else self._dollar(), 1)
        else:
            self._literal(ord(char), 1)

    # Structure

    def _group(self) -> None:
        rest = self._pattern[self._at : self._at + 4]
        for opening, name in _REFUSED_GROUPS.items():
            if rest.startswith(opening):
                self._refuse(name)
        if rest.startswith("(?#"):
            self._at = self._pattern.index(")", self._at) + 1
            return
        flags = self._flags
        if rest.startswith(("(?=", "(?!")):
            self._out.append(rest[:3])
            self._at += 3
        elif rest.startswith("(?P<"):
            self._out.append("(?:")
            self._at = self._pattern.index(">", self._at) + 1
        elif rest.startswith("(?"):
            match = _FLAGS.match(self._pattern, self._at)
            if match is None:
                self._refuse("this kind of group")
            flags = self._changed_flags(match)
            self._at = match.end()
            if match[3] == ")":  # `re` allows flags for the rest only at the very start
                self._flags = flags
                return
            self._out.append("(?:")
        else:
            self._emit("(?:", 1)
        self._outer_flags.append(self._flags)
        self._flags = flags

    def _changed_flags(self, match: re.Match[str]) -> re.RegexFlag:
        flags = self._flags
        for letter in match[1]:
            if letter not in _FLAG_VALUES:
                self._refuse(f"flag {letter!r}")
            if letter == "u":
                flags &= ~re.ASCII
            else:
                flags |= _FLAG_VALUES[letter]
        for letter in match[2] or "":
            if letter in _FLAG_VALUES:
                flags &= ~_FLAG_VALUES[letter]
        return flags

    def _quantifier_here(self) -> re.Match[str] | None:
        match = _QUANTIFIER.match(self._pattern, self._at)
        return None if match is None or match[0] == "{}" else match

    def _quantifier(self, char: str) -> None:
        if char == "{":
            match = self._quantifier_here()
            assert match is not None
            low = match[1] or "0"
            high = f",{match[3]}" if match[2] else ""
            self._emit(f"{{{low}{high}}}", len(match[0]))
        else:
            self._emit(char, 1)
        if self._pattern.startswith("+", self._at):
            self._refuse("a possessive quantifier")
        if self._pattern.startswith("?", self._at):
            self._at += 1  # lazy or greedy, the language is the same

    # Atoms

    def _character_class(self) -> None:
        end = self._at + 1
        if self._pattern.startswith("^", end):
            end += 1
        first = end  # a bracket that stands first is a member
        while end == first or self._pattern[end] != "]":
            end += 2 if self._pattern[end] == "\\" else 1
        self._atom(self._class_ranges(self._pattern[self._at : end + 1]), end + 1 - self._at)

    def _class_ranges(self, text: str) -> Ranges:
        simple = None if self._flags & re.IGNORECASE else self._simple_class(text)
        return self._by_re(text) if simple is None else simple

    def _simple_class(self, text: str) -> Ranges | None:
        """The set of a class of plain letters, ranges and categories; None to ask `re` instead."""
        negated = text.startswith("[^")
        at, end = 1 + negated, len(text) - 1
        ranges: list[tuple[int, int]] = []
        while at < end:
            if text[at] == "\\" and text[at + 1] in _CATEGORIES:
                ranges += self._by_re(text[at : at + 2])
                at += 2
                continue
            match = _CHARACTER.match(text, at, end)
            if match is None or match["plain"] in ("[", "&", "~", "|", "-"):
                return None
            low = high = _code_point(match)
            at = match.end()
            if text[at] == "-":
                match = _CHARACTER.match(text, at + 1, end)
                if match is None or match["plain"] in ("[", "-"):
                    return None
                high = _code_point(match)
                at = match.end()
            ranges.append((low, high))
        found = normalize(ranges)
        return complement(found) if negated else found

    def _escape(self) -> None:
        follows = self._pattern[self._at + 1]
        if follows in _CATEGORIES:
            self._atom(self._by_re("\\" + follows), 2)
        elif follows == "A":
            self._atom(Anchor.START, 2)
        elif follows == "Z":
            self._atom(Anchor.END, 2)
        elif follows in "bB":
            self._refuse(f"the word boundary \\{follows}")
        else:
            match = _CHARACTER.match(self._pattern, self._at)
            if match is None:
                self._refuse(f"the backreference \\{follows}")
            self._literal(_code_point(match), len(match[0]))

    def _literal(self, code_point: int, length: int) -> None:
        char = chr(code_point)
        if self._flags & re.IGNORECASE:
            flags = int(self._flags & (re.IGNORECASE | re.ASCII))
            variants = case_variants(char, flags)
            if self._dialect is Dialect.JSON:
                variants = intersection(variants, case_variants(char, flags | re.ASCII))
            self._atom(variants, length)
        elif char.isalnum() or char in " \"'_:,;<>=!@#%&~`/-":
            self._emit(char, length)
        else:
            self._atom(normalize([(code_point, code_point)]), length)

    def _dollar(self) -> Anchor:
        return Anchor.END if self._dialect is Dialect.JSON else Anchor.END_OR_LAST_NEWLINE

    def _by_re(self, text: str) -> Ranges:
        flags = int(self._flags & (re.IGNORECASE | re.DOTALL | re.ASCII))
        found = matched_by_re(text, flags)
        if self._dialect is Dialect.JSON:
            found = intersection(found, matched_by_re(text, flags | re.ASCII))
        return found

    def _atom(self, atom: Atom, length: int) -> None:
        if atom not in self._placeholders:
            code = _FIRST_PLACEHOLDER + len(self._placeholders)
            if code > _LAST_PLACEHOLDER:
                self._refuse(f"more than {len(self._placeholders)} different classes")
            self._placeholders[atom] = chr(code)
            self._atoms[chr(code)] = atom
        self._emit(self._placeholders[atom], length)

    def _emit(self, text: str, length: int) -> None:
        self._out.append(text)
        self._at += length

    def _refuse(self, what: str) -> NoReturn:
        raise Unsupported(f"{what} is not supported (at position {self._at})")


_REFUSED_GROUPS: Final = {
    "(?P=": "a backreference by name",
    "(?<=": "lookbehind",
    "(?<!": "negative lookbehind",
    "(?>": "an atomic group",
    "(?(": "a conditional group",
}


def _code_point(match: re.Match[str]) -> int:
    kind, text = match.lastgroup, match[match.lastgroup or 0]
    if kind in ("x", "u", "U"):
        return int(text, 16)
    if kind == "octal":
        return int(text, 8)
    if kind == "control":
        return _CONTROLS[text]
    return ord(unicodedata.lookup(text) if kind == "N" else text)
