"""Weights into tiles and out again, and rows times tiles, against numpy in double precision."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sapwood.kernels.llama_step import Source, WeightFormat
from sapwood.runtime.models.dequantize import dequantize

Array = np.ndarray[Any, Any]
SEEDS = st.integers(0, 2**32 - 1)
FLOATS = (WeightFormat.FLOAT32, WeightFormat.BFLOAT16)
GROUPED = (Source.Q8_0, Source.Q4_0, Source.Q4_1)
PLAIN = (Source.F32, Source.F16, Source.BF16)
BLOCK_BYTES = {Source.Q8_0: 34, Source.Q4_0: 18, Source.Q4_1: 20}
SIZES = [(1, 32), (5, 1), (16, 33), (17, 48), (31, 80), (33, 31), (64, 96), (70, 160)]


def checkpoint_rows(random: np.random.Generator, source: Source, outputs: int, inputs: int) -> Any:
    """Random rows as a checkpoint stores them: uint8 [outputs, row_bytes]."""
    if source in BLOCK_BYTES:
        size = BLOCK_BYTES[source]
        blocks = random.integers(0, 256, (outputs, inputs // 32, size), np.uint8)
        halves = random.standard_normal((outputs, inputs // 32, 2)).astype(np.float16)
        blocks[..., :2] = halves[..., :1].view(np.uint8)
        if source is Source.Q4_1:
            blocks[..., 2:4] = halves[..., 1:].view(np.uint8)
        if source is Source.Q8_0:  # -128 is no number of that format
            numbers = blocks[..., 2:].view(np.int8)
            numbers[numbers == -128] = -127
        return blocks.reshape(outputs, -1)
    values = random.standard_normal((outputs, inputs), np.float32)
    if source is Source.F16:
        values = values.astype(np.float16)
    if source is Source.BF16:
        values = (values.view(np.uint32) >> 16).astype(np.uint16)
    return np.ascontiguousarray(values).view(np.uint8).reshape(outputs, -1)


def floats(rows: Array, source: Source, inputs: int) -> Array:
    return dequantize(rows, source.name).reshape(len(rows), inputs)


def to_bf16(values: Array) -> Array:
    bits = values.view(np.uint32)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16 << 16
    return rounded.astype(np.uint32).view(np.float32)


# --- packing ---


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("source", PLAIN, ids=lambda s: s.name)
def test_plain_weights_come_back(probe: Any, size: tuple[int, int], source: Source) -> None:
    rows = checkpoint_rows(np.random.default_rng(1), source, *size)
    expected = floats(rows, source, size[1])
    kept = probe.matrix(WeightFormat.FLOAT32, source, rows, size[1]).unpack()
    assert np.array_equal(kept, expected)
    rounded = probe.matrix(WeightFormat.BFLOAT16, source, rows, size[1]).unpack()
    assert np.array_equal(rounded, to_bf16(expected))


@pytest.mark.parametrize("size", [(1, 32), (17, 64), (33, 160)], ids=str)
@pytest.mark.parametrize("source", GROUPED, ids=lambda s: s.name)
def test_grouped_weights_are_kept_without_loss(
    probe: Any, size: tuple[int, int], source: Source
) -> None:
    rows = checkpoint_rows(np.random.default_rng(2), source, *size)
    expected = floats(rows, source, size[1])
    lossless = WeightFormat.INT8 if source is Source.Q8_0 else WeightFormat.INT4
    found = probe.matrix(lossless, source, rows, size[1]).unpack()
    if source is Source.Q4_0:  # scale * n - 8 * scale: one rounding more than scale * (n - 8)
        assert np.allclose(found, expected, rtol=0, atol=1e-6 * np.abs(expected).max())
    else:
        assert np.array_equal(found, expected)
    assert np.allclose(
        probe.matrix(WeightFormat.FLOAT32, source, rows, size[1]).unpack(), expected, atol=1e-6
    )


@settings(deadline=None)
@given(seed=SEEDS, exponent=st.integers(-8, 8))
@example(seed=127_687, exponent=0)  # Q4_0 of so small a scale that the new one is subnormal
@pytest.mark.parametrize("source", [*PLAIN, *GROUPED], ids=lambda s: s.name)
def test_quantizing_errs_by_half_a_step(
    probe: Any, source: Source, seed: int, exponent: int
) -> None:
    random = np.random.default_rng(seed)
    rows = checkpoint_rows(random, source, 19, 64)
    if source is Source.F32:
        rows = (rows.view(np.float32) * np.float32(2.0**exponent)).view(np.uint8)
    values = floats(rows, source, 64).reshape(19, 2, 32)
    low, high = values.min(axis=2, keepdims=True), values.max(axis=2, keepdims=True)
    largest = np.abs(values).max(axis=2, keepdims=True)
    for weight_format, step in (
        (WeightFormat.INT8, largest / 127),
        (WeightFormat.INT4, (high - low) / 15),
    ):
        found = probe.matrix(weight_format, source, rows, 64).unpack().reshape(values.shape)
        # Scale and minimum are float16: off by 2^-11 of their size, or by 2^-25 where they are
        # subnormal. Fifteen scales reach from -largest to largest: with the minimum, 3 * 2^-11 of
        # the largest together. A number counts up to 127 scales, and half of one is the step's.
        slack = largest * (3 * 2.0**-11) + 127.5 * 2.0**-25
        assert (np.abs(found - values) <= step / 2 * (1 + 2.0**-11) + slack).all()


def test_a_group_of_equal_numbers(probe: Any) -> None:
    for value in (0.0, 0.5, -3.0):
        rows = np.full((3, 32), value, np.float32).view(np.uint8).reshape(3, -1)
        for weight_format in WeightFormat:
            found = probe.matrix(weight_format, Source.F32, rows, 32).unpack()
            assert np.allclose(found, value, rtol=1e-3), weight_format


# --- rows times weights ---


@dataclass(frozen=True)
class Case:
    weight_format: WeightFormat
    source: Source
    outputs: int
    inputs: int
    rows: int
    has_bias: bool
    seed: int


@st.composite
def cases(draw: st.DrawFn) -> Case:
    weight_format = draw(st.sampled_from(list(WeightFormat)))
    source = draw(st.sampled_from(list(Source)))
    grouped = source in GROUPED or weight_format not in FLOATS
    inputs = draw(st.sampled_from([32, 64, 160, 352] if grouped else [1, 31, 48, 80, 130, 256]))
    return Case(
        weight_format,
        source,
        draw(st.integers(1, 100)),
        inputs,
        draw(st.integers(1, 70)),
        draw(st.booleans()),
        draw(SEEDS),
    )


def check_products(probe: Any, case: Case) -> None:
    random = np.random.default_rng(case.seed)
    rows = checkpoint_rows(random, case.source, case.outputs, case.inputs)
    matrix = probe.matrix(case.weight_format, case.source, rows, case.inputs)
    bias = random.standard_normal(case.outputs, np.float32)
    if case.has_bias:
        matrix.bias(bias)
    x = random.standard_normal((case.rows, case.inputs), np.float32)
    x[0] = 0
    found = matrix.multiply(x)
    weights = matrix.unpack().astype(np.float64)
    values, by_scalar = matrix.scalar(x)
    check_form(case.weight_format, x, values)
    read = values[:, : case.inputs].astype(np.float64)
    expected = read @ weights.T + (bias if case.has_bias else 0)
    size = np.abs(read) @ np.abs(weights.T) + np.abs(bias)
    assert np.allclose(by_scalar, expected, rtol=0, atol=1e-9 * size.max())
    # One rounding to float32 for each of the additions; INT4 adds values and minima apart.
    slack = (case.inputs + 64) * 2.0**-24 * size
    if case.weight_format is WeightFormat.INT4:
        slack = slack + 2.0**-20 * size.max()
    assert (np.abs(found[:, : case.outputs] - expected) <= slack + 1e-30).all()
    assert (found[:, case.outputs :] == 0).all()


def check_form(weight_format: WeightFormat, x: Array, values: Array) -> None:
    """What rows stand for: float32 as they are, bfloat16 rounded once, 8 bits to half a step."""
    inputs = x.shape[1]
    assert (values[:, inputs:] == 0).all()
    if weight_format is WeightFormat.FLOAT32:
        assert np.array_equal(values[:, :inputs], x)
    elif weight_format is WeightFormat.BFLOAT16:
        assert np.array_equal(values[:, :inputs], to_bf16(x))
    else:
        groups = x.reshape(len(x), -1, 32)
        step = np.abs(groups).max(axis=2, keepdims=True) / 127
        error = np.abs(values.reshape(groups.shape) - groups)
        # The inverse of the step, the product and the step are rounded once each (a fourth time for
        # the test's own), up to 127 steps from 0.
        assert (error <= step * (0.5 + 4 * 127 * 2.0**-24)).all()


@settings(max_examples=60, deadline=None)
@given(case=cases())
@example(case=Case(WeightFormat.INT8, Source.F32, 55, 352, 59, False, 1))  # near the bound in AVX2
def test_products(probe: Any, case: Case) -> None:
    check_products(probe, case)


@pytest.mark.parametrize("weight_format", WeightFormat, ids=lambda f: f.name)
@pytest.mark.parametrize("rows", range(1, 40))
def test_products_of_every_row_count(probe: Any, weight_format: WeightFormat, rows: int) -> None:
    check_products(probe, Case(weight_format, Source.F32, 33, 64, rows, True, rows))


@settings(max_examples=60, deadline=None)
@given(data=st.data(), case=cases())
def test_a_row_never_depends_on_its_neighbours(probe: Any, data: st.DataObject, case: Case) -> None:
    random = np.random.default_rng(case.seed)
    rows = checkpoint_rows(random, case.source, case.outputs, case.inputs)
    matrix = probe.matrix(case.weight_format, case.source, rows, case.inputs)
    x = random.standard_normal((case.rows, case.inputs), np.float32)
    together = matrix.multiply(x)
    first = data.draw(st.integers(0, case.rows - 1))
    last = data.draw(st.integers(first + 1, case.rows))
    some = matrix.multiply(x, first, last)
    assert np.array_equal(some[first:last], together[first:last])
    assert np.isnan(some[:first]).all() and np.isnan(some[last:]).all()
    order = random.permutation(case.rows)
    assert np.array_equal(matrix.multiply(x[order]), together[order])
