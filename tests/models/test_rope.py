"""RoPE's variants against their definitions; transformers' own are in test_llama_families."""

import math

import numpy as np

from sapwood.runtime.models.config import RopeConfig
from sapwood.runtime.models.rope import rope_frequencies


def test_plain_frequencies() -> None:
    got, scale = rope_frequencies(16, RopeConfig(theta=500.0))
    wanted = [500.0 ** (-2 * i / 16) for i in range(8)]
    assert got.dtype == np.float32 and scale == 1.0
    assert np.allclose(got, wanted, rtol=1e-6)


def test_llama3_frequencies() -> None:
    """Wavelengths above 8192 / 1 divided by 8, those below 8192 / 4 kept, a blend between."""
    plain, _ = rope_frequencies(64, RopeConfig(theta=500_000.0))
    got, _ = rope_frequencies(64, RopeConfig(theta=500_000.0, kind="llama3", factor=8.0))
    waves = 2 * math.pi / plain
    assert np.allclose(got[waves < 2_048], plain[waves < 2_048])
    assert np.allclose(got[waves > 8_192], plain[waves > 8_192] / 8)
    between = (waves >= 2_048) & (waves <= 8_192)
    assert between.any()
    smooth = (8_192 / waves[between] - 1) / 3
    wanted = (1 - smooth) * plain[between] / 8 + smooth * plain[between]
    assert np.allclose(got[between], wanted)


def test_other_frequencies() -> None:
    plain, _ = rope_frequencies(16, RopeConfig())
    linear, _ = rope_frequencies(16, RopeConfig(kind="linear", factor=4.0))
    assert np.allclose(linear, plain / 4)
    divisors = (1.0, 1.0, 2.0, 4.0, 8.0, 8.0, 8.0, 8.0)
    divided, _ = rope_frequencies(16, RopeConfig(freq_factors=divisors))
    assert np.allclose(divided, plain / np.array(divisors))
    stretched = RopeConfig(kind="yarn", factor=4.0, original_context=64, attention_factor=1.25)
    yarn, scale = rope_frequencies(16, stretched)
    assert scale == 1.25
    assert yarn[0] == plain[0]  # fast: kept
    assert np.allclose(yarn[-1], plain[-1] / 4)  # slow: interpolated
