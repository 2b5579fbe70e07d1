"""What the rows of one draw want, as the arrays that kernels read. Plain numpy; knows no device."""

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..batch import Sampling

_MOST: Final = np.iinfo(np.int32).max
_NO_TOKENS: Final = np.empty(0, np.int32)


class DrawColumns(NamedTuple):
    """In the order of `DrawRows`, each [R]."""

    temperature: NDArray[np.float32]
    top_k: NDArray[np.int32]
    top_p: NDArray[np.float32]
    min_p: NDArray[np.float32]
    streams: NDArray[np.int64]
    positions: NDArray[np.int64]

    @classmethod
    def of(cls, rows: Sequence[Sampling]) -> "DrawColumns":
        return cls(
            np.array([s.temperature for s in rows], np.float32),
            np.array([min(s.top_k, _MOST) for s in rows], np.int32),
            np.array([s.top_p for s in rows], np.float32),
            np.array([s.min_p for s in rows], np.float32),
            np.array([s.stream for s in rows], np.uint64).view(np.int64),
            np.array([s.position for s in rows], np.uint64).view(np.int64),
        )


def is_limited(rows: Sequence[Sampling]) -> bool:
    return any(s.temperature > 0 and (s.top_k > 0 or s.top_p < 1 or s.min_p > 0) for s in rows)


class AdjustmentArrays(NamedTuple):
    """In the order of `Adjustments`, without `num_prompt`."""

    which: NDArray[np.int32]
    owners: NDArray[np.int32]
    tokens: NDArray[np.int32]
    repetition: NDArray[np.float32]
    frequency: NDArray[np.float32]
    presence: NDArray[np.float32]
    bias_rows: NDArray[np.int32]
    bias_tokens: NDArray[np.int32]
    bias_values: NDArray[np.float32]


def adjustment_arrays(rows: Sequence[Sampling]) -> tuple[AdjustmentArrays, int] | None:
    """With the number of prompt tokens; None where no row has penalties or biases."""
    penalized = [(row, s.penalties) for row, s in enumerate(rows) if s.penalties is not None]
    biases = [(row, *pair) for row, s in enumerate(rows) for pair in _biases(s)]
    if not penalized and not biases:
        return None
    penalties = [one for _, one in penalized]
    which = np.full(len(rows), -1, np.int32)
    which[[row for row, _ in penalized]] = np.arange(len(penalized))
    prompts = [p.prompt if p.repetition != 1.0 else _NO_TOKENS for p in penalties]
    counted = [*prompts, *(p.output for p in penalties)]
    numbers = np.tile(np.arange(len(penalties), dtype=np.int32), 2)
    arrays = AdjustmentArrays(
        which,
        np.repeat(numbers, [len(tokens) for tokens in counted]),
        np.concatenate([_NO_TOKENS, *counted]),
        np.array([p.repetition for p in penalties], np.float32),
        np.array([p.frequency for p in penalties], np.float32),
        np.array([p.presence for p in penalties], np.float32),
        np.array([row for row, _, _ in biases], np.int32),
        np.array([token for _, token, _ in biases], np.int32),
        np.array([value for _, _, value in biases], np.float32),
    )
    return arrays, sum(map(len, prompts))


def _biases(sampling: Sampling) -> list[tuple[int, float]]:
    """Each token once."""
    summed: dict[int, float] = {}
    for token, value in sampling.logit_bias:
        summed[token] = summed.get(token, 0.0) + value
    return list(summed.items())
