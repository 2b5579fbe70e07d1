"""Masks, budgets and the state of one request, against brute force over the vocabulary."""

import random

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
    Regex,
    Vocabulary,
)
from sapwood.constrained import distance as distances
from sapwood.constrained.lower import lower
from sapwood.constrained.masks import MaskCache

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
MASKS = MaskCache()


def compiled(spec, vocabulary: Vocabulary) -> CompiledGrammar:
    return CompiledGrammar(spec, lower(spec, CompileLimits()), vocabulary, MASKS)


def brute_distance(grammar: CompiledGrammar) -> list[int]:
    """Fewest tokens to acceptance by plain breadth-first search over whole states and tokens."""
    built, tokens = grammar.automaton, [t for t in grammar.vocabulary.token_bytes if t]
    reached = [{built.step(s, t) for t in tokens} - {-1} for s in range(built.num_states)]
    best = [0 if built.accepting[s] else distances.NEVER for s in range(built.num_states)]
    for _ in range(built.num_states):
        for s in range(built.num_states):
            best[s] = min([best[s], *(best[to] + 1 for to in reached[s])])
    return best


def brute_mask(grammar: CompiledGrammar, best: list[int], state: int, budget: int | None):
    built, vocabulary = grammar.automaton, grammar.vocabulary
    most = distances.NEVER - 1 if budget is None else budget - 1
    allowed = set(vocabulary.eos_ids) if built.accepting[state] else set()
    for token, text in enumerate(vocabulary.token_bytes):
        if text and (to := built.step(state, text)) >= 0 and best[to] <= most:
            allowed.add(token)
    return allowed


def read(row: np.ndarray) -> set[int]:
    return {t for t in range(len(row) * 32) if row.view(np.uint32)[t // 32] >> (t % 32) & 1}


@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_every_row_of_every_state_is_that_of_brute_force(spec):
    grammar = compiled(spec, Vocabulary(SMALL, [EOS]))
    best = brute_distance(grammar)
    assert grammar.shortest == best[0]
    assert grammar.is_shortest_exact
    for state in range(grammar.num_states):
        for budget in (None, 1, 2, 3, 5, None):
            expected = brute_mask(grammar, best, state, budget)
            assert read(grammar.row(state, budget)) == expected, (state, budget)


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.binary(min_size=1, max_size=5), min_size=1, max_size=80),
    st.sampled_from(["(?s:.)*", "[ab]*", "a{2,5}b", "(ab|ba)*", "[^\\n]{2}"]),
)
def test_rows_over_random_vocabularies(tokens, pattern):
    tokens = [None, *tokens, *(t[:1] for t in tokens), b"ab", b"a", b"b"]
    grammar = compiled(Regex(pattern), Vocabulary(tokens, [0]))
    best = brute_distance(grammar)
    assert grammar.shortest == best[0]
    for state in range(grammar.num_states):
        for budget in (None, 2):
            expected = brute_mask(grammar, best, state, budget)
            assert read(grammar.row(state, budget)) == expected


def test_rows_of_a_trained_vocabulary(vocabulary):
    schema = {"properties": {"name": {"type": "string"}, "age": {"type": "integer"}}}
    grammar = compiled(JsonSchema.of(schema), vocabulary)
    best = brute_distance(grammar)
    rng = random.Random(0)
    for state in range(grammar.num_states):
        budget = rng.choice([None, best[state] + 1, best[state], 4])
        expected = brute_mask(grammar, best, state, budget)
        assert read(grammar.row(state, budget)) == expected, (state, budget)


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


def test_the_bound_for_huge_automata_is_sound(monkeypatch, vocabulary, write):
    spec = JsonSchema.of(
        {"properties": {"a": {"type": "string", "minLength": 12}}, "required": ["a"]}
    )
    exact = compiled(spec, vocabulary)
    monkeypatch.setattr(distances, "_MOST_STATES", 0)
    bound = compiled(spec, vocabulary)
    assert exact.is_shortest_exact and not bound.is_shortest_exact
    best = brute_distance(exact)
    for state in range(bound.num_states):
        assert best[state] == exact.needed(state) <= bound.needed(state) < distances.NEVER
    for seed in range(20):
        write(bound, seed, bound.shortest)


def test_the_life_of_a_state():
    grammar = compiled(Regex("ab?c?a*"), Vocabulary(SMALL, [EOS]))
    state, row = grammar.start(), np.empty(grammar.vocabulary.num_words, np.int32)
    assert (state.can_finish, state.is_finished, state.shortest) == (False, False, 1)
    assert not state.accept(EOS)
    assert not state.accept(1)  # b
    assert not state.accept(22)  # the empty token
    assert not state.accept(-1)
    assert not state.accept(10**6)
    assert state.accept(2)  # ab
    assert state.can_finish and not state.is_finished
    before = read(grammar.row(0, None))
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
    for wrong in (np.empty(1, np.int32), np.empty(row.shape, np.int64)):
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
    assert read(grammar.row(0, 1)) == {EOS}


def test_states_of_one_grammar_are_independent():
    grammar = compiled(Regex("[ab]*"), Vocabulary(SMALL, [EOS]))
    first, second = grammar.start(), grammar.start()
    assert first.accept(0)
    second.rollback(0)
    with pytest.raises(GrammarError):
        second.rollback(1)


def test_the_cache_of_rows_stays_within_its_size():
    vocabulary = Vocabulary([*SMALL, *[None] * 40_000], [EOS])  # rows of 5 kB
    masks, spec = MaskCache(max_mb=1), Regex("[a-z]{1,600}")
    grammar = CompiledGrammar(spec, lower(spec, CompileLimits()), vocabulary, masks)
    rows = {state: grammar.row(state, None).copy() for state in range(600)}
    assert 2**19 < masks.num_bytes <= 2**20
    assert all((grammar.row(state, None) == row).all() for state, row in rows.items())
    assert masks.num_bytes <= 2**20


@pytest.mark.parametrize("slack", [0, 1, 7])
def test_every_output_within_a_budget_is_whole(slack, compiler: GrammarCompiler, write):
    schema = {
        "properties": {
            "title": {"type": "string", "maxLength": 30},
            "tags": {"type": "array", "items": {"enum": ["red", "green", "blue"]}},
        },
        "required": ["title"],
    }
    grammar = compiler.compile(JsonSchema.of(schema))
    for seed in range(20):
        text = write(grammar, seed, grammar.shortest + slack)
        assert grammar.automaton.accepts(text.encode())
