"""What tokens spell, and the trie of them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from sapwood.constrained import GrammarError, Vocabulary
from sapwood.constrained.token_trie import build_trie

TEXT = '{"näme": [1, "Łódź 東京 😀\t"]} \n  end\x00\xa0'


def test_byte_level_tokens_spell_the_text(byte_level_tokenizer):
    vocabulary = Vocabulary.from_tokenizer(byte_level_tokenizer, eos_ids=[0])
    ids = byte_level_tokenizer.encode(TEXT).ids
    assert b"".join(vocabulary.token_bytes[i] for i in ids) == TEXT.encode()
    assert vocabulary.token_bytes[:2] == (None, None)
    singles = {text for text in vocabulary.token_bytes if text and len(text) == 1}
    assert len(singles) == 256


def test_sentencepiece_tokens_spell_the_text_after_a_space(sentencepiece_tokenizer):
    vocabulary = Vocabulary.from_tokenizer(sentencepiece_tokenizer, eos_ids=[2])
    ids = sentencepiece_tokenizer.encode(TEXT, add_special_tokens=False).ids
    assert b"".join(vocabulary.token_bytes[i] for i in ids) == b" " + TEXT.encode()
    assert vocabulary.token_bytes[:3] == (None, None, None)
    # `encode` answers as inside a text, where no space is added.
    assert vocabulary.encode is not None
    spelled = b"".join(vocabulary.token_bytes[i] for i in vocabulary.encode("abc, def"))
    assert spelled == b"abc, def"


def test_a_transformers_tokenizer_brings_its_end_token(byte_level_tokenizer):
    fast = PreTrainedTokenizerFast(tokenizer_object=byte_level_tokenizer, eos_token="<eos>")
    vocabulary = Vocabulary.from_tokenizer(fast, size=700)
    assert vocabulary.eos_ids == (0,)
    assert vocabulary.size == 700
    assert vocabulary.num_words == 22
    assert vocabulary.token_bytes[-1] is None
    ids = byte_level_tokenizer.encode("Ada").ids
    assert vocabulary.encode is not None and vocabulary.encode("Ada") == ids


def test_added_tokens_are_plain_text_unless_special(byte_level_tokenizer):
    tokenizer = Tokenizer.from_str(byte_level_tokenizer.to_str())
    tokenizer.add_tokens(["é plain"])
    tokenizer.add_special_tokens(["<tool>"])
    vocabulary = Vocabulary.from_tokenizer(tokenizer)
    assert vocabulary.token_bytes[tokenizer.token_to_id("é plain")] == "é plain".encode()
    assert vocabulary.token_bytes[tokenizer.token_to_id("<tool>")] is None
    assert vocabulary.eos_ids == ()


def test_what_is_not_made_of_byte_letters_spells_nothing():
    spelled = {"a": b"a", "\u0120": b" ", "\u0143": b"\xad", "\xff": b"\xff"}
    others = ("a b", "\n", "\x7f", "\xa0", "\xad", "\u0144", "東")  # no letters of GPT-2's alphabet
    tokens = [*spelled, *others]
    tokenizer = Tokenizer(models.BPE({token: i for i, token in enumerate(tokens)}, []))
    tokenizer.decoder = decoders.ByteLevel()
    vocabulary = Vocabulary.from_tokenizer(tokenizer)
    assert vocabulary.token_bytes == (*spelled.values(), *[None] * len(others))


def test_padding_adds_tokens_that_spell_nothing():
    vocabulary = Vocabulary([b"a", b"b", None], [1], lambda text: [0])
    assert vocabulary.padded(3) is vocabulary
    assert vocabulary.padded(2) is vocabulary
    padded = vocabulary.padded(40)
    assert padded.token_bytes == (b"a", *[None] * 39)
    assert (padded.eos_ids, padded.encode, padded.num_words) == ((1,), vocabulary.encode, 2)


def test_unknown_tokenizers_are_refused():
    words = Tokenizer(models.WordLevel({"a": 0}, unk_token="a"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    with pytest.raises(GrammarError, match=r"neither byte-level .*\['Whitespace'\]"):
        Vocabulary.from_tokenizer(words)
    with pytest.raises(GrammarError, match="object is not a fast tokenizer"):
        Vocabulary.from_tokenizer(object())
    with pytest.raises(GrammarError, match="end token 3 is not among 2"):
        Vocabulary([b"a", b"b"], [3])


TOKENS = st.lists(st.none() | st.binary(max_size=4) | st.sampled_from([b"a", b"ab"]), max_size=30)


@settings(deadline=None, max_examples=200)
@given(TOKENS)
def test_the_trie_holds_each_token_once(tokens):
    trie = build_trie(tokens)
    found: dict[bytes, int] = {}
    spelled = {0: b""}
    for level, (first, last) in enumerate(zip(trie.levels, trie.levels[1:], strict=False)):
        for node in range(first, last):
            if level:
                above = trie.levels[level - 1] + int(trie.parent[node])
                assert trie.first_child[above] <= node < trie.first_child[above + 1]
                spelled[node] = spelled[above] + bytes([trie.byte[node]])
            if trie.token[node] >= 0:
                found[spelled[node]] = int(trie.token[node])
    assert len(set(spelled.values())) == trie.num_nodes
    assert trie.first_child[-1] == trie.num_nodes
    expected = {text: tokens.index(text) for text in tokens if text}
    assert found == expected
    assert np.array_equal(trie.token_nodes, np.flatnonzero(trie.token >= 0))
    twins = {(tokens.index(text), i) for i, text in enumerate(tokens) if text}
    assert {tuple(pair) for pair in trie.twins.tolist()} == {(a, b) for a, b in twins if a != b}
