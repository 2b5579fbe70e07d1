"""From the rules of a grammar to rules of a pushdown machine; knows no syntax.

The machine refuses a rule that calls itself before a byte is read (left recursion). So rules that
may do so are lowered together: with A = A x | B y | b and B = A z, each text of A is first a b,
after which there is an A, and each x after an A makes an A again, each z a B, and each y after a B
an A. These are the steps of an automaton with a state for each rule, "there is an A", which reads
the texts of A when it may end there. No case of left recursion is left out.

The empty text would make ways of its own (B? A x). So the automaton is one of the texts that are
not empty, and a rule that reads the empty text too is that automaton or nothing.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from ..code_points import ALL
from ..pushdown.builder import FINAL, Builder, Part
from ..regexes import tree as regexes
from ..regexes.lower import add_regex
from .analysis import is_nullable, left_cycles, nullable_rules
from .fold import folded
from .tree import (
    Either,
    Expression,
    Grammar,
    Pattern,
    Reference,
    Repeated,
    Schema,
    Sequence,
    Text,
    repeated,
)

UNROLLED: Final = 64
"""A repetition that needs more states than this, written out, is counted instead."""

AddSchema = Callable[[str], int]
"""The rule of the JSON texts that fit a schema."""


@dataclass
class _Ways:
    """How an expression reads a text that is not empty: from one of `starts`; or, first a text of
    a rule of the cycle, after which it goes on in one of `after[rule]`."""

    starts: list[int] = field(default_factory=list)
    after: dict[str, list[int]] = field(default_factory=dict)

    def add(self, other: "_Ways") -> None:
        self.starts += other.starts
        for name, states in other.after.items():
            self.after.setdefault(name, []).extend(states)


class RulesLowering:
    """Lowers the rules of one grammar, as they are called for."""

    def __init__(self, builder: Builder, grammar: Grammar, add_schema: AddSchema) -> None:
        self._builder = builder
        self._add_schema = add_schema
        self._root = grammar.root
        self._bodies = folded(grammar.rules)
        self._nullable = nullable_rules(self._bodies)
        self._cycles = left_cycles(self._bodies, self._nullable)
        self._rules: dict[tuple[str, bool], int] = {}
        self._pending: list[tuple[str, bool]] = []
        self._schemas: dict[str, int] = {}
        self._counted: dict[Expression, int] = {}

    def lower(self) -> int:
        root = self._rule(self._root)
        while self._pending:
            name, nonempty = key = self._pending.pop()
            self._builder.define(self._rules[key], self._start(name, nonempty))
        return root

    def _rule(self, name: str, nonempty: bool = False) -> int:
        """The rule of the texts of a rule (`nonempty`: less the empty text)."""
        key = (name, nonempty and name in self._nullable)
        if key not in self._rules:
            self._rules[key] = self._builder.declare()
            self._pending.append(key)
        return self._rules[key]

    def _start(self, name: str, nonempty: bool) -> int:
        if name in self._cycles:
            if nonempty or name not in self._nullable:
                return self._cycle(name, self._cycles[name])
            return self._builder.either([self._builder.call(self._rule(name, True), FINAL), FINAL])
        if nonempty:
            return self._nonempty(self._bodies[name], FINAL)
        return self._lower(self._bodies[name], FINAL)

    # Expressions

    def _lower(self, expression: Expression, then: int) -> int:
        """The state that reads an expression and goes on to `then`."""
        builder = self._builder
        match expression:
            case Pattern(regex):
                return add_regex(builder, regex, then)
            case Schema(schema):
                return builder.call(self._schema(schema), then)
            case Reference(name):
                return builder.call(self._rule(name), then)
            case Sequence(parts):
                for part in reversed(parts):
                    then = self._lower(part, then)
                return then
            case Either(options):
                return builder.either([self._lower(option, then) for option in options])
            case Repeated(body, low, high):
                return self._repeated(body, low, high, then)
            case Text():
                raise AssertionError("texts are folded into patterns")

    def _schema(self, schema: str) -> int:
        if schema not in self._schemas:
            self._schemas[schema] = self._add_schema(schema)
        return self._schemas[schema]

    def _repeated(self, body: Expression, low: int, high: int | None, then: int) -> int:
        if self._is_nullable(body):
            low = 0
        times = low if high is None else high
        if times > 1 and _size(body) * times > UNROLLED:
            return self._builder.repeat(self._counted_rule(body), low, high, then)
        if high is None:
            loop = self._builder.loop()
            again = self._lower(body, loop)
            self._builder.close_loop(loop, again, then)
            if low == 0:
                return loop
            then, low, high = again, low - 1, low - 1
        after = then
        for _ in range(high - low):
            then = self._builder.either([self._lower(body, then), after])
        for _ in range(low):
            then = self._lower(body, then)
        return then

    def _counted_rule(self, body: Expression) -> int:
        """What is counted in place of `body`: each time it reads something."""
        if body not in self._counted:
            self._counted[body] = self._builder.rule(self._nonempty(body, FINAL))
        return self._counted[body]

    def _is_nullable(self, expression: Expression) -> bool:
        return is_nullable(expression, self._nullable)

    # Texts that are not empty

    def _nonempty(self, expression: Expression, then: int) -> int:
        return self._builder.either(self._ways(expression, then, ()).starts)

    def _cycle(self, name: str, cycle: tuple[str, ...]) -> int:
        there_is = {each: self._builder.loop() for each in cycle}
        ways = _Ways()
        for each in cycle:
            ways.add(self._ways(self._bodies[each], there_is[each], cycle))
        for each, state in there_is.items():
            end = [FINAL] if each == name else []
            self._builder.close_loop(state, *ways.after.get(each, ()), *end)
        return self._builder.either(ways.starts)

    def _ways(self, expression: Expression, then: int, cycle: tuple[str, ...]) -> _Ways:
        builder = self._builder
        match expression:
            case Reference(name) if name in cycle:
                return _Ways(after={name: [then]})
            case Reference(name):
                return _Ways([builder.call(self._rule(name, nonempty=True), then)])
            case Pattern(regex, nullable):
                return _Ways([self._nonempty_regex(regex, then, nullable)])
            case Either(options):
                found = _Ways()
                for option in options:
                    found.add(self._ways(option, then, cycle))
                return found
            case Sequence(parts):
                return self._ways_through(parts, then, cycle)
            case Repeated(body, low, high):
                rest = repeated(body, max(low - 1, 0), None if high is None else high - 1)
                return self._ways(body, self._lower(rest, then), cycle)
            case _:
                return _Ways([self._lower(expression, then)])

    def _ways_through(
        self, parts: tuple[Expression, ...], then: int, cycle: tuple[str, ...]
    ) -> _Ways:
        """As long as all parts before it may be empty, a part may be the first that is not."""
        optional = 0
        while optional < len(parts) and self._is_nullable(parts[optional]):
            optional += 1
        found = _Ways()
        for number in range(len(parts) - 1, -1, -1):
            if number <= optional:
                found.add(self._ways(parts[number], then, cycle))
            if number:
                then = self._lower(parts[number], then)
        return found

    def _nonempty_regex(self, regex: regexes.Node, then: int, nullable: bool) -> int:
        if not nullable:
            return add_regex(self._builder, regex, then)
        if regex.bare:
            return add_regex(self._builder, regexes.nonempty(regex), then)
        something = regexes.repeated(regexes.Characters(ALL), 1, None)
        both = [self._builder.rule(add_regex(self._builder, r, FINAL)) for r in (regex, something)]
        return self._builder.product([Part(rule) for rule in both], then)


def _size(expression: Expression) -> int:
    """About how many states an expression needs."""
    match expression:
        case Pattern(regex):
            return _regex_size(regex)
        case Sequence(parts) | Either(parts):
            return 1 + sum(map(_size, parts))
        case Repeated(body, low, high):
            times = low + 1 if high is None else high
            size = _size(body)
            return size * times if size * times <= UNROLLED else 1 + size
        case _:
            return 1


def _regex_size(regex: regexes.Node) -> int:
    times = 1
    if isinstance(regex, regexes.Repeated):
        times = regex.low + 1 if regex.high is None else regex.high
    size = 1 + sum(map(_regex_size, regex.children))
    return size if size * times > UNROLLED else size * times
