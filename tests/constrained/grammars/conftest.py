"""The language of a constraint, as the Python machine reads it."""

from collections.abc import Callable

import pytest

from sapwood.constrained.grammars.lower import add_grammar
from sapwood.constrained.json_schema.lower import add_schema
from sapwood.constrained.limits import CompileLimits, Meter
from sapwood.constrained.pushdown.builder import FINAL, Builder
from sapwood.constrained.pushdown.machine import DEAD, Machine
from sapwood.constrained.pushdown.program import finish
from sapwood.constrained.regexes.lower import add_regex
from sapwood.constrained.spec import Choice, Constraint, JsonSchema, Regex


class Language:
    """reads: the text is one of the language; begins: some text of it begins so."""

    def __init__(self, constraint: Constraint, states: int = 100_000) -> None:
        self.builder = Builder(Meter(CompileLimits(seconds=60, states=states)))
        self.machine = Machine(finish(self.builder, _add(self.builder, constraint)))

    def reads(self, text: str) -> bool:
        at = self._after(text)
        return at != DEAD and self.machine.accepting(at)

    def begins(self, text: str) -> bool:
        return self._after(text) != DEAD

    def _after(self, text: str) -> int:
        at = self.machine.start
        for byte in text.encode():
            if at == DEAD:
                break
            at = self.machine.step(at, byte)
        return at


def _add(builder: Builder, constraint: Constraint) -> int:
    match constraint:
        case Regex(pattern):
            return builder.rule(add_regex(builder, pattern, FINAL))
        case Choice(options):
            return builder.rule(builder.one_of((each.encode() for each in options), FINAL))
        case JsonSchema():
            return add_schema(builder, constraint)
        case _:
            return add_grammar(builder, constraint, _add)


@pytest.fixture(scope="session")
def language() -> Callable[..., Language]:
    return Language
