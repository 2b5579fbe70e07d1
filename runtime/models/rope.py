"""The frequencies of every RoPE variant, in numpy. Knows no checkpoint format and no tensor."""

import math
from typing import assert_never

import numpy as np
from numpy.typing import NDArray

from .config import RopeConfig

FloatArray = NDArray[np.float32]


def rope_frequencies(head_dim: int, rope: RopeConfig) -> tuple[FloatArray, float]:
    """Radians per position, float32 [head_dim / 2], and the factor on cosines and sines."""
    exponents = np.arange(0, head_dim, 2, dtype=np.float32) / np.float32(head_dim)
    plain: FloatArray = (1.0 / np.power(np.float32(rope.theta), exponents)).astype(np.float32)
    frequencies: FloatArray
    scale = 1.0
    match rope.kind:
        case "default":
            frequencies = plain
        case "linear":
            frequencies = (plain / rope.factor).astype(np.float32)
        case "llama3":
            frequencies = _llama3(plain, rope)
        case "yarn":
            frequencies = _yarn(plain, head_dim, rope)
            scale = rope.attention_factor
        case other:
            assert_never(other)
    if rope.freq_factors is not None:
        frequencies = (frequencies / np.array(rope.freq_factors, np.float32)).astype(np.float32)
    return frequencies.astype(np.float32), scale


def _llama3(frequencies: FloatArray, rope: RopeConfig) -> FloatArray:
    """Keep frequencies that turn more than `high_freq_factor` times in the original context, divide
    those below `low_freq_factor` turns, blend between."""
    turns = rope.original_context * frequencies / (2 * math.pi)
    low, high = rope.low_freq_factor, rope.high_freq_factor
    kept = np.clip((turns - low) / (high - low), 0, 1)
    blended: FloatArray = kept * frequencies + (1 - kept) * frequencies / rope.factor
    return blended


def _yarn(frequencies: FloatArray, head_dim: int, rope: RopeConfig) -> FloatArray:
    """Interpolate the dimensions that turn less than `beta_slow` times, keep those above
    `beta_fast`, ramp between (Peng et al., 2023)."""

    def dimension(turns: float) -> float:
        wavelengths = rope.original_context / (turns * 2 * math.pi)
        return head_dim * math.log(wavelengths) / (2 * math.log(rope.theta))

    first = max(math.floor(dimension(rope.beta_fast)), 0)
    last = min(math.ceil(dimension(rope.beta_slow)), head_dim - 1)
    span = max(last - first, 0.001)  # equal bounds would divide by zero
    index = np.arange(len(frequencies), dtype=np.float32)
    divided = np.clip((index - first) / np.float32(span), 0, 1)
    ramped: FloatArray = divided * frequencies / rope.factor + (1 - divided) * frequencies
    return ramped
