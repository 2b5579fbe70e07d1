r"""The notation of the Lark parser as llguidance reads it; the whole text is rule `start`.

`name: ...` defines a rule, `NAME: ...` a terminal, which refers to terminals only, and not to
itself. In both stand `"text"` (`"text"i`: in any case), `/regex/` with flags `imsux`, `"a".."z"`,
references, `( )`, `[ ]` (at most once), `|`, and after any of them `*`, `+`, `?`, `~n`, `~n..m`,
`{n,m}`; in rules `%json {...}`, a JSON text that fits the schema. `//` and `#` begin comments.
`%import common.NAME` finds the terminals of `lark_terminals`. What only shapes a syntax tree
(`-> alias`, `?name:`, `!name:`) is read and changes nothing. Regexes are those of Python.

`%ignore` says what may stand, any number of times, after each terminal of a rule: a text, a
regex, a schema or a named terminal; nothing is ignored within one, nor before the first.

There is no lexer: a text is read if there is any way to cut it into terminals. So no terminal has
priority, none is as long as it can be, and `"if" NAME` reads "ifx" where nothing separates them.
"""

import json
import re
from typing import Final

from ..code_points import normalize
from ..errors import GrammarError, Unsupported
from ..regexes import tree as regexes
from ..regexes.parse import Dialect
from ..regexes.parse import parse as parse_regex
from .analysis import cycles
from .definitions import Definitions
from .lark_terminals import COMMON
from .scan import MAX_DEPTH, Scanner
from .tree import (
    EMPTY,
    Either,
    Expression,
    Grammar,
    Pattern,
    Reference,
    Repeated,
    Schema,
    Sequence,
    Text,
    bare,
    either,
    references,
    repeated,
    sequence,
)

_NAME: Final = re.compile(r"_*[A-Za-z][A-Za-z0-9_-]*")
_BLANK: Final = re.compile(r"(?:\s|//[^\n]*|#[^\n]*)+")
_IN_LINE: Final = re.compile(r"[ \t]*")
_DEFINITION: Final = re.compile(
    rf"(?P<prefix>[?!]*)(?P<name>{_NAME.pattern})(?P<more>\s*(?:\.-?\d|\{{[^}}\n]*\}}|\[[^\]\n]*\]))?"
    r"\s*(?P<parameter>::.*)?:"
)
_DIRECTIVE: Final = re.compile(r"%([A-Za-z_]+)")
_IMPORT: Final = re.compile(r"[ \t]*([\w.]+)")
_IMPORT_NAMES: Final = re.compile(r"[ \t]*\(([^()]*)\)")
_ALIAS: Final = re.compile(rf"\s*->\s*({_NAME.pattern})")
_REGEX: Final = re.compile(r"/((?:[^/\\\n]|\\[^\n])+)/([a-z]*)")
_TIMES: Final = re.compile(r"~[ \t]*(\d+)(?:[ \t]*\.\.[ \t]*(\d+))?")
_RANGE: Final = re.compile(r'\s*\.\.\s*(?=")')
_OPERATORS: Final = {"*": (0, None), "+": (1, None), "?": (0, 1)}
_REFUSED: Final = {
    "<": "a token",
    "@": "a reference to another grammar",
    "~": "the operator ~ (not)",
    "&": "the operator & (and)",
}
_IGNORED: Final = "%ignore"
"""The name of the rule of what is ignored, which no rule of the user's can have."""


def parse(text: str) -> Grammar:
    """The grammar of a text; raises GrammarError with line and column."""
    return _Parser(text).parse()


