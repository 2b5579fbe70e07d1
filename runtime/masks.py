"""Tokens that a row may not take besides what its grammar says, in its packed bitmask."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def ban(mask: NDArray[np.int32], banned: Sequence[int]) -> None:
    """Clear the bits of `banned`, unless nothing else would be left: then the grammar's word
    stands. mask: int32 [ceil(vocab / 32)]."""
    if not banned:
        return
    kept = mask.copy()
    for token in banned:
        kept[token // 32] &= ~np.uint32(1 << token % 32).astype(np.int32)
    if kept.any():
        mask[:] = kept
