"""Forced text as the tokenizer's own tokens."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sapwood.constrained import Choice, GrammarCompiler, JsonSchema, Regex, Vocabulary

SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "country": {"enum": ["Poland", "Portugal", "Zoë"]},
        "population": {"type": "integer"},
    },
    "required": ["name", "country", "population"],
}


def spell(vocabulary: Vocabulary, tokens: list[int]) -> str:
    return b"".join(vocabulary.token_bytes[t] or b"" for t in tokens).decode()


def test_the_skeleton_is_forced_but_for_what_may_still_merge(compiler, vocabulary):
    state = compiler.compile(JsonSchema.of(SCHEMA)).start()
    tail = vocabulary.encode("An example:\n")
    forced = state.forced_tokens(tail)
    whole = vocabulary.encode('An example:\n{"name": "')
    assert tail + forced == whole[: len(tail) + len(forced)]
    assert spell(vocabulary, forced) in ('{"name":', '{"name": ')
    for token in forced:
        assert state.accept(token)
    # What is held back is the model's to choose, and only that is left.
    assert state.forced_tokens(tail + forced) == []
    state.rollback(len(forced))
    assert state.forced_tokens(tail) == forced


def test_a_closed_text_is_forced_to_its_last_token(compiler, vocabulary):
    state = compiler.compile(Choice(("The quick brown fox.",))).start()
    forced = state.forced_tokens([])
    assert forced == vocabulary.encode("The quick brown fox.")
    for token in forced:
        assert state.accept(token)
    assert state.is_finished


def test_a_word_that_may_go_on_is_held_back_whole(compiler, vocabulary):
    state = compiler.compile(Regex("the popu[a-z]+")).start()
    forced = state.forced_tokens([])
    assert spell(vocabulary, forced) in ("the", "the ")
    whole = vocabulary.encode("the population")
    assert forced == whole[: len(forced)]


def test_nothing_is_forced_where_the_boundary_is_not_reproduced(compiler, vocabulary):
    state = compiler.compile(Regex("value: yes, value: no[a-z]*")).start()
    # The tokenizer would have merged these letters: what follows them is not its choice to make.
    apart = [t for letter in "valu" for t in vocabulary.encode(letter)]
    assert vocabulary.encode("value: yes")[: len(apart)] != apart
    for token in apart:
        assert state.accept(token)
    assert state.forced_tokens(apart) == []
    # Without history the same place is not in doubt.
    assert state.forced_tokens([]) != []


def test_special_tokens_end_the_tail(compiler, vocabulary):
    state = compiler.compile(Choice(("quick",))).start()
    assert state.forced_tokens([*vocabulary.encode("brown"), 0]) == vocabulary.encode("quick")


def test_a_forced_run_that_ends_inside_a_character(compiler, vocabulary):
    state = compiler.compile(Regex("fox [éèê]x")).start()
    forced = state.forced_tokens([])
    assert "fox ".startswith(spell(vocabulary, forced))
    rest = compiler.compile(Regex("é!?")).start()
    assert rest.accept(vocabulary.token_bytes.index(b"\xc3"))
    assert rest.forced_tokens([vocabulary.token_bytes.index(b"\xc3")]) == []


def test_the_budget_keeps_the_end_in_reach():
    # The tokenizer spells 'abcd' in three tokens, although two would do.
    vocabulary = Vocabulary([None, b"a", b"b", b"cd", b"ab"], [0], lambda text: [1, 2, 3])
    compiler = GrammarCompiler(vocabulary)
    state = compiler.compile(Choice(("abcd",))).start()
    assert state.shortest == 2
    assert state.forced_tokens([], budget=3) == [1, 2, 3]
    assert state.forced_tokens([], budget=2) == []
    assert state.forced_tokens([]) == [1, 2, 3]
    compiler.close()


def test_without_a_tokenizer_nothing_is_forced():
    compiler = GrammarCompiler(Vocabulary([None, b"a", b"b"], [0]))
    assert compiler.compile(Choice(("ab",))).start().forced_tokens([]) == []
    compiler.close()


def test_a_tokenizer_that_answers_otherwise_is_not_believed():
    vocabulary = Vocabulary([None, b"a", b"b", b"x"], [0], lambda text: [1, 3, 99])
    compiler = GrammarCompiler(vocabulary)
    state = compiler.compile(Choice(("ab",))).start()
    assert state.forced_tokens([]) == [1]
    compiler.close()


NAMES = st.text(st.sampled_from("abcdefghij klmno,.-éŁ0123456789"), max_size=12)
PROMPTS = st.sampled_from(["", "Answer:\n", "value: ", "Un été", '["', "The quick", "1", "\n\n"])


@pytest.mark.parametrize("kind", ["byte_level", "sentencepiece"])
def test_jumps_are_the_tokenizers_own_choice(kind, request, byte_level_tokenizer):
    """Over whole outputs, written as the tokenizer writes them: each jump is what comes next."""
    tokenizer = request.getfixturevalue(f"{kind}_tokenizer")
    eos = tokenizer.token_to_id("<eos>" if kind == "byte_level" else "</s>")
    vocabulary = Vocabulary.from_tokenizer(tokenizer, eos_ids=[eos])
    encode = vocabulary.encode
    assert encode is not None
    with_compiler = GrammarCompiler(vocabulary)
    grammar = with_compiler.compile(JsonSchema.of(SCHEMA))
    seen = {"forced": 0, "all": 0}

    @settings(deadline=None, max_examples=60, database=None)
    @given(PROMPTS, NAMES, st.sampled_from(SCHEMA["properties"]["country"]["enum"]), st.integers())
    def check(prompt, name, country, population):
        text = f'{{"name": "{name}", "country": "{country}", "population": {population}}}'
        prefix = encode(prompt)
        whole = encode(prompt + text)
        if whole[: len(prefix)] != prefix:
            return  # the prompt's last token would merge with the output: never sampled this way
        state, at = grammar.start(), len(prefix)
        assert b"".join(vocabulary.token_bytes[t] or b"" for t in whole[at:]) == text.encode()
        while at < len(whole):
            for token in state.forced_tokens(whole[:at]):
                assert token == whole[at], (whole[:at], text)
                assert state.accept(token)
                at += 1
                seen["forced"] += 1
                seen["all"] += 1
            if at < len(whole):
                assert state.accept(whole[at])
                at += 1
                seen["all"] += 1
        assert state.is_finished

    check()
    with_compiler.close()
    assert seen["forced"] > 0.2 * seen["all"]


def test_forced_bytes_are_a_prefix_of_the_only_way(compiler, vocabulary):
    """From any state that random tokens reach, forced tokens spell forced bytes."""
    grammar = compiler.compile(JsonSchema.of(SCHEMA))
    rng = np.random.default_rng(0)
    for _ in range(30):
        state, row, out = grammar.start(), np.empty(vocabulary.num_words, np.int32), []
        machine = grammar.machine
        here = machine.start
        for _ in range(40):
            forced = state.forced_tokens(out)
            run, _ = machine.forced(here)
            spelled = b"".join(vocabulary.token_bytes[t] or b"" for t in forced)
            assert run.startswith(spelled)
            state.fill_mask(row)
            allowed = np.flatnonzero(np.unpackbits(row.view(np.uint8), bitorder="little"))
            token = int(rng.choice(allowed))
            if token in vocabulary.eos_ids:
                break
            assert state.accept(token)
            out.append(token)
            here = machine.step(here, vocabulary.token_bytes[token])
            if state.is_finished:
                break
