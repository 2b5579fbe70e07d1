"""A second opinion on plain regexes: interegular's automata."""

import interegular
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sapwood.constrained import CompileLimits, Regex
from sapwood.constrained.lower import lower
from sapwood.constrained.pushdown.machine import DEAD, Machine

PATTERNS = [
    "(a|b)*abb",
    "a{2,5}b?c{0,3}",
    "(ab|a)(bc|c)?",
    "[a-c]+(,[a-c]+)*",
    "(a*b*)*c",
    "((a|ab)(c|bcd)){1,3}",
]


@pytest.mark.parametrize("pattern", PATTERNS)
def test_interegular_agrees(pattern: str) -> None:
    machine = Machine(lower(Regex(pattern), CompileLimits()))
    automaton = interegular.parse_pattern(pattern).to_fsm()

    @settings(deadline=None, max_examples=300)
    @given(st.text("abcd,", max_size=12))
    def agrees(text: str) -> None:
        here = machine.start
        for byte in text.encode():
            here = machine.step(here, byte) if here != DEAD else DEAD
        assert (here != DEAD and machine.accepting(here)) == automaton.accepts(text)

    agrees()
