r"""GBNF, llama.cpp's notation of grammars, which is the EBNF of XGrammar and SGLang too.

`name ::= ...` defines a rule, `root` is the whole text; `"text"`, `[a-z]`, `[^"]`, `.` (any
character), references, `( )`, `|`, and `*`, `+`, `?`, `{n}`, `{n,}`, `{,m}`, `{n,m}` after any of
them; `#` begins a comment. Line breaks are blanks: a rule ends where the next is defined.

Where the two dialects differ: `\x` has two digits; a dot between letters belongs to a name; an
empty class is refused. References to tokens, lookahead and XGrammar's macros are refused by name.
"""

import re
from typing import Final

from ..code_points import ALL, Ranges, complement, normalize
from ..regexes import tree as regexes
from .definitions import Definitions
from .scan import MAX_DEPTH, Scanner
from .tree import Expression, Grammar, Text, bare, either, repeated, sequence

_BLANK: Final = re.compile(r"(?:\s|#[^\n]*)+")
_NAME: Final = re.compile(r"[\w-]+(?:\.[\w-]+)*", re.ASCII)
_DEFINITION: Final = re.compile(rf"({_NAME.pattern})(?:\s|#[^\n]*)*::=", re.ASCII)
_OPERATORS: Final = {"*": (0, None), "+": (1, None), "?": (0, 1)}
_MACROS: Final = ("TagDispatch", "Token", "ExcludeToken", "TokenTagDispatch")
_REFUSED: Final = {"<": "a token", "!": "an excluded token", "/": "a regex in an EBNF grammar"}


def parse(text: str) -> Grammar:
    """The grammar of a text; raises GrammarError with line and column."""
    return _Parser(text).parse()


class _Parser:
    def __init__(self, text: str) -> None:
        self._scanner = Scanner(text)
        self._definitions = Definitions(self._scanner)
        self._depth = 0

    def parse(self) -> Grammar:
        scanner = self._scanner
        self._blank()
        while not scanner.ended:
            begin = scanner.at
            definition = scanner.match(_DEFINITION)
            if definition is None:
                scanner.fail(f"a rule (name ::= ...) is expected, not {scanner.next()}")
            self._definitions.define(definition[1], self._options(), begin)
            if not scanner.ended and _DEFINITION.match(scanner.text, scanner.at) is None:
                scanner.fail(f"{scanner.next()} is not expected here")
        return self._definitions.grammar("root")

    def _blank(self) -> None:
        self._scanner.match(_BLANK)

    def _options(self) -> Expression:
        options = [self._sequence()]
        while self._scanner.take("|"):
            options.append(self._sequence())
        return either(options)

    def _sequence(self) -> Expression:
        scanner, parts = self._scanner, []
        self._blank()
        while not (
            scanner.ended
            or scanner.text[scanner.at] in "|)"
            or _DEFINITION.match(scanner.text, scanner.at)
        ):
            parts.append(self._repeated())
        return sequence(parts)

    def _repeated(self) -> Expression:
        body = self._atom()
        self._blank()
        while counts := self._counts():
            body = repeated(body, *counts)
            self._blank()
        return body

    def _counts(self) -> tuple[int, int | None] | None:
        for sign, counts in _OPERATORS.items():
            if self._scanner.take(sign):
                return counts
        counts_in_braces = self._scanner.counts()
        if counts_in_braces is None and self._scanner.sees("{"):
            self._scanner.fail("this is no repetition count")
        return counts_in_braces

    def _atom(self) -> Expression:
        scanner, begin = self._scanner, self._scanner.at
        sign = scanner.text[begin]
        if sign == '"':
            return Text(scanner.literal())
        if sign == "[":
            return bare(regexes.Characters(self._class()))
        if sign == "(":
            return self._group()
        if sign in _REFUSED:
            scanner.refuse(_REFUSED[sign])
        name = scanner.match(_NAME)
        if name is not None:
            if name[0] in _MACROS and scanner.sees("("):
                scanner.refuse(f"the macro {name[0]}", begin)
            return self._definitions.reference(name[0], begin)
        if scanner.take("."):
            return bare(regexes.Characters(ALL))
        if sign == "'":
            scanner.fail("a literal stands in double quotes")
        scanner.fail(f"{scanner.next()} is not expected here")

    def _group(self) -> Expression:
        scanner, begin = self._scanner, self._scanner.at
        scanner.at += 1
        if scanner.sees("="):
            scanner.refuse("lookahead", begin)
        if self._depth == MAX_DEPTH:
            scanner.fail(f"groups are nested more than {MAX_DEPTH} deep", begin)
        self._depth += 1
        inner = self._options()
        self._depth -= 1
        if not scanner.take(")"):
            scanner.fail("this group is not closed", begin)
        return inner

    def _class(self) -> Ranges:
        scanner, begin = self._scanner, self._scanner.at
        scanner.at += 1
        negated = scanner.take("^")
        members: list[tuple[int, int]] = []
        while not scanner.take("]"):
            at = scanner.at
            low = high = self._member(begin)
            if scanner.sees("-") and not scanner.sees("-]"):
                scanner.at += 1
                high = self._member(begin)
            if high < low:
                scanner.fail(f"the range {chr(low)!r} to {chr(high)!r} is empty", at)
            members.append((low, high))
        if not members and not negated:
            scanner.fail("a class without members", begin)
        found = normalize(members)
        return complement(found) if negated else found

    def _member(self, begin: int) -> int:
        if self._scanner.ended or self._scanner.sees("\n"):
            self._scanner.fail("a class is not closed", begin)
        return ord(self._scanner.character())
