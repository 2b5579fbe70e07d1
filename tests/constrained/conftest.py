"""Vocabularies, and a random writer that obeys a grammar's masks."""

import json
import random
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from sapwood.constrained import CompiledGrammar, GrammarCompiler, Vocabulary

CORPUS = [
    '{"name": "Ada Lovelace", "age": 36, "email": "ada@example.org", "tags": ["math", "poetry"]}',
    '{"name": "Zoë", "city": "Łódź", "population": 2140000, "country": "Poland", "ok": true}',
    "The quick brown fox jumps over the lazy dog. Un été à Paris, 東京は夜の七時. 😀",
    "value: 3.1415, -17, 1e+10; date 2024-02-29T12:30:00Z; yes no maybe null true false",
] * 4

Write = Callable[..., str]


def allowed_tokens(row: np.ndarray) -> list[int]:
    return np.flatnonzero(np.unpackbits(row.view(np.uint8), bitorder="little")).tolist()


@pytest.fixture(scope="session")
def byte_level_tokenizer() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(
        CORPUS,
        trainers.BpeTrainer(
            vocab_size=600,
            special_tokens=["<eos>", "<unused>"],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    return tokenizer


@pytest.fixture(scope="session")
def sentencepiece_tokenizer() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    tokenizer.train_from_iterator(
        [line.replace("\n", " ") for line in CORPUS],
        trainers.BpeTrainer(
            vocab_size=500,
            special_tokens=["<unk>", "<s>", "</s>", *(f"<0x{i:02X}>" for i in range(256))],
            show_progress=False,
        ),
    )
    # As converted models have them: byte tokens are ordinary entries of the vocabulary.
    state = json.loads(tokenizer.to_str())
    state["added_tokens"] = [t for t in state["added_tokens"] if not t["content"].startswith("<0x")]
    return Tokenizer.from_str(json.dumps(state))


@pytest.fixture(scope="session")
def vocabulary(byte_level_tokenizer: Tokenizer) -> Vocabulary:
    return Vocabulary.from_tokenizer(byte_level_tokenizer, eos_ids=[0])


@pytest.fixture(scope="session")
def compiler(vocabulary: Vocabulary) -> Iterator[GrammarCompiler]:
    made = GrammarCompiler(vocabulary)
    yield made
    made.close()


@pytest.fixture(scope="session")
def write() -> Write:
    """Write one output by random allowed tokens, within a budget of tokens."""

    def write(grammar: CompiledGrammar, seed: int, budget: int) -> str:
        rng = random.Random(seed)
        state = grammar.start()
        vocabulary = grammar.vocabulary
        row = np.empty(vocabulary.num_words, np.int32)
        out = b""
        while not state.is_finished:
            state.fill_mask(row, budget)
            tokens = allowed_tokens(row)
            assert tokens, f"no token is left after {out!r} with budget {budget}"
            token = rng.choice(tokens)
            if rng.random() < 0.2 and vocabulary.eos_ids[0] in tokens:
                token = vocabulary.eos_ids[0]
            assert state.accept(token)
            out += vocabulary.token_bytes[token] or b""
            budget -= token not in vocabulary.eos_ids
        assert budget >= 0
        return out.decode()

    return write
