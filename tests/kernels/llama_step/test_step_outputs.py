"""What a step reports besides logits, and what it refuses."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sapwood.kernels.llama_step import (
    KvFormat,
    LlamaStep,
    MatrixKind,
    Source,
    StepInputs,
    StepShape,
    VectorKind,
    WeightFormat,
)

Array = np.ndarray[Any, Any]
MakeTiny = Callable[..., Any]
TEXTS = [np.arange(40) % 101, np.arange(100, 60, -1)]
SPANS = [(0, 0, 20), (1, 0, 3)]


def mask_of(allowed: Array) -> Array:
    bits = np.zeros(-(-len(allowed) // 32) * 32, bool)
    bits[: len(allowed)] = allowed
    return np.packbits(bits, bitorder="little").view(np.int32)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), share=st.sampled_from([0.01, 0.3, 1.0]))
@pytest.mark.parametrize("vocab", [31, 64, 101])
def test_best_allowed_token_and_maxima(
    make_tiny: MakeTiny, vocab: int, seed: int, share: float
) -> None:
    tiny = make_tiny("int8", vocab=vocab, threads=3)
    random = np.random.default_rng(seed)
    text = random.integers(0, vocab, 9)
    inputs = tiny.inputs([text], [(0, 0, 9)])
    allowed = random.random((9, vocab)) < share
    allowed[np.arange(9), random.integers(0, vocab, 9)] = True
    masks = [mask_of(row) if random.random() < 0.8 else None for row in allowed]
    logits = np.empty((9, vocab), np.float32)
    outputs = tiny.step.step(replace(inputs, masks=masks, logits=list(logits)), maxima=True)
    for row in range(9):
        legal = np.ones(vocab, bool) if masks[row] is None else allowed[row]
        expected = int(np.where(legal, logits[row], -np.inf).argmax())
        assert outputs.best[row] == expected
        assert outputs.best_logit[row] == logits[row, expected]
        padded = np.full(outputs.strip_maxima.shape[1] * 32, -np.inf, np.float32)
        padded[:vocab] = logits[row]
        assert np.array_equal(outputs.strip_maxima[row], padded.reshape(-1, 32).max(axis=1))


def test_equal_logits_give_the_lowest_token(library: Any) -> None:
    """All tokens have the same embedding, so the tied head gives them the same logit."""
    step = whole(library, StepShape(**SMALL))
    row = np.linspace(-1, 1, 32, dtype=np.float32)
    same = np.tile(row, (40, 1)).view(np.uint8)
    step.pack(-1, MatrixKind.EMBEDDING, 0, Source.F32, same)
    allowed = np.zeros(40, bool)
    allowed[[39, 33, 37]] = True
    inputs = StepInputs(
        *(np.array(column, np.int32) for column in ([1, 2], [0], [2], [0], [[0]], [0, 1])),
        masks=[mask_of(allowed), None],
    )
    assert step.step(inputs).best.tolist() == [33, 0]


def test_logits_may_be_asked_of_some_rows(make_tiny: MakeTiny) -> None:
    tiny = make_tiny()
    inputs = tiny.inputs(TEXTS, SPANS)
    everything = np.concatenate(tiny.run(TEXTS, SPANS))
    some: list[Array | None] = [None] * len(inputs.rows)
    some[4], some[21] = (np.empty(101, np.float32) for _ in range(2))
    outputs = tiny.step.step(replace(inputs, logits=some))
    assert np.array_equal(some[4], everything[4]) and np.array_equal(some[21], everything[21])
    assert np.array_equal(outputs.best, everything.argmax(axis=1))


def test_the_clock_counts_every_phase_once(make_tiny: MakeTiny) -> None:
    tiny = make_tiny("int4")
    tiny.step.seconds()
    tiny.run(TEXTS, SPANS)
    assert all(seconds > 0 for seconds in tiny.step.seconds().values())
    assert not any(tiny.step.seconds().values())


# --- what is refused ---


def integers(*values: int) -> Array:
    return np.array(values, np.int32)


def with_page(inputs: StepInputs, row: int, entry: int, page: int) -> StepInputs:
    table = inputs.page_table.copy()
    table[row, entry] = page
    return replace(inputs, page_table=table)


REFUSED: dict[str, tuple[Callable[[StepInputs], StepInputs], str]] = {
    "page too large": (lambda i: with_page(i, 1, 0, 80), "span 1, entry 0: there is no page 80"),
    "page negative": (lambda i: with_page(i, 0, 1, -1), "span 0, entry 1: there is no page -1"),
    "token too large": (
        lambda i: replace(i, token_ids=np.r_[i.token_ids[:-1], integers(101)]),
        "token 22: there is no id 101",
    ),
    "token negative": (
        lambda i: replace(i, token_ids=np.r_[integers(-1), i.token_ids[1:]]),
        "token 0: there is no id -1",
    ),
    "start negative": (lambda i: replace(i, starts=integers(0, -1)), "span 1: start -1"),
    "beyond the table": (
        lambda i: replace(i, starts=integers(0, 254)),
        "span 1 needs 17 pages of a row",
    ),
    "near the largest number": (
        lambda i: replace(i, starts=integers(0, 2**31 - 1)),
        "span 1 needs 134217729 pages",
    ),
    "empty span": (lambda i: replace(i, lengths=integers(23, 0)), "span 1: start 0, length 0"),
    "negative span": (lambda i: replace(i, lengths=integers(24, -1)), "length -1"),
    "too many tokens": (lambda i: replace(i, lengths=integers(20, 2)), "23 tokens in spans of 22"),
    "too few tokens": (lambda i: replace(i, lengths=integers(20, 4)), "23 tokens in spans of 24"),
    "row twice": (lambda i: replace(i, rows=integers(3, 3)), "row 1 of logits is token 3"),
    "rows descending": (lambda i: replace(i, rows=integers(5, 4)), "row 1 of logits is token 4"),
    "row too large": (lambda i: replace(i, rows=integers(0, 23)), "row 1 of logits is token 23"),
    "row negative": (lambda i: replace(i, rows=integers(-1)), "row 0 of logits is token -1"),
    "table row negative": (lambda i: replace(i, table_rows=integers(0, -1)), "span 1"),
    "table row too large": (lambda i: replace(i, table_rows=integers(0, 5)), "row of the page"),
    "nothing": (
        lambda i: StepInputs(*[integers()] * 4, i.page_table, integers()),
        "an empty step",
    ),
    "lists of different lengths": (lambda i: replace(i, starts=integers(0)), "differ in length"),
    "int64 tokens": (lambda i: replace(i, token_ids=i.token_ids.astype(np.int64)), "int64"),
    "not contiguous": (lambda i: replace(i, page_table=i.page_table[:, ::2]), "contiguous"),
    "flat table": (lambda i: replace(i, page_table=i.page_table[0]), "page_table"),
    "a mask too small": (
        lambda i: replace(i, rows=integers(0), masks=[integers(1)]),
        "less than 4 elements",
    ),
    "masks of other rows": (
        lambda i: replace(i, rows=integers(0, 1), masks=[integers(1, 1, 1, 1)]),
        "1 arrays for 2 rows",
    ),
    "logits too small": (
        lambda i: replace(i, rows=integers(0), logits=[np.empty(100, np.float32)]),
        "less than 101 elements",
    ),
    "logits in double": (
        lambda i: replace(i, rows=integers(0), logits=[np.empty(101)]),
        "float64",
    ),
}


@pytest.mark.parametrize("change, reason", REFUSED.values(), ids=REFUSED.keys())
def test_a_wrong_step_is_refused_and_writes_nothing(
    make_tiny: MakeTiny, change: Callable[[StepInputs], StepInputs], reason: str
) -> None:
    tiny = make_tiny()
    tiny.run(TEXTS, [(0, 0, 20), (1, 0, 10)])
    expected = tiny.run(TEXTS, [(0, 20, 21), (1, 10, 11)])
    others = [text[::-1].copy() for text in TEXTS]  # would overwrite what the decodes read
    with pytest.raises(ValueError, match=reason):
        tiny.step.step(change(tiny.inputs(others, SPANS)))
    again = tiny.run(TEXTS, [(0, 20, 21), (1, 10, 11)])
    assert all(map(np.array_equal, expected, again))


@st.composite
def any_inputs(draw: st.DrawFn) -> StepInputs:
    """Mostly right and sometimes wrong: pages that are shared, missing or twice in a row; spans
    beyond the table; tokens and rows that there are not."""
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    num_spans, width = draw(st.integers(1, 5)), draw(st.integers(1, 16))
    lengths = random.choice([1, 1, 2, 7, 8, 9, 33], num_spans)
    starts = random.integers(0, max(width * 16 - 33, 1), num_spans)
    ids = random.integers(0, 101, lengths.sum())
    table = random.integers(0, 80, (num_spans, width))
    rows = np.flatnonzero(random.random(len(ids)) < 0.3)
    arrays = [ids, starts, lengths, random.permutation(num_spans), table, rows]
    for _ in range(draw(st.sampled_from([0, 0, 1, 2]))):
        array = arrays[draw(st.integers(0, 5))]
        if array.size:
            wrong = draw(st.sampled_from([-(2**31), -1, 0, 80, 101, 300, 2**31 - 1]))
            array.flat[draw(st.integers(0, array.size - 1))] = wrong
    return StepInputs(*(np.ascontiguousarray(array, np.int32) for array in arrays))


@settings(max_examples=80, deadline=None)
@given(inputs=any_inputs())
@pytest.mark.parametrize("kv_format", KvFormat, ids=lambda f: f.name.lower())
def test_any_numbers_are_computed_or_refused(
    make_tiny: MakeTiny, kv_format: KvFormat, inputs: StepInputs
) -> None:
    tiny = make_tiny(kv_format=kv_format, page_size=16)
    logits = np.full((len(inputs.rows), 101), np.nan, np.float32)
    try:
        tiny.step.step(replace(inputs, logits=list(logits)))
    except ValueError as error:
        assert str(error).startswith("llama_step: ") and np.isnan(logits).all()
    else:
        assert np.isfinite(logits).all()


@pytest.mark.parametrize("source, target", [(-1, 0), (0, -1), (80, 0), (0, 80)])
def test_a_copy_of_no_page_is_refused(make_tiny: MakeTiny, source: int, target: int) -> None:
    with pytest.raises(ValueError, match=f"page {source} -> {target} of 80"):
        make_tiny().step.copy_page(source, target)


SMALL: dict[str, Any] = {
    "layers": 1,
    "hidden": 32,
    "heads": 2,
    "kv_heads": 1,
    "head_dim": 16,
    "inner": 40,
    "vocab": 40,
    "page_size": 16,
    "num_pages": 2,
    "window": 0,
    "kv_format": KvFormat.BFLOAT16,
    "threads": 1,
    "eps": 1e-5,
    "rope_scale": 1.0,
}


@pytest.mark.parametrize(
    "numbers, reason",
    [
        ({"head_dim": 24}, "head_dim 24"),
        ({"head_dim": 0}, "head_dim 0"),
        ({"heads": 3, "kv_heads": 2}, "3 heads do not share 2"),
        ({"heads": 0}, "heads"),
        ({"kv_heads": 0}, "kv heads"),
        ({"page_size": 12}, "page_size 12"),
        ({"page_size": 0}, "page_size 0"),
        ({"num_pages": 0}, "num_pages 0"),
        ({"layers": 0}, "layers"),
        ({"vocab": 0}, "vocab"),
        ({"hidden": -1}, "hidden"),
        ({"window": -1}, "window -1"),
    ],
)
def test_an_impossible_shape_is_refused(library: Any, numbers: dict[str, int], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        LlamaStep(library, StepShape(**{**SMALL, **numbers}))


PARTS = [
    (0, MatrixKind.QKV, 64, 32),
    (0, MatrixKind.OUTPUT, 32, 32),
    (0, MatrixKind.GATE, 40, 32),
    (0, MatrixKind.DOWN, 32, 40),
    (-1, MatrixKind.EMBEDDING, 40, 32),
]
VECTORS = [
    (0, VectorKind.INPUT_NORM, 32),
    (0, VectorKind.MLP_NORM, 32),
    (-1, VectorKind.FINAL_NORM, 32),
    (-1, VectorKind.FREQUENCIES, 8),
]
ONE_TOKEN = StepInputs(*(np.array(column, np.int32) for column in ([0], [0], [1], [0], [[0]], [0])))


def whole(library: Any, shape: StepShape, left_out: object = None) -> LlamaStep:
    """A model of ones, but for the part left out."""
    step = LlamaStep(library, shape)
    for part in PARTS:
        if part != left_out:
            step.define(*part, WeightFormat.FLOAT32)
    for layer, kind, count in VECTORS:
        if (layer, kind, count) != left_out:
            step.vector(layer, kind, np.ones(count, np.float32))
    return step


def test_a_whole_model_steps(library: Any) -> None:
    assert whole(library, StepShape(**SMALL)).step(ONE_TOKEN).best.tolist() == [0]


@pytest.mark.parametrize("part", [*PARTS, *VECTORS], ids=str)
def test_a_model_with_a_part_missing_does_not_step(library: Any, part: object) -> None:
    with pytest.raises(ValueError, match="has no"):
        whole(library, StepShape(**SMALL), left_out=part).step(ONE_TOKEN)


@pytest.mark.parametrize("layer, kind, outputs, inputs", PARTS)
def test_a_matrix_that_does_not_fit_the_shape_is_refused(
    library: Any, layer: int, kind: MatrixKind, outputs: int, inputs: int
) -> None:
    step = LlamaStep(library, StepShape(**SMALL))
    for wrong in ((outputs + 32, inputs), (outputs, inputs + 1), (outputs, 0), (-1, inputs)):
        with pytest.raises(ValueError, match="outputs"):
            step.define(layer, kind, *wrong, WeightFormat.FLOAT32)


def test_wrong_parts_are_refused(library: Any) -> None:
    step = whole(library, StepShape(**SMALL))
    ones = np.ones((4, 32), np.float32).view(np.uint8)
    for call, reason in [
        (lambda: step.define(1, MatrixKind.QKV, 64, 32, WeightFormat.INT8), "layer 1"),
        (lambda: step.pack(1, MatrixKind.QKV, 0, Source.F32, ones), "layer 1"),
        (lambda: step.pack(-1, MatrixKind.HEAD, 0, Source.F32, ones), "undefined"),
        (lambda: step.pack(0, MatrixKind.QKV, 61, Source.F32, ones), "rows 61 .. 64 of 64"),
        (lambda: step.pack(0, MatrixKind.QKV, -1, Source.F32, ones), "rows -1"),
        (lambda: step.pack(0, MatrixKind.UP, 38, Source.F32, ones), "rows 38 .. 41 of 40"),
        (lambda: step.pack(0, MatrixKind.QKV, 0, Source.F32, ones[:, 4:]), "not 124 bytes"),
        (lambda: step.pack(0, MatrixKind.DOWN, 0, Source.Q8_0, ones[:, :34]), "groups of 32"),
        (lambda: step.bias(0, MatrixKind.QKV, 60, np.ones(5, np.float32)), "rows 60 .. 64"),
        (lambda: step.vector(0, VectorKind.INPUT_NORM, np.ones(31, np.float32)), "31 numbers"),
        (lambda: step.vector(1, VectorKind.INPUT_NORM, np.ones(32, np.float32)), "layer 1"),
        (lambda: step.vector(-1, VectorKind.FREQUENCIES, np.ones(9, np.float32)), "9 numbers"),
    ]:
        with pytest.raises(ValueError, match=reason):
            call()
