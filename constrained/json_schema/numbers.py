"""Rules of constrained numbers; knows nothing of schemas.

A number that is only told by its type is written in any way JSON has. One with bounds, multiples
or forbidden values is written without an exponent.
"""

from decimal import Decimal
from functools import lru_cache
from typing import Final

from ..errors import Unsupported
from ..limits import CompileLimits, Meter
from ..pushdown.builder import FINAL, Builder, Edges, Part
from ..regexes.lower import add_regex
from ..regexes.parse import Dialect, parse
from .bounds import bounded_integer, bounded_number
from .constraints import FRACTION, INTEGER, Case, Limit

_WHOLE: Final = r"-?(0|[1-9][0-9]*)"
_ANY: Final = rf"{_WHOLE}(\.[0-9]+)?([eE][+-]?[0-9]+)?"
# With a fraction only so long that the nearest doubles of different numbers differ.
_FRACTIONS: Final = "|".join(
    [r"0\.[0-9]{0,14}[1-9]"]
    + [rf"[1-9][0-9]{{{15 - n}}}\.[0-9]{{0,{n - 2}}}[1-9]" for n in range(2, 16)]
)
_WITH_FRACTION: Final = rf"-?({_FRACTIONS})0*"
_PLAIN: Final = rf"{_WHOLE}|-?(0|[1-9][0-9]{{0,13}})\.0+|{_WITH_FRACTION}"
_SHORT: Final = r"-?[0-9]{1,15}(\.0+)?|-?[0-9]+"
_SHORTEST: Final = rf"0|-?[1-9][0-9]*|-?({_FRACTIONS})"
_ZEROS: Final = r"(\.0+)?"
# Above 0, with an exponent and yet too large to be rounded down to 0.
_ABOVE: Final = r"(0|[1-9][0-9]*)(\.[0-9]{1,30})?([eE][+-]?[0-9]{1,2})?"
_NOUGHT: Final = r"0(\.0+)?([eE][+-]?[0-9]+)?"
_ABOVE_ZERO: Final = Limit(Decimal(0), True)
_ZERO: Final = Limit(Decimal(0), False)
_MOST_STATES: Final = 20_000


