"""Masks, budgets and the state of one request, against brute force over the vocabulary."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sapwood.constrained import (
    Choice,
    CompiledGrammar,
    CompileLimits,
    GrammarCompiler,
    GrammarError,
    JsonSchema,
    LimitExceeded,
    Regex,
    Vocabulary,
    fill_masks,
)
from sapwood.constrained import state as state_module
from sapwood.constrained.lower import lower
from sapwood.constrained.pushdown.collection import NEVER
from sapwood.constrained.pushdown.machine import DEAD
from sapwood.constrained.pushdown.native import NativeTokenMachine, fill_rows

EOS = 3
SMALL = [
    *(b"a", b"b", b"ab", None, b"abc", b"c", b"aa", b"a", b"bca", "é".encode(), b"\xc3", b"\xa9"),
    *(b"x\xc3", b"\xa9y", b"{", b"}", b'{"', b'"', b'": ', b"1", b"12", b", ", b"", b"cab"),
    *(bytes([i]) for i in b"xyz0"),
    *(f"w{i}".encode() for i in range(40)),
]
SPECS = [
    Regex("(a|b|c)*"),
    Regex("ab?c?a*"),
    Regex("x?é+y?"),
    Regex("[^a]{1,3}"),
    Regex("(abc){1,3}"),
    Regex("[a-c]{7}"),
    Choice(("abcab", "abx", "w12", "w1", "é")),
    Regex('\\{"(a|b)": 1[0-9]?\\}'),
    Regex(".*"),
]


def compiled(spec, vocabulary: Vocabulary) -> CompiledGrammar:
    return CompiledGrammar(spec, lower(spec, CompileLimits()), vocabulary, 10.0)


def read(row: np.ndarray) -> set[int]:
    return {t for t in range(len(row) * 32) if row.view(np.uint32)[t // 32] >> (t % 32) & 1}


def row_of(grammar: CompiledGrammar, here: int, budget: int | None = None) -> set[int]:
    row = np.empty(grammar.vocabulary.num_words, np.int32)
    grammar.machine.fill(here, budget, row)
    return read(row)


def reached(grammar: CompiledGrammar, most: int = 200) -> dict[int, dict[int, int]]:
    """Each configuration that tokens lead to, and where they lead from it, dead ends and all."""
    machine, tokens = grammar.machine, grammar.vocabulary.token_bytes
    found: dict[int, dict[int, int]] = {}
    waiting = [machine.start]
    while waiting and len(found) < most:
        here = waiting.pop(0)
        if here not in found:
            steps = {t: machine.step(here, text) for t, text in enumerate(tokens) if text}
            found[here] = {token: to for token, to in steps.items() if to != DEAD}
            waiting += found[here].values()
    return found


def distances(grammar: CompiledGrammar, steps: dict[int, dict[int, int]]) -> dict[int, int]:
    """Fewest tokens to the end, by rounds over all configurations; the vocabulary's tokens only."""
    best = {here: 0 if grammar.machine.accepting(here) else NEVER for here in steps}
    for _ in steps:
        for here, after in steps.items():
            best[here] = min([best[here], *(best[to] + 1 for to in after.values() if to in best)])
    return best


def check_rows(
    grammar: CompiledGrammar, steps: dict[int, dict[int, int]], *, has_all_bytes: bool = True
) -> None:
    """Against brute force: a budget is kept (`needed` tokens are enough, and one of them leads to
    one less), what is needed is never less than the truth, and nothing is allowed that plain search
    would not allow; nor refused, where each byte is a token."""
    machine, best = grammar.machine, distances(grammar, steps)
    ends = set(grammar.vocabulary.eos_ids)
    for here, after in steps.items():
        alive = {t for t, to in after.items() if machine.needed(to) < NEVER}
        truly = {t for t, to in after.items() if best[to] < NEVER}
        assert alive == truly if has_all_bytes else alive <= truly
        allowed_ends = ends if machine.accepting(here) else set()
        needed = machine.needed(here)
        assert best[here] <= needed
        if 0 < needed < NEVER:
            assert min(machine.needed(after[token]) for token in alive) <= needed - 1
        for budget in (None, 1, 2, 3, 5, None):
            most = NEVER - 1 if budget is None else budget - 1
            expected = {t for t in alive if machine.needed(after[t]) <= most}
            assert row_of(grammar, here, budget) == expected | allowed_ends, (here, budget)


@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_every_row_is_that_of_brute_force(spec):
    grammar = compiled(spec, Vocabulary([*SMALL, *(bytes([i]) for i in range(256))], [EOS]))
    steps = reached(grammar)
    assert len(steps) < 200
    check_rows(grammar, steps)


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.binary(min_size=1, max_size=5), min_size=1, max_size=80),
    st.sampled_from(["(?s:.)*", "[ab]*", "a{2,5}b", "(ab|ba)*", "[^\\n]{2}"]),
)
def test_rows_over_random_vocabularies(tokens, pattern):
    tokens = [None, *tokens, *(t[:1] for t in tokens), b"ab", b"a", b"b"]
    try:
        grammar = compiled(Regex(pattern), Vocabulary(tokens, [0]))
    except GrammarError as error:
        assert "no sequence of this vocabulary's tokens" in str(error)
        return
    check_rows(grammar, reached(grammar), has_all_bytes=False)


