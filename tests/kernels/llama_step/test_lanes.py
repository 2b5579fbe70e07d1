"""Sixteen lanes: conversions, rounding, exponentials and dots against numpy and torch."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

SEEDS = st.integers(0, 2**32 - 1)


def test_every_half_becomes_the_float_that_numpy_says(probe: Any) -> None:
    halves = np.arange(1 << 16, dtype=np.uint32).astype(np.uint16)
    expected = halves.view(np.float16).astype(np.float32)
    number = ~np.isnan(expected)
    for found in probe.halves(halves):
        assert np.array_equal(np.isnan(found), ~number)
        assert np.array_equal(found[number].view(np.uint32), expected[number].view(np.uint32))


def test_every_half_comes_back(probe: Any) -> None:
    halves = np.arange(1 << 16, dtype=np.uint32).astype(np.uint16)
    values = halves.view(np.float16).astype(np.float32)
    number = ~np.isnan(values)
    back = probe.float_to_half(values)
    assert np.array_equal(back[number], halves[number])
    assert np.isnan(back[~number].view(np.float16)).all()


def test_floats_between_two_halves_round_to_nearest_even(probe: Any) -> None:
    halves = np.arange(0x7BFF, dtype=np.uint16).view(np.float16).astype(np.float64)
    middles = ((halves[1:] + halves[:-1]) / 2).astype(np.float32)
    beyond = np.nextafter(middles, np.float32(np.inf))
    below = np.nextafter(middles, np.float32(0))
    edge = np.float32([65504, 65519.99, 65520, 65521, 1e30, np.inf, 2**-25, 2**-24, 0, 1e-38])
    with np.errstate(over="ignore"):
        for values in (middles, beyond, below, edge, -middles, -edge):
            expected = values.astype(np.float16).view(np.uint16)
            assert np.array_equal(probe.float_to_half(values), expected)


@settings(deadline=None)
@given(seed=SEEDS)
def test_random_floats_become_halves_as_numpy_has_it(probe: Any, seed: int) -> None:
    bits = np.random.default_rng(seed).integers(0, 1 << 32, 512, np.uint32)
    values = bits.view(np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        expected = values.astype(np.float16)
    found = probe.float_to_half(values).view(np.float16)
    assert np.array_equal(found, expected, equal_nan=True)


def bfloat16(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """torch's rounding; but subnormal numbers become zero, as the processors' instructions do."""
    subnormal = (values.view(np.uint32) & 0x7F800000) == 0
    flushed = np.where(subnormal, np.copysign(np.float32(0), values), values)
    rounded = torch.from_numpy(flushed).to(torch.bfloat16)
    return rounded.view(torch.uint16).numpy()


def check_bfloat16(probe: Any, bits: np.ndarray[Any, Any]) -> None:
    values = bits.view(np.float32)
    is_nan = np.isnan(values)
    one_by_one, by_lanes = probe.bf16(values)
    assert np.array_equal(one_by_one, by_lanes)
    assert np.array_equal(one_by_one[~is_nan], bfloat16(values)[~is_nan])
    kept = (one_by_one[is_nan].astype(np.uint32) << 16).view(np.float32)
    assert np.isnan(kept).all()


@settings(deadline=None)
@given(seed=SEEDS)
def test_random_floats_become_bfloat16_as_torch_has_it(probe: Any, seed: int) -> None:
    check_bfloat16(probe, np.random.default_rng(seed).integers(0, 1 << 32, 512, np.uint32))


def test_special_floats_become_bfloat16(probe: Any) -> None:
    exponents = (np.arange(256, dtype=np.uint32) << 23)[:, None]
    fractions = [0, 1, 0x7FFF, 0x8000, 0x8001, 0x17FFF, 0x18000, 0x7F7FFF, 0x7F8000, 0x7FFFFF]
    magnitudes = (exponents | np.array(fractions, np.uint32)).ravel()
    check_bfloat16(probe, magnitudes)
    check_bfloat16(probe, magnitudes | np.uint32(0x80000000))


def test_exp_errs_by_the_rounding_of_its_argument(probe: Any) -> None:
    x = np.linspace(-87, 88, 16 * 4000, dtype=np.float32)
    expected = np.exp(x.astype(np.float64))
    for found in probe.exp(x):
        assert (np.abs(found / expected - 1) < 2e-7 + 8e-8 * np.abs(x)).all()


def test_exp_of_the_far_negative_stays_positive_and_tiny(probe: Any) -> None:
    x = np.full(16, -1e30, np.float32)
    x[:4] = (-87, -88, -500, -np.inf)
    for found in probe.exp(x):
        assert (found > 0).all() and (found < 2e-38).all()


def test_exp_of_zero_is_one(probe: Any) -> None:
    for found in probe.exp(np.zeros(16, np.float32)):
        assert (found == 1).all()


def test_silu(probe: Any) -> None:
    x = np.linspace(-80, 80, 16 * 2000, dtype=np.float32)
    wide = x.astype(np.float64)
    expected = wide / (1 + np.exp(-wide))
    assert np.abs(probe.silu(x) - expected).max() < 1e-5
    near = np.abs(x) < 20
    assert np.abs(probe.silu(x)[near] / expected[near] - 1)[expected[near] != 0].max() < 1e-6


@settings(deadline=None)
@given(seed=SEEDS)
def test_rounding_goes_to_the_even_neighbour(probe: Any, seed: int) -> None:
    random = np.random.default_rng(seed)
    x = np.concatenate(
        [random.integers(-300, 300, 32) + 0.5, random.uniform(-200, 200, 32)]
    ).astype(np.float32)
    ints, floats = probe.round(x)
    assert np.array_equal(ints, np.rint(x).astype(np.int32))
    assert np.array_equal(floats, np.rint(x))


@settings(deadline=None)
@given(seed=SEEDS)
def test_dot4_is_exact_also_at_the_extremes(probe: Any, seed: int) -> None:
    random = np.random.default_rng(seed)
    start = random.integers(-(2**20), 2**20, 32, np.int32)
    w = random.choice(np.array([0, 1, 15, 128, 254, 255, 77], np.uint8), 128)
    x = random.choice(np.array([-128, -127, -1, 0, 1, 126, 127], np.int8), 128)
    products = w.astype(np.int64) * x.astype(np.int64)
    assert np.array_equal(probe.dot4(start, w, x), start + products.reshape(-1, 4).sum(axis=1))


@settings(deadline=None)
@given(seed=SEEDS)
def test_dot2(probe: Any, seed: int) -> None:
    random = np.random.default_rng(seed)
    start = random.standard_normal(32, np.float32)
    pairs = [bfloat16(random.standard_normal(64, np.float32)) for _ in range(2)]
    w, x = ((half.astype(np.uint32) << 16).view(np.float32).astype(np.float64) for half in pairs)
    products = (w * x).reshape(-1, 2)
    found = probe.dot2(start, *pairs)
    size = np.abs(products).sum(axis=1) + np.abs(start)
    assert (np.abs(found - (start + products.sum(axis=1))) <= 3e-7 * size).all()


@pytest.mark.parametrize("keep", [0, 1, 0x8000, 0xFFFF, 0x00F0, 0xA5A5])
def test_select_and_reductions(probe: Any, keep: int) -> None:
    x = np.random.default_rng(keep).standard_normal(16, np.float32)
    kept = np.where((keep >> np.arange(16)) & 1, x, np.float32(-0.25))
    largest, total = probe.reduce(x, keep, -0.25)
    assert largest == kept.max()
    assert abs(total - kept.sum(dtype=np.float64)) <= 1e-6 * np.abs(kept).sum()


def test_nibbles(probe: Any) -> None:
    packed = np.arange(192, 256, dtype=np.uint8)
    low, high = probe.nibbles(packed)
    assert np.array_equal(low, packed & 15) and np.array_equal(high, packed >> 4)


# --- norm and rotation ---


@settings(deadline=None)
@given(count=st.integers(1, 200), seed=SEEDS, exponent=st.integers(-12, 12))
def test_rms_norm(probe: Any, count: int, seed: int, exponent: int) -> None:
    random = np.random.default_rng(seed)
    x = (random.standard_normal(count) * 2.0**exponent).astype(np.float32)
    weight = random.standard_normal(count, np.float32)
    out, scalar = probe.rms_norm(x, weight, 1e-5)
    wide = x.astype(np.float64)
    expected = wide / np.sqrt((wide**2).mean() + 1e-5) * weight
    assert np.allclose(out, expected, rtol=2e-6, atol=1e-30)
    assert np.allclose(scalar, expected, rtol=2e-7, atol=1e-30)


@settings(deadline=None)
@given(half=st.sampled_from([8, 16, 24, 32, 40, 48, 64, 128]), seed=SEEDS)
@pytest.mark.parametrize("position", [0, 1, 4095, 131_071])
def test_rotation_turns_pairs(probe: Any, half: int, seed: int, position: int) -> None:
    random = np.random.default_rng(seed)
    head = random.standard_normal(2 * half, np.float32)
    frequencies = (10_000.0 ** -(np.arange(half) / half)).astype(np.float32)
    turned, scalar = probe.rotate(head, position, frequencies, 1.25)
    angles = (np.float32(position) * frequencies).astype(np.float64)
    pairs = (head[:half].astype(np.float64) + 1j * head[half:]) * np.exp(1j * angles) * 1.25
    expected = np.concatenate([pairs.real, pairs.imag])
    assert np.abs(turned - expected).max() < 2e-6
    assert np.abs(scalar - expected).max() < 2e-6


def test_the_short_power_of_two(probe: Any) -> None:
    x = np.linspace(-126, 0, 1 << 16, dtype=np.float32)
    expected = np.exp2(x.astype(np.float64))
    assert np.abs(probe.exp2_short(x) / expected - 1).max() < 3e-6
    below = np.array([-np.inf, -1e30, -127.0, *[-126.0] * 13], np.float32)
    assert (probe.exp2_short(below) == probe.exp2_short(below)[-1]).all()
