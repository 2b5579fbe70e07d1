"""Which of a row's new tokens see which, where they are a tree instead of a line.

Owns: packed masks of ancestors, and their checks. Plain numpy; knows no keys and no other rows.

Several continuations of one text are computed in one row: their shared tokens once, each branch
seeing only its own. Positions, which rotary embeddings need, are the caller's: a token's depth.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

Masks = NDArray[np.int32]
"""[n, ceil(n / 32)]: bit j % 32 of word [i, j // 32] says whether new token i sees new token j."""

Trees = Mapping[int, Masks]
"""By row of a step; rows that are not in it have a line of new tokens."""


def ancestor_masks(parents: Sequence[int]) -> Masks:
    """parents[i]: the token before token i, one with a lower number; -1: none of the tree's."""
    sees = np.eye(len(parents), dtype=bool)
    for token, parent in enumerate(parents):
        if not -1 <= parent < token:
            raise ValueError(f"ancestor_masks: token {token} has the parent {parent}")
        if parent >= 0:
            sees[token] |= sees[parent]
    return pack_masks(sees)


def pack_masks(sees: NDArray[np.bool_]) -> Masks:
    """[n, n] -> [n, ceil(n / 32)]."""
    n = len(sees)
    padded = np.zeros((n, -(-n // 32) * 32), dtype=bool)
    padded[:, :n] = sees
    return np.packbits(padded, axis=1, bitorder="little").view("<i4").astype(np.int32)


def unpack_masks(masks: Masks) -> NDArray[np.bool_]:
    """[n, ceil(n / 32)] -> [n, n]."""
    bits = np.ascontiguousarray(masks).astype("<i4").view(np.uint8)
    return np.unpackbits(bits, axis=1, count=len(masks), bitorder="little").astype(bool)


def pack_trees(trees: Trees, num_rows: int) -> NDArray[np.int32]:
    """Where each row's masks begin (-1: it has none), then the masks, row-major."""
    places, pieces, at = np.full(num_rows, -1, np.int32), [], num_rows
    for row, masks in trees.items():
        places[row] = at
        pieces.append(masks.ravel())
        at += masks.size
    return np.concatenate([places, *pieces])


def check_trees(trees: Trees, queries: NDArray[np.int64], window: int | None) -> None:
    """Raises ValueError or TypeError where they don't fit a step."""
    if trees and window is not None:
        raise ValueError(f"plan_attention: trees, with a window of {window}: not both")
    for row, masks in trees.items():
        if not 0 <= row < len(queries):
            raise ValueError(f"plan_attention: a tree of row {row}, of {len(queries)} rows")
        check_masks(masks, int(queries[row]))


def check_masks(masks: Masks, num_tokens: int) -> None:
    """Raises ValueError or TypeError where they don't fit a row of `num_tokens` new tokens, or
    where a token doesn't see itself, or sees a later one."""
    words = -(-num_tokens // 32)
    if masks.dtype != np.int32:
        raise TypeError(f"plan_attention: a tree's masks must be int32, got {masks.dtype}")
    if masks.shape != (num_tokens, words):
        raise ValueError(
            f"plan_attention: a tree's masks {masks.shape} for {num_tokens} new tokens, must be "
            f"{(num_tokens, words)}"
        )
    sees = unpack_masks(masks)
    if not sees.diagonal().all():
        token = int(sees.diagonal().argmin())
        raise ValueError(f"plan_attention: token {token} of a tree doesn't see itself")
    if np.triu(sees, 1).any():
        token = int(np.triu(sees, 1).any(axis=1).argmax())
        raise ValueError(f"plan_attention: token {token} of a tree sees a later one")