class _Parser:
    def __init__(self, text: str) -> None:
        self._scanner = Scanner(text)
        self._definitions = Definitions(self._scanner)
        self._ignored: list[Expression] = []
        self._depth = 0
        self._in_terminal = False

    def parse(self) -> Grammar:
        scanner = self._scanner
        self._blank()
        while not scanner.ended:
            if scanner.sees("%"):
                self._directive()
            elif definition := self._definition():
                self._define(definition)
            else:
                scanner.fail(f"a rule (name: ...) is expected, not {scanner.next()}")
            self._blank()
        grammar = self._definitions.grammar("start")
        self._refuse_recursive_terminals(grammar)
        return self._ignoring(grammar) if self._ignored else grammar

    def _blank(self) -> None:
        self._scanner.match(_BLANK)

    # Statements

    def _definition(self) -> re.Match[str] | None:
        """The beginning of a rule, if it comes next; it is the first of its line."""
        scanner = self._scanner
        line = scanner.text.rfind("\n", 0, scanner.at) + 1
        if scanner.text[line : scanner.at].strip():
            return None
        return _DEFINITION.match(scanner.text, scanner.at)

    def _define(self, definition: re.Match[str]) -> None:
        scanner, begin, name = self._scanner, self._scanner.at, definition["name"]
        if name not in (name.lower(), name.upper()):
            scanner.fail(f"{name!r} is neither lower case (a rule) nor upper case (a terminal)")
        more = (definition["more"] or "").strip()
        if more.startswith("."):
            scanner.refuse(f"the priority of {name!r}")
        if more.startswith("{"):
            scanner.refuse(f"the template {name!r}")
        if more or definition["parameter"]:
            scanner.refuse(f"an option of {name!r}")
        if _is_terminal(name) and "?" in definition["prefix"]:
            scanner.fail("'?' stands before rules only")
        scanner.at = definition.end()
        self._definitions.define(name, self._body(_is_terminal(name)), begin)

    def _body(self, in_terminal: bool) -> Expression:
        self._in_terminal = in_terminal
        found = self._options()
        if not (self._scanner.ended or self._scanner.sees("%") or self._definition()):
            self._scanner.fail(f"{self._scanner.next()} is not expected here")
        return found

    def _directive(self) -> None:
        scanner, begin = self._scanner, self._scanner.at
        directive = scanner.match(_DIRECTIVE)
        name = directive[1] if directive else ""
        if name == "ignore":
            ignored = self._body(in_terminal=True)
            if ignored == EMPTY:
                scanner.fail("%ignore says nothing", begin)
            self._ignored.append(ignored)
        elif name == "import":
            self._import()
        elif name == "llguidance":
            if self._json():
                scanner.refuse("an option of %llguidance", begin)
        else:
            scanner.refuse(f"the directive %{name}", begin)

    def _import(self) -> None:
        scanner = self._scanner
        scanner.match(_IN_LINE)
        begin = scanner.at
        path = scanner.match(_IMPORT)
        if path is None:
            scanner.fail(f"the name of what is imported is expected, not {scanner.next()}")
        module, _, name = path[1].rpartition(".")
        if listed := scanner.match(_IMPORT_NAMES):
            module, names = path[1], [each.strip() for each in listed[1].split(",")]
        else:
            names = [name]
        alias = scanner.match(_ALIAS) if listed is None else None
        for name in names:
            if module != "common" or name not in COMMON:
                scanner.refuse(f"the import of '{module}.{name}'", begin)
            known = alias[1] if alias else name
            if not _is_terminal(known):
                scanner.fail(f"{known!r} is no name of a terminal", begin)
            self._definitions.define(known, self._pattern(COMMON[name], "", begin), begin)

    # Expressions

    def _options(self) -> Expression:
        options = [self._sequence()]
        while self._scanner.take("|"):
            options.append(self._sequence())
        return either(options)

    def _sequence(self) -> Expression:
        scanner, parts = self._scanner, []
        self._blank()
        while not self._at_end_of_sequence():
            parts.append(self._repeated())
            self._blank()
        if scanner.sees("->"):
            if scanner.match(_ALIAS) is None:
                scanner.fail("'->' is followed by a name")
            self._blank()
        return sequence(parts)

    def _at_end_of_sequence(self) -> bool:
        scanner = self._scanner
        if scanner.ended or scanner.text[scanner.at] in "|)]" or scanner.sees("->"):
            return True
        if scanner.sees("%"):
            return not scanner.text.startswith(("%json", "%regex", "%lark"), scanner.at)
        return self._definition() is not None

    def _repeated(self) -> Expression:
        body = self._atom()
        self._scanner.match(_IN_LINE)
        while counts := self._counts():
            body = repeated(body, *counts)
            self._scanner.match(_IN_LINE)
        return body

    def _counts(self) -> tuple[int, int | None] | None:
        scanner, begin = self._scanner, self._scanner.at
        for sign, counts in _OPERATORS.items():
            if scanner.take(sign):
                return counts
        if times := scanner.match(_TIMES):
            return scanner.checked_counts(int(times[1]), int(times[2] or times[1]), begin)
        counts_in_braces = scanner.counts()
        if counts_in_braces is None and scanner.sees("{"):
            scanner.refuse("a template")
        return counts_in_braces

    def _atom(self) -> Expression:
        scanner, begin = self._scanner, self._scanner.at
        sign = scanner.text[begin]
        if sign == '"':
            return self._literal()
        if sign == "/":
            regex = scanner.match(_REGEX)
            if regex is None:
                scanner.fail("a regex is not closed")
            return self._pattern(regex[1].replace("\\/", "/"), regex[2], begin)
        if sign in "([":
            return self._group()
        if sign == "%":
            return self._schema()
        if sign in _REFUSED:
            scanner.refuse(_REFUSED[sign])
        name = scanner.match(_NAME)
        if name is None:
            scanner.fail(f"{scanner.next()} is not expected here")
        if self._in_terminal and not _is_terminal(name[0]):
            scanner.fail(f"a terminal refers to terminals only, not to rule {name[0]!r}", begin)
        return self._definitions.reference(name[0], begin)

    def _group(self) -> Expression:
        scanner, begin = self._scanner, self._scanner.at
        if self._depth == MAX_DEPTH:
            scanner.fail(f"groups are nested more than {MAX_DEPTH} deep")
        optional = scanner.take("[") or not scanner.take("(")
        self._depth += 1
        inner = self._options()
        self._depth -= 1
        if not scanner.take("]" if optional else ")"):
            scanner.fail("this group is not closed", begin)
        return repeated(inner, 0, 1) if optional else inner

    def _literal(self) -> Expression:
        scanner, begin = self._scanner, self._scanner.at
        text = scanner.literal()
        if scanner.match(_RANGE):
            last = scanner.literal()
            if len(text) != 1 or len(last) != 1 or text > last:
                scanner.fail(f"{text!r} to {last!r} is no range of characters", begin)
            return bare(regexes.Characters(normalize([(ord(text), ord(last))])))
        if scanner.take("i"):
            return self._pattern(re.escape(text), "i", begin)
        return Text(text)

    def _pattern(self, pattern: str, flags: str, begin: int) -> Pattern:
        if unknown := set(flags) - set("imsux"):
            self._scanner.refuse(f"the regex flag {min(unknown)!r}", begin)
        flags = "".join(sorted(set(flags) - {"u"}))
        pattern = f"(?{flags}){pattern}" if flags else pattern
        try:
            tree = parse_regex(pattern, Dialect.PYTHON)
        except GrammarError as error:
            kind = Unsupported if isinstance(error, Unsupported) else GrammarError
            raise kind(f"{self._scanner.place(begin)}: {error}") from error
        if tree.bare:
            return bare(tree)
        return Pattern(tree, re.fullmatch(pattern, "") is not None)

    def _schema(self) -> Expression:
        scanner, begin = self._scanner, self._scanner.at
        directive = scanner.match(_DIRECTIVE)
        if directive is None or directive[1] != "json":
            scanner.refuse(f"%{directive[1] if directive else ''} in a rule", begin)
        if self._in_terminal:
            scanner.fail("%json stands in rules only", begin)
        return Schema(json.dumps(self._json(), ensure_ascii=False))

    def _json(self) -> object:
        scanner = self._scanner
        self._blank()
        try:
            value, scanner.at = json.JSONDecoder().raw_decode(scanner.text, scanner.at)
        except json.JSONDecodeError as error:
            scanner.fail(f"this is not JSON: {error.msg}", error.pos)
        except RecursionError:
            scanner.fail("this JSON is nested too deeply")
        return value

    # All rules

    def _refuse_recursive_terminals(self, grammar: Grammar) -> None:
        graph = {
            name: set(references(expression))
            for name, expression in grammar.rules.items()
            if _is_terminal(name)
        }
        for group in cycles(graph):
            self._definitions.fail(
                group[0], f"terminals refer to each other in a cycle: {', '.join(group)}"
            )

    def _ignoring(self, grammar: Grammar) -> Grammar:
        rules = {
            name: expression if _is_terminal(name) else _with_ignored(expression)
            for name, expression in grammar.rules.items()
        }
        rules[_IGNORED] = repeated(either(self._ignored), 0, None)
        return Grammar(grammar.root, rules)


def _is_terminal(name: str) -> bool:
    return name.isupper()


def _with_ignored(expression: Expression) -> Expression:
    """A rule's expression, with what is ignored after each of its terminals."""
    match expression:
        case Reference(name) if not _is_terminal(name):
            return expression
        case Sequence(parts):
            return sequence(map(_with_ignored, parts))
        case Either(options):
            return either(map(_with_ignored, options))
        case Repeated(body, low, high):
            return repeated(_with_ignored(body), low, high)
        case _:
            return sequence((expression, Reference(_IGNORED)))
