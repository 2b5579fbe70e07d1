"""The pipeline from a constraint to a machine: choices, forced runs, messages, limits."""

import re
import warnings

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sapwood.constrained import (
    Choice,
    CompileLimits,
    GrammarError,
    JsonSchema,
    LimitExceeded,
    Regex,
    Unsupported,
    Vocabulary,
)
from sapwood.constrained.lower import lower
from sapwood.constrained.pushdown.machine import DEAD
from sapwood.constrained.pushdown.token_machine import TokenMachine, token_machine
from sapwood.constrained.regexes.syntax import refuse_set_syntax

LIMITS = CompileLimits()
BYTES = Vocabulary([None, *(bytes([byte]) for byte in range(256))], [0])


def machine_of(spec) -> TokenMachine:
    return token_machine(lower(spec, LIMITS), BYTES, 10.0)


def accepts(machine: TokenMachine, text: bytes) -> bool:
    here = machine.step(machine.start, text)
    return here != DEAD and machine.accepting(here)


@settings(deadline=None, max_examples=1500)
@given(st.text(r"[]^-&~|\(?#):ad", max_size=9) | st.text("[]^-&a", max_size=6).map("[a{}]".format))
@example("[---]")
@example("[]--a]")
@example("[a-&&]")
def test_what_re_warns_of_is_refused_before_re_sees_it(pattern):
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        try:
            re.compile(pattern)
        except re.error:
            valid = False
        else:
            valid = True
    try:
        refuse_set_syntax(pattern)
    except GrammarError:
        assert warned or not valid or "[:" in pattern
    else:
        assert not warned


def test_a_pattern_is_shown_as_it_was_written():
    for spec in (Regex(r"(?<=\d)b"), JsonSchema(r'{"pattern":"(?<=\\d)b"}')):
        text = spec.pattern if isinstance(spec, Regex) else spec.schema
        with pytest.raises(GrammarError, match=re.escape(f" '{text}': ")):
            lower(spec, LIMITS)
    with pytest.raises(GrammarError, match=re.escape(r"regex '(\n\udc00': ")):
        lower(Regex("(\n\udc00"), LIMITS)


@pytest.mark.parametrize(
    ("pattern", "error", "message"),
    [
        (r"(a)\1", Unsupported, r"backreference"),
        ("a(", GrammarError, "not a valid regex: missing .* at position 1"),
        ("(" * 3000 + ")" * 3000, GrammarError, "nested too deeply|at position"),
    ],
)
def test_regexes_that_are_refused(pattern, error, message):
    with pytest.raises(error, match=message):
        machine_of(Regex(pattern)).needed(0)


def test_counted_states_meet_the_limit():
    with pytest.raises(LimitExceeded, match="more than 50 states"):
        lower(Choice(tuple(f"{i * 7919}" for i in range(100))), CompileLimits(states=50))


@pytest.mark.parametrize(
    "pattern", ["(a|b)*a.{30}", "x{1,100000}", ".{1,100000}", r"(\w{1,90}x){9}"]
)
def test_large_counts_are_no_large_machines(pattern):
    """What an automaton that is made in advance could not hold."""
    assert lower(Regex(pattern), LIMITS).num_states < 20_000
    assert machine_of(Regex(pattern)).needed(0) >= 1


@pytest.mark.parametrize(
    ("pattern", "steps"),
    [
        ("abc", [(b"", b"abc", True)]),
        ("abc[de]fg", [(b"", b"abc", False), (b"ab", b"c", False), (b"abcd", b"fg", True)]),
        ("ab?c", [(b"", b"a", False), (b"ab", b"c", True)]),
        ("a(bc)?", [(b"", b"a", False), (b"a", b"", False), (b"ab", b"c", True)]),
        ("(xa|ya)b*c", [(b"x", b"a", False)]),
        ("(xab|yab)c", [(b"x", b"abc", True), (b"ya", b"bc", True)]),
        ("[éè]x", [(b"", b"\xc3", False), (b"\xc3\xa9", b"x", True)]),
    ],
)
def test_forced_runs(pattern, steps):
    machine = machine_of(Regex(pattern))
    for before, run, ends in steps:
        text, end = machine.forced(machine.step(machine.start, before))
        assert text == run
        assert end == machine.step(machine.start, before + run)
        assert machine.is_end(end) == ends


@settings(deadline=None, max_examples=60)
@given(st.sets(st.text(max_size=4), min_size=1, max_size=12), st.text(max_size=5))
def test_a_choice_accepts_its_options_and_no_other_text(options, other):
    machine = machine_of(Choice(tuple(options)))
    for option in options:
        assert accepts(machine, option.encode())
        for text in (option[:-1], option + "x", other):
            assert accepts(machine, text.encode()) == (text in options)


def test_a_thousand_options_are_a_trie():
    options = tuple(f"option number {i * 7919}" for i in range(1000))
    machine = machine_of(Choice(options))
    assert all(accepts(machine, option.encode()) for option in options)
    assert not accepts(machine, b"option number 1")


def test_half_a_surrogate_pair_is_refused():
    with pytest.raises(GrammarError, match="surrogate"):
        lower(Choice(("\ud800",)), LIMITS)
