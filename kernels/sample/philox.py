"""Philox4x32-10 (Salmon et al., 2011), vectorised in numpy: random numbers addressed by counters.

A draw depends on its stream and position alone, so batching, preemption and replay cannot change
it.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_MULTIPLIERS = (np.uint64(0xD2511F53), np.uint64(0xCD9E8D57))
_KEY_STEPS = (np.uint64(0x9E3779B9), np.uint64(0xBB67AE85))
_LOW = np.uint64(0xFFFFFFFF)
_WORD = np.uint64(32)
_ROUNDS = 10

Words = NDArray[np.uint64]  # 32-bit words, each in 64 bits so that products do not overflow


def uniforms(streams: Sequence[int], positions: Sequence[int]) -> NDArray[np.float64]:
    """One number in [0, 1) for each (stream, position), with 53 random bits; float64 [n].

    streams: 64-bit unsigned keys; positions: counters, 64-bit unsigned.
    """
    keys = np.array(streams, dtype=np.uint64)
    counters = np.array(positions, dtype=np.uint64)
    if keys.shape != counters.shape:
        raise ValueError(f"uniforms: {keys.size} streams for {counters.size} positions")
    zero = np.zeros_like(counters)
    low, high, _, _ = philox(
        (counters & _LOW, counters >> _WORD, zero, zero), (keys & _LOW, keys >> _WORD)
    )
    bits = (high << _WORD | low) >> np.uint64(11)
    return bits.astype(np.float64) * 2.0**-53


def philox(
    counter: tuple[Words, Words, Words, Words], key: tuple[Words, Words]
) -> tuple[Words, Words, Words, Words]:
    """Ten rounds over the 4-word counters and 2-word keys, elementwise."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(_ROUNDS):
        first, second = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        c0, c1, c2, c3 = (
            (second >> _WORD) ^ c1 ^ k0,
            second & _LOW,
            (first >> _WORD) ^ c3 ^ k1,
            first & _LOW,
        )
        k0, k1 = (k0 + _KEY_STEPS[0]) & _LOW, (k1 + _KEY_STEPS[1]) & _LOW
    return c0, c1, c2, c3
