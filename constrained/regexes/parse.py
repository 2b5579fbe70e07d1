"""From the text of a regex to its tree; knows nothing of automata.

Groups that are open stand on a list, not on Python's stack. A construct that no tree of ours can
say is refused by its name and position.
"""

import enum
import re
import unicodedata
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Final, NoReturn

from ..code_points import ALL, Ranges, complement, normalize
from ..errors import GrammarError, LimitExceeded, Unsupported
from .sets import ECMA_SPACES, NEWLINE, any_case, category, unicode_property
from .syntax import check_syntax, refuse_set_syntax
from .tree import (
    Anchor,
    AnchorKind,
    Characters,
    Node,
    either,
    literal,
    look,
    repeated,
    sequence,
)


class Dialect(enum.Enum):
    r"""Whose regexes these are.

    PYTHON: as `re` reads a str pattern. JSON: a JSON Schema `pattern`, whose validators follow
    either ECMA 262 or Python: where both read an atom, it holds only what both accept (inside
    negative lookahead, what either does); what only one of them reads means what that one means;
    `$`, `[]` and `[^]` are those of ECMA 262.
    """

    PYTHON = "python"
    JSON = "json"


MAX_LENGTH: Final = 200_000
MAX_DEPTH: Final = 100
"""Open groups at one place; what visits a tree does so on Python's stack."""


@lru_cache(maxsize=256)
def parse(pattern: str, dialect: Dialect, narrow: bool = True) -> Node:
    """The tree of a pattern. `narrow`: of an atom that the readers of a dialect read differently
    it keeps what all accept; else, for texts that are not to match, what any accepts.

    Raises GrammarError where the pattern is not a regex, Unsupported where it is none of ours,
    each with the position.
    """
    if len(pattern) > MAX_LENGTH:
        raise LimitExceeded(f"the regex is longer than {MAX_LENGTH} characters")
    if dialect is Dialect.PYTHON:
        check_syntax(pattern)
    return _Parser(pattern, dialect, narrow).parse()


@dataclass(frozen=True)
class _Flags:
    """narrow: see `parse`; negative lookahead turns it round."""

    ignore_case: bool = False
    multiline: bool = False
    dot_all: bool = False
    ascii: bool = False
    verbose: bool = False
    narrow: bool = True


_FLAG_NAMES: Final = {
    "i": "ignore_case",
    "m": "multiline",
    "s": "dot_all",
    "a": "ascii",
    "x": "verbose",
}


@dataclass
class _Group:
    """A group that is open. opening: how it begins, `(?=`, `(?!` or `(`; outer: the flags after
    it; repeatable: a quantifier may follow what stands last in `parts`."""

    opening: str
    at: int
    outer: _Flags
    options: list[Node] = field(default_factory=list)
    parts: list[Node] = field(default_factory=list)
    repeatable: bool = False
    repeated: bool = False


_QUANTIFIER: Final = re.compile(r"\{([0-9]*)(?:(,)([0-9]*))?\}")
_FLAG_GROUP: Final = re.compile(r"\(\?([aiLmsux]*)(?:-([imsx]+))?([:)])")
_NAMED: Final = re.compile(r"\(\?P?<([^\W\d]\w*)>")
_ESCAPED: Final = re.compile(
    r"\\(?:x(?P<x>[0-9a-fA-F]{2})|u(?P<u>[0-9a-fA-F]{4})|U(?P<U>[0-9a-fA-F]{8})|N\{(?P<N>[^}]*)\}"
    r"|(?P<octal>0[0-7]{0,2}|[0-3][0-7]{2})|(?P<control>[abfnrtv])|(?P<literal>[^0-9A-Za-z]))",
    re.DOTALL,
)
_ESCAPED_IN_ECMA: Final = re.compile(
    r"\\(?:u(?P<high>[dD][89abAB][0-9a-fA-F]{2})\\u(?P<low>[dD][c-fC-F][0-9a-fA-F]{2})"
    r"|u\{(?P<code>[0-9a-fA-F]+)\}|c(?P<letter>[A-Za-z])"
    r"|(?P<property>[pP])\{(?P<name>[^{}]*)\})"
)
_OCTAL_IN_CLASS: Final = re.compile(r"\\([0-7]{1,3})")
_SUSPICIOUS_CLASS: Final = re.compile(r".\[|--|&&|~~|\|\|", re.DOTALL)
_CONTROLS: Final = {"a": 7, "b": 8, "f": 12, "n": 10, "r": 13, "t": 9, "v": 11}
_NOT_NEWLINE: Final = complement(NEWLINE)
_NOT_LINE_ENDS: Final = complement(((10, 10), (13, 13), (0x2028, 0x2029)))
_MOST_TIMES: Final = 0x7FFFFFFF  # that the machine can count
_REFUSED_GROUPS: Final = {
    "(?P=": "a backreference by name",
    "(?<=": "lookbehind",
    "(?<!": "negative lookbehind",
    "(?>": "an atomic group",
    "(?(": "a conditional group",
}


