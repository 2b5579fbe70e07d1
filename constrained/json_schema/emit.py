"""The rules of a machine that reads what a schema allows, one for each term that values meet.

Owns: recursion (a term met again is the same rule), single values, and which part of a case belongs
to which type. Knows no keyword.
"""

from functools import lru_cache

from ..errors import LimitExceeded
from ..limits import CompileLimits, Meter
from ..pushdown.builder import FINAL, Builder, Collection, Member, Part
from ..spec import Whitespace
from .arrays import add_array
from .cases import Cases
from .constraints import (
    ANYTHING,
    ARRAY,
    BOOLEAN,
    FRACTION,
    FREE,
    INTEGER,
    NOTHING,
    NULL,
    OBJECT,
    STRING,
    Case,
    Given,
    Term,
)
from .document import Document
from .evaluate import Evaluator
from .numbers import Numbers
from .objects import add_object
from .spacing import Spacing
from .strings import Strings, matches


class Emitter:
    """Of one machine. ordered: properties come as the schema lists them, others after them;
    open_objects: see `JsonSchema`."""

    def __init__(
        self,
        builder: Builder,
        cases: Cases,
        evaluator: Evaluator,
        spacing: Spacing,
        *,
        ordered: bool,
        integer_fraction: bool,
        open_objects: bool,
    ) -> None:
        self.builder = builder
        self.spacing = spacing
        self.ordered = ordered
        self.open_objects = open_objects
        self._evaluator = evaluator
        self.strings = Strings(builder)
        self._numbers = Numbers(builder, integer_fraction)
        self._cases = cases
        self._rules: dict[Term, int] = {}
        self._by_cases: dict[tuple[Case, ...], int] = {}
        self._waiting: list[tuple[int, Term]] = []
        self._members: dict[tuple[str, int], int] = {}

    def rule(self, wanted: Term) -> int:
        """The rule of the values that fit a term; made later, by `finish`."""
        if wanted not in self._rules:
            if wanted == ANYTHING:
                self._rules[wanted] = self.builder.include(*_any_value(self.spacing.style))
            else:
                self._declare(wanted)
        return self._rules[wanted]

    def finish(self) -> None:
        """Make every rule that was asked for."""
        while self._waiting:
            rule, wanted = self._waiting.pop()
            try:
                self.builder.define(rule, self._start(wanted))
            except LimitExceeded as error:
                raise LimitExceeded(f"{_pointer(wanted)}: {error}") from error

    def _declare(self, wanted: Term) -> int:
        rule = self._rules[wanted] = self.builder.declare()
        self._waiting.append((rule, wanted))
        return rule

    def values_of(self, wanted: Term) -> tuple[object, ...] | None:
        """The values that fit a term, where they are scalars and few; None otherwise."""
        cases = self._cases.of(wanted)
        values: list[object] = []
        for case in cases:
            if case.values is not None:
                values += [given.value for given in case.values]
            elif case.types <= {NULL, BOOLEAN}:
                values += [None] * (NULL in case.types) + [True, False] * (BOOLEAN in case.types)
            else:
                return None
        if any(isinstance(value, list | dict) for value in values):
            return None
        return tuple(given.value for given in dict.fromkeys(map(Given, values)))

    def plain_rule(self, wanted: Term) -> int | None:
        """The rule of the values that fit a term, where they are scalars, each written in one way
        only; None where some are not scalars."""
        builder, states = self.builder, []
        for case in self._cases.of(wanted):
            if case.values is None and case.types & {ARRAY, OBJECT}:
                return None
            if case.values is not None:
                if any(isinstance(given.value, list | dict) for given in case.values):
                    return None
                texts = [self._texts(given.value)[0] for given in case.values]
                states.append(builder.one_of(texts, FINAL))
                continue
            if NULL in case.types:
                states.append(builder.text(b"null", FINAL))
            if BOOLEAN in case.types:
                states.append(builder.one_of((b"true", b"false"), FINAL))
            if case.types & {INTEGER, FRACTION}:
                number = self._numbers.rule(case, _pointer(wanted))
                if number is not None:
                    parts = [Part(number), Part(self._numbers.plain())]
                    states.append(builder.product(parts, FINAL))
            if STRING in case.types:
                parts = [Part(self.strings.content(case)), Part(self.strings.plain_content())]
                states.append(self.strings.quoted(self.strings.product(parts), FINAL))
        return builder.rule(builder.either(states) if states else builder.nothing())

    def is_scalar(self, wanted: Term) -> bool:
        """Whether no array and no object fits a term."""
        return all(not case.types & {ARRAY, OBJECT} for case in self._cases.of(wanted))

    def fits_key(self, name: str, wanted: Term) -> bool:
        return self._evaluator.fits(name, wanted)

    def matches(self, pattern: str, name: str) -> bool:
        """Whether a pattern is found in a property's name."""
        return self._evaluator.matches("pattern", pattern, name)

    def key_cases(self, wanted: Term) -> list[Case]:
        """The alternatives of a term for keys, which are strings."""
        return [case for case in self._cases.of(wanted) if STRING in case.types]

    def member(self, name: str, value: int) -> int:
        """The rule of one property, its value read by a rule."""
        key = (name, value)
        if key not in self._members:
            start = self._key(name, self.builder.call(value, FINAL))
            self._members[key] = self.builder.rule(start)
        return self._members[key]

    def value(self, value: object, then: int) -> int:
        """The state that reads one given value."""
        builder = self.builder
        if isinstance(value, list):
            after = self.spacing.close(builder, b"]", then)
            for number, item in enumerate(reversed(value)):
                after = self.value(
                    item, builder.call(self.spacing.comma, after) if number else after
                )
            return self.spacing.open(builder, b"[", after)
        if isinstance(value, dict):
            return self._given_object(value, then)
        return self._scalar(value, then)

    def _given_object(self, value: dict[str, object], then: int) -> int:
        builder, close = self.builder, self.spacing.close(self.builder, b"}", then)
        if not value:
            return self.spacing.open(builder, b"{", close)
        members = tuple(
            Member(builder.rule(self._key(name, self.value(each, FINAL))), once=True)
            for name, each in value.items()
        )
        every = frozenset(range(len(members)))
        collection = Collection(members, self.spacing.comma, self.ordered, close, required=every)
        return self.spacing.open(builder, b"{", builder.collect(collection))

    def _key(self, name: str, then: int) -> int:
        """The state that reads a key and its colon."""
        return self.builder.text(self.spacing.quoted(name), self.spacing.colon(self.builder, then))

    def _scalar(self, value: object, then: int) -> int:
        builder = self.builder
        if isinstance(value, str):
            return builder.text(self.spacing.quoted(value), then)
        return builder.one_of(self.spacing.spellings(value), then)

    def _start(self, wanted: Term) -> int:
        if wanted == NOTHING:
            return self.builder.nothing()
        cases = tuple(dict.fromkeys(self._cases.of(wanted)))
        if not cases:
            return self.builder.nothing()
        if cases == (FREE,) and wanted != ANYTHING:
            return self.builder.starts[self.rule(ANYTHING)]
        # Terms that come down to the same alternatives share their states.
        if cases not in self._by_cases:
            pointer = _pointer(wanted)
            states = [self._case(case, pointer) for case in cases]
            self._by_cases[cases] = self.builder.either(states)
        return self._by_cases[cases]

    def _case(self, case: Case, pointer: str) -> int:
        builder = self.builder
        if case.values is not None:
            values = [given.value for given in case.values]
            texts = [t for v in values if not isinstance(v, list | dict) for t in self._texts(v)]
            states = [builder.one_of(texts, FINAL)] if texts else []
            states += [self.value(v, FINAL) for v in values if isinstance(v, list | dict)]
            return builder.either(states)
        states = []
        if NULL in case.types:
            states.append(builder.text(b"null", FINAL))
        if BOOLEAN in case.types:
            states.append(builder.one_of((b"true", b"false"), FINAL))
        if case.types & {INTEGER, FRACTION}:
            number = self._numbers.rule(case, pointer)
            if number is not None:
                states.append(builder.call(number, FINAL))
        if STRING in case.types:
            states.append(self.strings.quoted(self._content(case), FINAL))
        if ARRAY in case.types:
            states.append(add_array(self, case, pointer))
        if OBJECT in case.types:
            states.append(add_object(self, case, pointer))
        return builder.either(states)

    def _content(self, case: Case) -> int:
        is_free = not case.matching and not case.others and case.length == (0, None)
        return self.strings.any_content() if is_free else self.strings.content(case)

    def _texts(self, value: object) -> list[bytes]:
        if isinstance(value, str):
            return [self.spacing.quoted(value)]
        return self.spacing.spellings(value)


@lru_cache(maxsize=8)
def _any_value(whitespace: Whitespace) -> tuple[Builder, int]:
    """The rule of any JSON value, in a builder of its own: most schemas are open somewhere."""
    builder, document = Builder(Meter(CompileLimits())), Document(True)
    evaluator = Evaluator(document, matches)
    emitter = Emitter(
        builder,
        Cases(document, evaluator, builder.meter.check_time),
        evaluator,
        Spacing(builder, whitespace, integer_fraction=False),
        ordered=True,
        integer_fraction=False,
        open_objects=True,
    )
    rule = emitter._declare(ANYTHING)
    emitter.finish()
    return builder, rule


def _pointer(wanted: Term) -> str:
    return min((literal.place.pointer for literal in wanted), default="#")
