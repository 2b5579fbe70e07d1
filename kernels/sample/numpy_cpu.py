"""A draw on CPU, row by row in numpy: sorts only the few tokens that the limits can keep.

One row is a few passes over 50,000 numbers that stay in the cache; the definition's sort of all of
them takes ten times as long.
"""

import numpy as np
from numpy.typing import NDArray

_BLOCK = 256  # tokens; one maximum each


def draw_row(
    logits: NDArray[np.float32],
    likeliest: int,
    temperature: float,
    top_k: int,
    top_p: float,
    min_p: float,
    uniform: float,
) -> int:
    """One token of one row [V]; limits as in `sample`, temperature above 0.

    likeliest: the first of the largest logits.
    """
    largest = logits[likeliest]
    if not np.isfinite(largest):
        return likeliest
    weights = np.exp((logits - largest) / np.float32(max(temperature, 1e-30)))
    ids: NDArray[np.int64] | None = None  # None: all tokens
    if 0 < top_k < len(logits) or top_p < 1:
        ids = _ranked(logits, weights, top_k, top_p)
        if min_p > 0:
            ids = ids[weights[ids] >= min_p]
    elif min_p > 0:
        ids = np.flatnonzero(weights >= min_p)
    kept = weights if ids is None else weights[ids]
    cumulative = np.cumsum(kept, dtype=np.float64)
    pick = int(np.searchsorted(cumulative, uniform * cumulative[-1], side="right"))
    pick = min(pick, len(cumulative) - 1)
    return pick if ids is None else int(ids[pick])


def _ranked(
    logits: NDArray[np.float32], weights: NDArray[np.float32], top_k: int, top_p: float
) -> NDArray[np.int64]:
    """The ids, ascending, of the tokens within both limits."""
    vocab = len(logits)
    total = weights.sum(dtype=np.float64)
    limit = top_k if 0 < top_k < vocab else vocab
    candidate = np.ones(vocab, dtype=bool) if limit == vocab else logits >= _floor(logits, limit)
    if top_p < 1:
        # Tokens from a token of weight w on, in rank order, weigh at most V * w together; where
        # that is less than what top_p leaves over, the token is out. Half of it: safe to round.
        candidate &= weights >= 0.5 * (1 - top_p) * total / vocab
    ids = np.flatnonzero(candidate)
    ids = ids[np.argsort(-logits[ids], kind="stable")]
    if top_p < 1:
        ranked = weights[ids].astype(np.float64)
        inside = np.cumsum(ranked) - ranked <= top_p * total
        limit = min(limit, int(np.count_nonzero(inside)))
    return np.sort(ids[:limit])


def _floor(logits: NDArray[np.float32], rank: int) -> np.float32:
    """A value that at least `rank` logits reach, and not many more.

    That is the rank-th largest of the blocks' maxima, where there are that many blocks.
    """
    values = logits
    num_blocks = len(logits) // _BLOCK
    if rank <= num_blocks:
        values = logits[: num_blocks * _BLOCK].reshape(num_blocks, _BLOCK).max(axis=1)
    floor: np.float32 = np.partition(values, len(values) - rank)[len(values) - rank]
    return floor
