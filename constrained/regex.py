"""From a regular expression to automaton parts; knows nothing of tokens.

interegular parses the structure that `regex_scan` prepares; the meaning of every atom is Python's
own. The parts read UTF-8 bytes, or, inside a JSON string, the escaped form of each character.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from .code_points import ALL, Ranges
from .determinize import determinize
from .dfa import conjunction
from .errors import GrammarError, Unsupported
from .nfa import FINAL, Nfa
from .regex_scan import Anchor, Dialect, Scanned, scan
from .regex_sets import check_syntax

WriteCharacter = Callable[[Nfa, Ranges, int], int]
"""How one character of a set is written: returns the state that reads it and goes on."""


def plain_character(nfa: Nfa, ranges: Ranges, then: int) -> int:
    """The character itself, in UTF-8."""
    return nfa.character(ranges, then)


def add_regex(nfa: Nfa, pattern: str, then: int) -> int:
    """The state from which a full match of the Python regex `pattern` leads to `then`.

    Raises GrammarError where `re` refuses the pattern, Unsupported for what no automaton of ours
    reads (backreferences, lookbehind, word boundaries...), each with its position.
    """
    parsed = parse(pattern, Dialect.PYTHON)
    return _Builder(nfa, parsed.scanned, plain_character).pattern(parsed.tree, then)


def add_search(nfa: Nfa, pattern: str, write: WriteCharacter, any_character: Ranges) -> int:
    """As JSON Schema reads `pattern`: a match anywhere in the text. Ends in FINAL."""
    parsed = parse(pattern, Dialect.JSON)
    after = nfa.loop()
    nfa.close_loop(after, write(nfa, any_character, after), FINAL)
    match = _Builder(nfa, parsed.scanned, write).pattern(parsed.tree, after)
    before = nfa.loop()
    return nfa.close_loop(before, write(nfa, any_character, before), match)


@dataclass(frozen=True)
class Parsed:
    """interegular's tree of the scanned structure."""

    scanned: Scanned
    tree: Any


@lru_cache(maxsize=256)
def parse(pattern: str, dialect: Dialect) -> Parsed:
    from interegular.patterns import InvalidSyntax, parse_pattern

    try:
        check_syntax(pattern)
        scanned = scan(pattern, dialect)
        return Parsed(scanned, parse_pattern(scanned.structure))
    except RecursionError as error:
        raise GrammarError("the regex is nested too deeply") from error
    except InvalidSyntax as error:
        raise GrammarError("the regex could not be parsed") from error


class _Builder:
    """Visits interegular's tree, whose classes are told apart by name (they are private)."""

    def __init__(self, nfa: Nfa, scanned: Scanned, write: WriteCharacter) -> None:
        self._nfa = nfa
        self._atoms = scanned.atoms
        self._write = write
        self._open_loops = 0

    def pattern(self, node: Any, then: int) -> int:
        return self._nfa.either([self._concatenation(option, then) for option in node.options])

    def _concatenation(self, node: Any, then: int) -> int:
        for part in reversed(node.parts):
            then = self._part(part, then)
        return then

    def _part(self, node: Any, then: int) -> int:
        kind = type(node).__name__
        if kind == "_CharGroup":
            (char,) = node.chars
            return self._atom(char, then)
        if kind == "Pattern":
            return self.pattern(node, then)
        if kind == "_Repeated":
            return self._repeated(node, then)
        assert kind == "_NonCapturing" and not node.backwards, kind
        return self._lookahead(node, then)

    def _repeated(self, node: Any, then: int) -> int:
        if node.max is None:
            loop = self._nfa.loop()
            self._open_loops += 1
            body = self._part(node.base, loop)
            self._open_loops -= 1
            then = self._nfa.close_loop(loop, body, then)
        else:
            after = then
            for _ in range(node.max - node.min):
                then = self._nfa.either([self._part(node.base, then), after])
        for _ in range(node.min):
            then = self._part(node.base, then)
        return then

    def _atom(self, char: str, then: int) -> int:
        atom = self._atoms.get(char, ((ord(char), ord(char)),))
        if not isinstance(atom, Anchor):
            return self._write(self._nfa, atom, then)
        state = self._nfa.state()
        if atom is Anchor.START:
            self._nfa.at_start[state] = then
            return state
        self._nfa.at_end[state] = then
        if atom is Anchor.END_OR_LAST_NEWLINE:
            self._refuse_in_loop("'$'")
            if self._accepts_newline(then):
                return self._nfa.either([state, self._nfa.text(b"\n", FINAL)])
        return state

    def _accepts_newline(self, state: int) -> bool:
        rest = determinize(self._nfa, state, whole_text=False)
        steps = {low: to for low, high, to in (rest.rows or [[]])[0] if low <= 10 <= high}
        return any(rest.accepting[target] for target in steps.values())

    def _lookahead(self, node: Any, then: int) -> int:
        """What follows must (or must not) begin with a match: intersect it with `inner .*`."""
        self._refuse_in_loop("lookahead")
        anything = self._nfa.loop()
        self._nfa.close_loop(anything, self._any_character(anything), FINAL)
        inner = determinize(self._nfa, self.pattern(node.inner, anything), whole_text=False)
        rest = determinize(self._nfa, then, whole_text=False)
        both = conjunction(rest, inner, self._nfa.meter, without_b=node.negate)
        return self._nfa.state() if both.is_empty else self._nfa.embed(both, FINAL)

    def _any_character(self, then: int) -> int:
        return self._write(self._nfa, ALL, then)

    def _refuse_in_loop(self, what: str) -> None:
        if self._open_loops:
            raise Unsupported(f"{what} inside an unbounded repetition is not supported")
