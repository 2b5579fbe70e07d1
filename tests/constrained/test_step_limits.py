"""What a running machine may cost: ambiguity is cheap, the rest ends with an error that says so."""

import random
import threading

import numpy as np
import pytest

from sapwood._native import NativeUnavailable
from sapwood.constrained import (
    CompiledGrammar,
    CompileLimits,
    Ebnf,
    JsonSchema,
    LimitExceeded,
    Regex,
    Vocabulary,
    fill_masks,
)
from sapwood.constrained.lower import lower
from sapwood.constrained.pushdown.machine import DEAD
from sapwood.constrained.pushdown.native import NativeTokenMachine, library
from sapwood.constrained.pushdown.token_machine import PythonTokenMachine

EOS = 256
PAIRS = [bytes([a, b]) for a in b'ab"' for b in b'ab"']
TRIPLES = [bytes([a]) + pair for a in b"ab" for pair in PAIRS]
TOKENS = Vocabulary([*(bytes([i]) for i in range(256)), None, *PAIRS, *TRIPLES], [EOS])
MACHINES = [PythonTokenMachine]
try:
    library()
    MACHINES.append(NativeTokenMachine)
except NativeUnavailable:
    pass

# Whether the n-th letter from the end is an a is 2^n states for every length of the text.
HEAVY = JsonSchema.of({"type": "string", "pattern": "(a|b)*a(a|b){24}$", "maxLength": 90})


def machine_of(kind, spec):
    return kind(lower(spec, CompileLimits(seconds=60)), TOKENS, 60)


def row_of(machine, here: int, budget: int | None = None) -> np.ndarray:
    row = np.empty(TOKENS.num_words, np.int32)
    machine.fill(here, budget, row)
    return row


AMBIGUOUS = {
    'root ::= root root | "a" | ""': b"a",
    'root ::= root root root | "a" | ""': b"a",
    'root ::= x root root | x\nx ::= "a" | "a" x | ""': b"a",
    'root ::= root "b" root | "a" | "(" root ")"': b"ab",
    'root ::= (root root)* "b" | ("a" root?)* | ""': b"ab",
}


@pytest.mark.parametrize("kind", MACHINES)
@pytest.mark.parametrize("grammar", AMBIGUOUS)
def test_ambiguity_does_not_grow_with_the_text(grammar: str, kind) -> None:
    machine, piece = machine_of(kind, Ebnf(grammar)), AMBIGUOUS[grammar]
    here = machine.start
    for count in range(400):
        if count % 10 == 0:
            row_of(machine, here)
        here = machine.step(here, piece)
        assert here != DEAD
    assert machine.accept(here, ord("c")) == DEAD


@pytest.mark.parametrize("kind", MACHINES)
def test_what_is_covered_is_dropped_and_nothing_else(kind) -> None:
    """Against a count by hand: pairs of nested brackets around letters, in any of many ways."""
    grammar = 'root ::= root root | "(" root ")" | "a" | "" | "[" root "]"'
    machine, rng = machine_of(kind, Ebnf(grammar)), random.Random(5)
    here, opened = machine.start, ""
    for _ in range(300):
        assert machine.accepting(here) == (not opened)
        closing = {"(": ")", "[": "]"}[opened[-1]] if opened else ""
        following = bytes(machine.next_bytes(here)).decode()
        assert set(following) == {*"a([", *closing}
        letter = rng.choice("a([" + closing * 3)
        opened = opened + letter if letter in "([" else opened[: -1 if letter in ")]" else None]
        here = machine.step(here, letter.encode())
    assert machine.needed(here) == len(opened)


@pytest.mark.parametrize("kind", MACHINES)
def test_a_step_past_the_limit_fails_and_leaves_the_machine_whole(kind) -> None:
    machine, fresh = machine_of(kind, HEAVY), machine_of(kind, HEAVY)
    with pytest.raises(LimitExceeded, match="a single step of it takes more work than the limit"):
        for letter in b'"abba':
            row_of(machine, machine.start)
            machine.step(machine.start, bytes([letter]))
            for length in range(1, 60):
                row_of(machine, machine.step(machine.start, b'"' + b"ab" * length))
    # What has been worked out is right, and what has not is worked out later.
    for text in (b"", b'"', b'"a', b'"' + b"a" * 25, b'"' + b"a" * 25 + b'"'):
        assert machine.step(machine.start, b"x") == DEAD
        here, there = machine.step(machine.start, text), fresh.step(fresh.start, text)
        assert machine.accepting(here) == fresh.accepting(there)
        assert machine.next_bytes(here) == fresh.next_bytes(there)


def test_a_state_that_fails_says_so_and_its_neighbours_have_their_rows() -> None:
    limits = CompileLimits(seconds=60)
    heavy = CompiledGrammar(HEAVY, lower(HEAVY, limits), TOKENS, 60)
    light = CompiledGrammar(Regex("ab*"), lower(Regex("ab*"), limits), TOKENS, 60)
    failing, neighbours = heavy.start(), [light.start(), light.start()]
    assert neighbours[1].accept(ord("a"))
    alone = np.empty((2, TOKENS.num_words), np.int32)
    fill_masks(neighbours, [None, None], alone, [0, 1])
    rows = np.empty((3, TOKENS.num_words), np.int32)
    for token in b'"' + b"abbaabab" * 10:
        states = [neighbours[0], failing, neighbours[1]]
        fill_masks(states, [None] * 3, rows, [0, 1, 2])
        assert (rows[[0, 2]] == alone).all()
        try:
            failing.accept(token)
        except LimitExceeded as error:
            assert "limit" in str(error)
            break
    else:
        pytest.fail("it is not heavy enough")
    for state in neighbours:
        assert state.accept(ord("b")) == (state is neighbours[1])


@pytest.mark.parametrize("kind", MACHINES[-1:])
def test_rules_that_call_each_other_in_a_long_row(kind) -> None:
    count = 2_000
    rules = "\n".join(f'r{i} ::= r{i + 1} "b"?' for i in range(count))
    machine = machine_of(kind, Ebnf(f'root ::= r0\n{rules}\nr{count} ::= "a"'))
    here = machine.step(machine.start, b"abb")
    assert here != DEAD and machine.accepting(here)


def test_each_thread_hears_its_own_error() -> None:
    if NativeTokenMachine not in MACHINES:
        pytest.skip("no native code")
    heard: dict[int, set[str]] = {0: set(), 1: set()}

    def ask(number: int) -> None:
        for _ in range(20):
            try:
                if number:
                    NativeTokenMachine(lower(HEAVY, CompileLimits(seconds=60)), TOKENS, 1e-9)
                else:
                    machine = machine_of(NativeTokenMachine, HEAVY)
                    for length in range(60):
                        row_of(machine, machine.step(machine.start, b'"' + b"ab" * length))
            except LimitExceeded as error:
                heard[number].add(str(error))

    threads = [threading.Thread(target=ask, args=(number,)) for number in heard]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert len(heard[0]) <= 1 and all("a single step" in text for text in heard[0])
    assert heard[1] == {"it took too long"}