def test_rows_of_a_trained_vocabulary(vocabulary):
    schema = {
        "properties": {"name": {"maxLength": 3}, "age": {"type": "null"}},
        "required": ["name"],
    }
    spec = JsonSchema.of({**schema, "additionalProperties": False, "type": "object"})
    grammar = compiled(spec, vocabulary)
    machine, here = grammar.machine, grammar.machine.start
    for byte in b'{"name": "a\xc3\xa9", "age": null}':
        for budget in (None, machine.needed(here), machine.needed(here) + 1):
            most = NEVER - 1 if budget is None else budget - 1
            expected = set(vocabulary.eos_ids) if machine.accepting(here) else set()
            for token, text in enumerate(vocabulary.token_bytes):
                if text and (to := machine.step(here, text)) != DEAD:
                    expected |= {token} if machine.needed(to) <= most else set()
            assert row_of(grammar, here, budget) == expected, budget
        here = machine.step(here, bytes([byte]))
    assert machine.is_end(here)


def test_a_token_that_no_continuation_can_save_is_never_allowed():
    # 'ab' may be spelled in one token; after 'a' alone there is no 'b'.
    vocabulary = Vocabulary([b"a", b"ab", b"c", None], [3])
    state = compiled(Regex("ab|c"), vocabulary).start()
    row = np.empty(1, np.int32)
    state.fill_mask(row)
    assert read(row) == {1, 2}
    assert not state.accept(0)
    with pytest.raises(GrammarError, match="no sequence of this vocabulary's tokens"):
        compiled(Regex("bb"), vocabulary)


def test_the_life_of_a_state():
    grammar = compiled(Regex("ab?c?a*"), Vocabulary(SMALL, [EOS]))
    state, row = grammar.start(), np.empty(grammar.vocabulary.num_words, np.int32)
    assert (state.can_finish, state.is_finished, state.shortest) == (False, False, 1)
    assert not state.accept(EOS)
    assert not state.accept(1)  # b
    assert not state.accept(24)  # the empty token
    assert not state.accept(-1)
    assert not state.accept(10**6)
    assert state.accept(2)  # ab
    assert state.can_finish and not state.is_finished
    before = row_of(grammar, grammar.machine.start)
    row.fill(-1)
    state.fill_mask(row)
    assert EOS in read(row) and before != read(row)
    assert state.accept(5)  # c
    assert state.accept(EOS)
    assert state.is_finished and state.shortest == 0
    assert not state.accept(0) and not state.accept(EOS)
    assert state.forced_tokens([]) == []
    state.fill_mask(row)
    assert not row.any()
    state.rollback(2)
    assert not state.is_finished
    assert state.accept(5)
    state.rollback(0)
    state.rollback(2)
    state.fill_mask(row)
    assert read(row) == before
    with pytest.raises(GrammarError, match="cannot undo 1 of 0"):
        state.rollback(1)
    scattered = np.empty(2 * len(row), np.int32)[::2]
    for wrong in (np.empty(1, np.int32), np.empty(row.shape, np.int64), scattered):
        with pytest.raises(GrammarError, match=r"a mask row is int32 \[3\]"):
            state.fill_mask(wrong)


def test_the_end_of_a_closed_language_is_seen_without_an_end_token():
    state = compiled(Choice(("ab",)), Vocabulary(SMALL, [EOS])).start()
    assert not state.is_finished
    assert state.accept(2)
    assert state.can_finish and state.is_finished


def test_the_empty_text_may_be_all():
    grammar = compiled(Regex(""), Vocabulary(SMALL, [EOS]))
    assert grammar.shortest == 0
    assert grammar.start().is_finished
    assert row_of(grammar, grammar.machine.start, 1) == {EOS}


def test_states_of_one_grammar_are_independent():
    grammar = compiled(Regex("[ab]*"), Vocabulary(SMALL, [EOS]))
    first, second = grammar.start(), grammar.start()
    assert first.accept(0)
    second.rollback(0)
    with pytest.raises(GrammarError):
        second.rollback(1)


def test_a_row_that_cannot_be_made_leaves_the_others_alone(monkeypatch):
    vocabulary = Vocabulary(SMALL, [EOS])
    states = [compiled(Regex(text), vocabulary).start() for text in ("a", "b", "c", "x", "y")]
    if not isinstance(states[0]._machine, NativeTokenMachine):
        pytest.skip("no native code")
    broken = [
        states[i]._machine.handle for i in (1, 2, 4)
    ]  # as if they had grown past their limits

    def fills_up_to_a_broken_one(jobs, rows):
        count = next((i for i, handle in enumerate(jobs[::4]) if handle in broken), len(jobs) // 4)
        return fill_rows(jobs[: 4 * count], rows)

    monkeypatch.setattr(state_module, "fill_rows", fills_up_to_a_broken_one)
    rows = np.zeros((5, vocabulary.num_words), np.int32)
    fill_masks(states, [None] * 5, rows, [4, 3, 2, 1, 0])
    assert read(rows[4]) == {0, 7} and read(rows[1]) == {24}
    for i in (1, 2, 4):
        assert read(rows[4 - i]) == {EOS}
        with pytest.raises(LimitExceeded):
            states[i].accept(0)
    assert states[0].accept(0) and states[3].accept(24)


@pytest.mark.parametrize("slack", [0, 1, 7])
def test_every_output_within_a_budget_is_whole(slack, compiler: GrammarCompiler, write):
    schema = {
        "type": "object",
        "properties": {
            "title": {"type": "string", "maxLength": 30},
            "tags": {"type": "array", "items": {"enum": ["red", "green", "blue"]}},
        },
        "required": ["title"],
    }
    grammar = compiler.compile(JsonSchema.of(schema))
    for seed in range(20):
        text = write(grammar, seed, grammar.shortest + slack)
        assert grammar.matches(text.encode())