class Numbers:
    """The rules of one machine. integer_fraction: 1.0 may stand for the integer 1."""

    def __init__(self, builder: Builder, integer_fraction: bool) -> None:
        self._builder = builder
        self._zeros = _ZEROS if integer_fraction else ""
        self._rules: dict[object, int] = {}

    def rule(self, case: Case, pointer: str) -> int | None:
        """The numbers of a case; None where there are none."""
        types = case.types & {INTEGER, FRACTION}
        given = [other.value for other in case.others]
        others = tuple(v for v in given if isinstance(v, int | float) and not isinstance(v, bool))
        key = (types, case.least, case.most, case.steps, others)
        if key not in self._rules:
            try:
                parts = self._parts(types, case, others)
            except Unsupported as error:
                raise Unsupported(f"{pointer}: {error}") from error
            self._rules[key] = self._builder.rule(self._builder.product(parts, FINAL))
        return self._rules[key]

    def plain(self) -> int:
        """The rule of the numbers as they are written shortest, without an exponent."""
        return self._regex(_SHORTEST).rule

    def _parts(
        self, types: frozenset[str], case: Case, others: tuple[int | float, ...]
    ) -> list[Part]:
        parts = [self._regex(self._syntax(types, case))]
        if self._zeros and types == {INTEGER} and (case.least or case.most or case.steps or others):
            parts.append(self._regex(_SHORT))
        if types == {FRACTION} and (case.least or case.most):
            parts.append(self._regex(_WITH_FRACTION))
        for step in case.steps:
            if not (step.of == 1 and types == {INTEGER}):
                parts.append(Part(self._multiples(step.of), not step.wanted))
            elif not step.wanted:
                parts.append(self._regex("(?!)"))
        if case.least == _ABOVE_ZERO and self._has_exponent(types, case):
            parts = [self._regex(_ABOVE), Part(self._regex(_NOUGHT).rule, negated=True)]
        if others:
            texts = "|".join(_spellings(Decimal(repr(value))) for value in others)
            parts.append(Part(self._regex(texts).rule, negated=True))
        return parts

    def _syntax(self, types: frozenset[str], case: Case) -> str:
        if case.least == _ZERO and self._has_exponent(types, case):
            return _ANY.removeprefix("-?")  # the exponent says nothing of the sign
        if case.least or case.most:
            low = None if case.least is None else (case.least.value, case.least.excluded)
            high = None if case.most is None else (case.most.value, case.most.excluded)
            try:
                if types == {INTEGER}:
                    return f"({bounded_integer(low, high)}){self._zeros}"
                return bounded_number(low, high)
            except Unsupported as error:
                if "no " not in str(error):
                    raise
                return "(?!)"
        if types == {INTEGER}:
            return _WHOLE + self._zeros
        if types == {FRACTION}:
            return _WITH_FRACTION
        return _ANY if not case.steps and not case.others else _PLAIN

    @staticmethod
    def _has_exponent(types: frozenset[str], case: Case) -> bool:
        return types == {INTEGER, FRACTION} and not (case.most or case.steps or case.others)

    def _regex(self, text: str) -> Part:
        if text not in self._rules:
            self._rules[text] = self._builder.include(*_fragment(text))
        return Part(self._rules[text])

    def _multiples(self, of: Decimal) -> int:
        """The rule of the decimals that are whole multiples of `of`: their digits are read as one
        number, whose rest by division is the state."""
        key = ("multiples", of)
        if key not in self._rules:
            self._rules[key] = self._builder.rule(self._multiples_start(of))
        return self._rules[key]

    def _multiples_start(self, of: Decimal) -> int:
        sign, digits, exponent = of.normalize().as_tuple()
        assert isinstance(exponent, int) and not sign
        modulus = int("".join(map(str, digits))) * 10 ** max(exponent, 0)
        places = max(-exponent, 0)
        if modulus * (places + 1) > _MOST_STATES:
            raise Unsupported(f"multiples of {of} are not supported: too many digits")
        builder = self._builder
        zeros = builder.loop()
        builder.close_loop(zeros, builder.text(b"0", zeros), FINAL)
        # after[rest]: the state behind so many digits of the fraction, from the last place back.
        after = [zeros if rest == 0 else builder.nothing() for rest in range(modulus)]
        for place in range(places - 1, -1, -1):
            here = []
            for rest in range(modulus):
                edges = self._digits(after, rest, modulus)
                ends = rest * 10 ** (places - place) % modulus == 0
                here.append(builder.state(edges, (FINAL,) if ends and place else ()))
            after = here
        if not places:
            zero = builder.text(b"0", zeros)
            after = [zero if rest == 0 else builder.nothing() for rest in range(modulus)]
        whole = [builder.loop() for _ in range(modulus)]
        for rest, state in enumerate(whole):
            builder.edges[state] = self._digits(whole, rest, modulus)
            fraction = builder.text(b".", after[rest])
            ends = rest * 10**places % modulus == 0
            builder.close_loop(state, fraction, *((FINAL,) if ends else ()))
        return builder.either([builder.text(b"-", whole[0]), whole[0]])

    @staticmethod
    def _digits(targets: list[int], rest: int, modulus: int) -> Edges:
        return tuple((48 + d, 48 + d, targets[(rest * 10 + d) % modulus]) for d in range(10))


@lru_cache(maxsize=512)
def _fragment(text: str) -> tuple[Builder, int]:
    """The rule of a regex in a builder of its own: schemas bound numbers alike again and again."""
    builder = Builder(Meter(CompileLimits()))
    return builder, builder.rule(add_regex(builder, parse(text, Dialect.JSON), FINAL))


def _spellings(value: Decimal) -> str:
    """Every way to write a number without an exponent."""
    sign = "-" if value < 0 else "-?" if value == 0 else ""
    whole, _, fraction = format(abs(value), "f").partition(".")
    fraction = fraction.rstrip("0")
    return rf"{sign}{whole}" + (rf"\.{fraction}0*" if fraction else r"(\.0+)?")