class _Parser:
    def __init__(self, pattern: str, dialect: Dialect, narrow: bool) -> None:
        self._pattern = pattern
        self._ecma = dialect is Dialect.JSON
        self._at = 0
        self._flags = _Flags(narrow=narrow)
        self._group = _Group("", 0, self._flags)
        self._open: list[_Group] = []

    def parse(self) -> Node:
        pattern, end = self._pattern, len(self._pattern)
        while self._at < end:
            char = pattern[self._at]
            if char in _SPECIAL:
                self._special(char)
            elif self._flags.verbose and char in " \t\n\r\v\f#":
                self._skip_blank(char)
            else:
                self._literal(ord(char), 1)
        if self._open:
            self._wrong("missing ), unterminated subpattern", self._group.at)
        return self._closed()

    def _special(self, char: str) -> None:
        if char == "\\":
            self._escape()
        elif char == "[":
            self._character_class()
        elif char == "(":
            self._open_group()
        elif char == ")":
            self._close_group()
        elif char == "|":
            self._end_option()
            self._at += 1
        elif char == ".":
            if self._flags.dot_all:
                self._atom(Characters(ALL), 1)
            else:
                in_both = self._ecma and self._flags.narrow
                self._atom(Characters(_NOT_LINE_ENDS if in_both else _NOT_NEWLINE), 1)
        elif char == "^":
            at_lines = self._flags.multiline
            self._anchor(AnchorKind.LINE_START if at_lines else AnchorKind.START, 1)
        elif char == "$":
            end = AnchorKind.END if self._ecma else AnchorKind.END_OR_LAST_NEWLINE
            self._anchor(AnchorKind.LINE_END if self._flags.multiline else end, 1)
        else:
            self._quantifier(char)

    def _skip_blank(self, char: str) -> None:
        if char == "#":
            found = self._pattern.find("\n", self._at)
            self._at = len(self._pattern) if found < 0 else found
        else:
            self._at += 1

    # Structure

    def _open_group(self) -> None:
        rest = self._pattern[self._at : self._at + 4]
        for refused, name in _REFUSED_GROUPS.items():
            if rest.startswith(refused):
                self._refuse(name)
        if rest.startswith("(?#"):
            end = self._pattern.find(")", self._at)
            if end < 0:
                self._wrong("missing ), unterminated comment")
            self._at = end + 1
            return
        if len(self._open) == MAX_DEPTH:
            raise GrammarError("the regex is nested too deeply")
        group = _Group("(", self._at, self._flags)
        if rest.startswith(("(?=", "(?!")):
            group.opening = rest[:3]
            self._at += 3
            if rest[2] == "!":
                self._flags = replace(self._flags, narrow=not self._flags.narrow)
        elif rest.startswith("(?P<") or (self._ecma and rest.startswith("(?<")):
            match = _NAMED.match(self._pattern, self._at)
            if match is None:
                self._wrong("bad name of a group")
            self._at = match.end()
        elif rest.startswith("(?"):
            match = _FLAG_GROUP.match(self._pattern, self._at)
            if match is None or (match[3] == ")" and (match[2] or not match[1])):
                self._wrong("unknown extension")
            flags = self._changed_flags(match)
            if match[3] == ")":
                if self._open or self._group.parts or self._group.options:
                    self._wrong("global flags not at the start of the expression")
                self._flags, self._at = flags, match.end()
                return
            self._flags, self._at = flags, match.end()
        else:
            self._at += 1
        self._open.append(self._group)
        self._group = group

    def _changed_flags(self, match: re.Match[str]) -> _Flags:
        flags = self._flags
        for letter in match[1]:
            if letter == "u":
                flags = replace(flags, ascii=False)
            elif letter in _FLAG_NAMES:
                flags = replace(flags, **{_FLAG_NAMES[letter]: True})
            else:
                self._refuse(f"flag {letter!r}")
        for letter in match[2] or "":
            flags = replace(flags, **{_FLAG_NAMES[letter]: False})
        return flags

    def _close_group(self) -> None:
        if not self._open:
            self._wrong("unbalanced parenthesis")
        body, group = self._closed(), self._group
        self._group = self._open.pop()
        self._flags = group.outer
        if group.opening != "(":
            body = look(body, negated=group.opening == "(?!")
        self._atom(body, 1)

    def _closed(self) -> Node:
        self._end_option()
        return either(self._group.options)

    def _end_option(self) -> None:
        group = self._group
        group.options.append(sequence(group.parts))
        group.parts = []
        group.repeatable = group.repeated = False

    def _quantifier(self, char: str) -> None:
        low, high, length = 0, None, 1
        if char == "{":
            match = _QUANTIFIER.match(self._pattern, self._at)
            if match is None or match[0] == "{}":
                self._literal(ord(char), 1)
                return
            low, high, length = int(match[1] or 0), None, len(match[0])
            if match[3] or not match[2]:
                high = int(match[3] or low)
            if max(low, high or 0) > _MOST_TIMES:
                self._wrong("a repetition count is out of range")
            if high is not None and high < low:
                self._wrong("min repeat greater than max repeat")
        elif char == "+":
            low = 1
        elif char == "?":
            high = 1
        group = self._group
        if not group.repeatable:
            self._wrong("multiple repeat" if group.repeated else "nothing to repeat")
        self._at += length
        if self._pattern.startswith("+", self._at):
            self._refuse("a possessive quantifier")
        if self._pattern.startswith("?", self._at):
            self._at += 1  # lazy or greedy, the language is the same
        group.parts[-1] = repeated(group.parts[-1], low, high)
        group.repeatable, group.repeated = False, True

    # Atoms

    def _atom(self, node: Node, length: int) -> None:
        group = self._group
        group.parts.append(node)
        group.repeatable, group.repeated = True, False
        self._at += length

    def _anchor(self, kind: AnchorKind, length: int) -> None:
        self._atom(Anchor(kind), length)
        self._group.repeatable = False

    def _literal(self, code_point: int, length: int) -> None:
        node = literal(code_point)
        if self._flags.ignore_case:
            node = Characters(self._cased(node.ranges))
        self._atom(node, length)

    def _cased(self, ranges: Ranges, negated: bool = False) -> Ranges:
        """A set, with the other cases of its members where case is ignored."""
        if not self._flags.ignore_case:
            return ranges
        narrow = self._ecma and self._flags.narrow != negated
        return any_case(ranges, self._flags.ascii or narrow)

    def _escape(self) -> None:
        follows = self._pattern[self._at + 1 : self._at + 2]
        if follows in _CATEGORIES:
            self._atom(Characters(self._category(follows)), 2)
        elif follows == "A":
            self._anchor(AnchorKind.START, 2)
        elif follows == "Z":
            self._anchor(AnchorKind.END, 2)
        elif follows and follows in "bB":
            self._boundary(AnchorKind.BOUNDARY if follows == "b" else AnchorKind.NOT_BOUNDARY)
        else:
            member, length = self._escaped(self._at)
            if isinstance(member, int):
                self._literal(member, length)
            else:
                self._atom(Characters(member), length)

    def _boundary(self, kind: AnchorKind) -> None:
        readings: list[Node] = [Anchor(kind, ascii) for ascii in (True, False)]
        if not self._ecma:
            self._atom(readings[not self._flags.ascii], 2)
        elif self._flags.narrow:
            self._atom(sequence(readings), 2)
        else:
            self._atom(either(readings), 2)
        self._group.repeatable = False

    def _escaped(self, at: int) -> tuple[int | Ranges, int]:
        """What the escape at `at` stands for, and its length."""
        if self._ecma and (match := _ESCAPED_IN_ECMA.match(self._pattern, at)):
            return self._ecma_escape(match), len(match[0])
        match = _ESCAPED.match(self._pattern, at)
        if match is not None:
            return self._code_point(match), len(match[0])
        follows = self._pattern[at + 1 : at + 2]
        if not follows:
            self._wrong("bad escape (end of pattern)", at)
        if follows in "123456789":
            self._refuse(f"the backreference \\{follows}", at)
        if follows == "k" and self._ecma:
            self._refuse("a backreference by name", at)
        self._wrong(f"bad escape \\{follows}", at)

    def _ecma_escape(self, match: re.Match[str]) -> int | Ranges:
        if match["high"]:
            pair = (int(match["high"], 16) - 0xD800, int(match["low"], 16) - 0xDC00)
            return 0x10000 + pair[0] * 0x400 + pair[1]
        if match["letter"]:
            return ord(match["letter"]) & 31
        if match["property"]:
            found = unicode_property(match["name"])
            if found is None:
                self._refuse(f"the property {match[0]}", match.start())
            return found if match["property"] == "p" else complement(found)
        code_point = int(match["code"], 16)
        if code_point > 0x10FFFF:
            self._wrong(f"bad escape {match[0]}", match.start())
        return code_point

    def _code_point(self, match: re.Match[str]) -> int:
        kind, text = match.lastgroup, match[match.lastgroup or 0]
        if kind in ("x", "u", "U"):
            code_point = int(text, 16)
        elif kind == "octal":
            code_point = int(text, 8)
        elif kind == "control":
            code_point = _CONTROLS[text]
        elif kind == "N":
            try:
                code_point = ord(unicodedata.lookup(text))
            except (KeyError, TypeError):
                self._wrong(f"undefined character name {text!r}", match.start())
        else:
            code_point = ord(text)
        if code_point > 0x10FFFF:
            self._wrong(f"bad escape {match[0]}", match.start())
        return code_point

    def _category(self, letter: str, negated: bool = False) -> Ranges:
        """`negated`: it stands in a negated class, which is the narrower, the wider this is."""
        if not self._ecma:
            return category(letter, self._flags.ascii)
        narrow = self._flags.narrow != (negated != letter.isupper())
        if narrow or self._flags.ascii:
            return category(letter, True)
        if letter in "sS":
            return ECMA_SPACES if letter == "s" else complement(ECMA_SPACES)
        return category(letter, False)

    # Classes

    def _character_class(self) -> None:
        pattern, begin = self._pattern, self._at
        negated = pattern.startswith("^", begin + 1)
        at = first = begin + 1 + negated
        found: list[tuple[int, int]] = []  # what is listed
        named: list[tuple[int, int]] = []  # what escapes for sets hold: of any case already
        while not pattern.startswith("]", at) or (at == first and not self._ecma):
            start = at
            low, at = self._member(at, begin, negated)
            if not pattern.startswith("-", at) or pattern.startswith("-]", at):
                members = [low]
            else:
                high, at = self._member(at + 1, begin, negated)
                if isinstance(low, int) and isinstance(high, int):
                    if high < low:
                        self._wrong(f"bad character range {pattern[start:at]}", start)
                    found.append((low, high))
                    continue
                members = [low, ord("-"), high]  # as ECMA 262 reads it; `re` refuses it
            for member in members:
                if isinstance(member, int):
                    found.append((member, member))
                else:
                    named += member
        if self._ecma and _SUSPICIOUS_CLASS.search(pattern, begin, at):
            refuse_set_syntax(" " * begin + pattern[begin : at + 1])
        ranges = self._cased(normalize(found), negated)
        if named:
            ranges = normalize([*ranges, *named])
        self._atom(Characters(complement(ranges) if negated else ranges), at + 1 - begin)

    def _member(self, at: int, begin: int, negated: bool) -> tuple[int | Ranges, int]:
        """A member of the class that opens at `begin`, and where it ends."""
        pattern = self._pattern
        if at >= len(pattern):
            self._wrong("unterminated character set", begin)
        if pattern[at] != "\\":
            return ord(pattern[at]), at + 1
        follows = pattern[at + 1 : at + 2]
        if follows in _CATEGORIES:
            return self._category(follows, negated), at + 2
        if match := _OCTAL_IN_CLASS.match(pattern, at):
            return int(match[1], 8), match.end()
        member, length = self._escaped(at)
        return member, at + length

    # Errors

    def _refuse(self, what: str, at: int | None = None) -> NoReturn:
        at = self._at if at is None else at
        raise Unsupported(f"{what} is not supported (at position {at})")

    def _wrong(self, what: str, at: int | None = None) -> NoReturn:
        at = self._at if at is None else at
        raise GrammarError(f"it is not a valid regex: {what} at position {at}")


_SPECIAL: Final = frozenset("\\[()|.^$*+?{")
_CATEGORIES: Final = frozenset("dDsSwW")
