"""A token's logits are the same bits whatever is computed beside it, and wherever its pages lie."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sapwood.kernels.llama_step import KvFormat, MatrixKind, Source

Array = np.ndarray[Any, Any]
MakeTiny = Callable[..., Any]
FORMATS = ("float32", "bfloat16", "int8", "int4")
LENGTH = 150  # tokens: more than the 128 positions that are summed up together
CHUNKS = (1, 3, 7, 8, 16, 100)


def random_text(seed: int, length: int = LENGTH) -> Array:
    return np.random.default_rng(seed).integers(0, 101, length)


def alone(tiny: Any, text: Array) -> Array:
    """Logits of every token, computed in one pass."""
    return tiny.run([text], [(0, 0, len(text))])[0]


def in_chunks(tiny: Any, row: int, text: Array, size: int) -> Array:
    starts = range(0, len(text), size)
    spans = [(row, start, min(start + size, len(text))) for start in starts]
    return np.concatenate([tiny.run({row: text}, [span])[0] for span in spans])


@pytest.mark.parametrize("kv_format", KvFormat, ids=lambda f: f.name.lower())
@pytest.mark.parametrize("weight_format", FORMATS)
def test_prefill_in_any_chunks(
    make_tiny: MakeTiny, weight_format: str, kv_format: KvFormat
) -> None:
    tiny = make_tiny(weight_format, kv_format=kv_format)
    text = random_text(1)
    expected = alone(tiny, text)
    assert np.isfinite(expected).all() and expected.std() > 0.1
    for size in CHUNKS:
        assert np.array_equal(in_chunks(tiny, 1, text, size), expected), size


VARIANTS: dict[str, dict[str, Any]] = {
    "window": {"window": 21},
    "one-wide-window": {"window": 140, "kv_format": KvFormat.FLOAT32},
    "qk-norm-and-biases": {"bias": True, "qk_norm": True, "tied": False},
    "no-groups": {"heads": 3, "kv_heads": 3},
    "twelve-to-a-head": {"heads": 12, "kv_heads": 1},
    "dim-80": {"heads": 2, "kv_heads": 1, "head_dim": 80},
    "dim-256": {"heads": 4, "kv_heads": 2, "head_dim": 256, "kv_format": KvFormat.FLOAT32},
    "odd-sizes": {"hidden": 72, "inner": 40, "vocab": 67, "heads": 3, "kv_heads": 1},
    "pages-of-1": {"page_size": 1, "num_pages": 512},
    "pages-of-4": {"page_size": 4, "num_pages": 128, "kv_format": KvFormat.FLOAT32},
    "int8-kv-pages-of-1": {"kv_format": KvFormat.INT8, "page_size": 1, "num_pages": 512},
    "int8-kv-dim-80": {"kv_format": KvFormat.INT8, "heads": 2, "kv_heads": 1, "head_dim": 80},
    "pages-of-64": {"page_size": 64, "num_pages": 8},
    "pages-of-256": {"page_size": 256, "num_pages": 2},
}


@pytest.mark.parametrize("weight_format", ["float32", "bfloat16"])
@pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS.keys())
def test_every_kind_of_model(
    make_tiny: MakeTiny, variant: dict[str, Any], weight_format: str
) -> None:
    tiny = make_tiny(weight_format, **variant)
    text = random_text(2) % tiny.step.shape.vocab
    expected = alone(tiny, text)
    for size in (1, 7, 16, 100):
        assert np.array_equal(in_chunks(tiny, 1, text, size), expected), size


@pytest.mark.parametrize("weight_format", FORMATS)
def test_any_number_of_threads(make_tiny: MakeTiny, weight_format: str) -> None:
    texts = [random_text(seed, 60) for seed in range(3)]
    spans = [(0, 0, 60), (1, 0, 5), (2, 0, 17)]
    decode = [(0, 59, 60), (1, 5, 6), (2, 17, 20)]
    results = []
    for threads in (1, 2, 3):
        tiny = make_tiny(weight_format, threads=threads)
        results.append([*tiny.run(texts, spans), *tiny.run(texts, decode)])
    for others in results[1:]:
        for first, other in zip(results[0], others, strict=True):
            assert np.array_equal(first, other)


def test_pages_of_any_size_and_order(make_tiny: MakeTiny) -> None:
    text = random_text(4)
    expected = alone(make_tiny(), text)
    for name in ("pages-of-1", "pages-of-64", "pages-of-256"):
        assert np.array_equal(alone(make_tiny(**VARIANTS[name]), text), expected), name
    tiny = make_tiny()
    for seed in range(3):
        pages = np.random.default_rng(seed).permutation(tiny.step.shape.num_pages)[:16]
        assert np.array_equal(alone(tiny.with_table(pages[None]), text), expected)


def test_only_the_rows_asked_for(make_tiny: MakeTiny) -> None:
    tiny = make_tiny("bfloat16")
    texts = [random_text(5, 40), random_text(6, 3)]
    spans = [(0, 0, 40), (1, 0, 3)]
    expected = np.concatenate(tiny.run(texts, spans))
    for rows in ([42], [0, 39], [3, 7, 8, 40], []):
        logits = np.full((len(rows), 101), np.nan, np.float32)
        inputs = replace(tiny.inputs(texts, spans), rows=np.array(rows, np.int32))
        tiny.step.step(replace(inputs, logits=list(logits)))
        assert np.array_equal(logits, expected[rows])
    again = tiny.run(
        texts, [(0, 39, 40)]
    )  # no row of logits was asked for: all the same it is there
    assert np.array_equal(again[0], expected[39:40])


def test_copied_pages(make_tiny: MakeTiny) -> None:
    tiny = make_tiny("int8")
    text, fork = random_text(7, 40), random_text(8, 40)
    fork[:22] = text[:22]
    expected = alone(tiny, fork)
    tiny.run([text, fork], [(1, 0, 1), (0, 0, 40)])
    for index in range(2):
        tiny.step.copy_page(int(tiny.table[0, index]), int(tiny.table[1, index]))
    assert np.array_equal(tiny.run([text, fork], [(1, 22, 40)])[0], expected[22:])


@pytest.mark.parametrize("kv_format", KvFormat, ids=lambda f: f.name.lower())
@pytest.mark.parametrize("weight_format", ["float32", "bfloat16"])
@pytest.mark.parametrize("broken", [np.nan, np.inf, -np.inf])
def test_a_broken_token_harms_only_what_follows_it(
    make_tiny: MakeTiny, weight_format: str, kv_format: KvFormat, broken: float
) -> None:
    """Neither its neighbours, nor what stands before it, nor who has its pages next."""
    tiny = make_tiny(weight_format, vocab=103, kv_format=kv_format, threads=3)  # of this test alone
    text = random_text(11, 40)
    expected = alone(tiny, text)[:, :102]
    row = np.full((1, 64), broken, np.float32)
    tiny.step.pack(-1, MatrixKind.EMBEDDING, 102, Source.F32, row.view(np.uint8))
    ruined = np.full(256, 102)
    mixed = np.concatenate([text[:20], ruined[:20]])
    for size in (1, 40):
        tiny.run({0: ruined}, [(0, 0, 256)])
        assert np.array_equal(in_chunks(tiny, 0, text, size)[:, :102], expected)
    ours, theirs = tiny.run([text, mixed], [(0, 0, 40), (1, 0, 40)])
    assert np.array_equal(ours[:, :102], expected)
    assert np.array_equal(theirs[:20, :102], expected[:20])
    assert not np.isfinite(theirs[20:]).any()


def test_other_users_of_the_tile_registers(make_tiny: MakeTiny, probe: Any) -> None:
    """Torch's products may lay out and release the calling thread's registers between two steps."""
    tiny = make_tiny("bfloat16")
    text = random_text(9)
    expected = alone(tiny, text)
    a, b = (torch.randn(64, 96).to(torch.bfloat16) for _ in range(2))
    product = a @ b.T
    for start, end in [(0, 1), (1, 2), (2, 3), (3, 35), (35, 67), (67, 99)]:
        assert np.array_equal(tiny.run([text], [(0, start, end)])[0], expected[start:end])
        assert torch.equal(a @ b.T, product)
        probe.library.probe_release_tiles()


# --- random schedules ---

PREFIX = 70  # tokens that the sequences have in common
NUM_ROWS = 4


class Sequences:
    """Four texts with one prefix; the last two rows take its whole pages from the first."""

    def __init__(self, tiny: Any, seed: int) -> None:
        random = np.random.default_rng(seed)
        shape = tiny.step.shape
        prefix = random.integers(0, shape.vocab, PREFIX)
        lengths = random.integers(PREFIX + 1, LENGTH, NUM_ROWS)
        self.texts = [
            np.concatenate([prefix, random.integers(0, shape.vocab, length - PREFIX)])
            for length in lengths
        ]
        per_row = -(-LENGTH // shape.page_size)
        table = random.permutation(shape.num_pages)[: NUM_ROWS * per_row].reshape(NUM_ROWS, per_row)
        self.shared = PREFIX // shape.page_size
        table[2:, : self.shared] = table[0, : self.shared]
        self.tiny = tiny.with_table(table)
        # Each by itself, in one pass, in the pages that the others are about to overwrite.
        self.expected = [alone(self.tiny, text) for text in self.texts]

    def first_position(self, row: int) -> int:
        return self.shared * self.tiny.step.shape.page_size if row >= 2 else 0


def schedules(
    draw: Callable[[Any], Any], sequences: Sequences
) -> Iterator[Sequence[tuple[int, int, int]]]:
    """Steps of random rows and span lengths, until every text is computed."""
    done = [sequences.first_position(row) for row in range(NUM_ROWS)]
    sizes = st.sampled_from([1, 1, 1, 2, 5, 7, 8, 9, 17, 64, LENGTH])
    while any(done[row] < len(sequences.texts[row]) for row in range(NUM_ROWS)):
        shared_is_there = done[0] >= sequences.first_position(2)
        ready = [
            row
            for row in range(NUM_ROWS)
            if done[row] < len(sequences.texts[row]) and (row < 2 or shared_is_there)
        ]
        rows = draw(st.permutations(ready))[: draw(st.integers(1, len(ready)))]
        spans = []
        for row in rows:
            end = min(done[row] + draw(sizes), len(sequences.texts[row]))
            spans.append((row, done[row], end))
            done[row] = end
        yield spans


MIXTURES = {
    **{name: {"weight_format": name} for name in FORMATS},
    "float32-kv": {"kv_format": KvFormat.FLOAT32},
    "int8-kv": {"weight_format": "bfloat16", "kv_format": KvFormat.INT8},
    "int8-kv-pages-of-2": {"kv_format": KvFormat.INT8, "page_size": 2, "num_pages": 512},
    "bfloat16-pages-of-4": {"weight_format": "bfloat16", "page_size": 4, "num_pages": 256},
    "bfloat16-window": {"weight_format": "bfloat16", "window": 33},
    "pages-of-1": {"page_size": 1, "num_pages": 768},
}


@settings(max_examples=15, deadline=None)
@given(data=st.data(), seed=st.integers(0, 2**32 - 1))
@pytest.mark.parametrize("mixture", MIXTURES.values(), ids=MIXTURES.keys())
def test_random_schedules(
    make_tiny: MakeTiny, mixture: dict[str, Any], data: st.DataObject, seed: int
) -> None:
    sequences = Sequences(make_tiny(**mixture), seed)
    for spans in schedules(data.draw, sequences):
        found = sequences.tiny.run(sequences.texts, spans)
        for (row, start, end), logits in zip(spans, found, strict=True):
            assert np.array_equal(logits, sequences.expected[row][start:end]), (row, start, end)
