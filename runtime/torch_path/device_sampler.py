"""The sampler of a device: one batched draw a step, its numbers sent in one copy, nothing waited
for.

Owns: which kernels run for what the rows want. The arithmetic is `kernels`'.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from ...kernels.adjust_logits import Adjustments, adjust_logits
from ...kernels.sample import DrawRows, draw
from ..batch import Sampling
from .draw_arrays import DrawColumns, adjustment_arrays, is_limited
from .drawn import Drawn, TokenSampler
from .mask_table import MaskTable
from .row_masks import RowMasks
from .sampler import Sampler
from .upload import upload

_TABLE_ROWS: Final = 1024


class DeviceSampler:
    """`table`: of masks that are on the device already."""

    def __init__(self, vocab_size: int, table: MaskTable) -> None:
        self._table = table
        self._masks = RowMasks(vocab_size)

    def draw(self, logits: torch.Tensor, rows: Sequence[Sampling]) -> Drawn:
        """One token per row. logits: float32 [len(rows), vocab], not changed."""
        masks, places = self._places(rows)
        columns = DrawColumns.of(rows)
        temperature, top_k, top_p, min_p, streams, positions, *sent = upload(
            [*columns, *([] if places is None else [places])], logits.device
        )
        wanted = DrawRows(
            *(temperature, top_k, top_p, min_p, streams, positions, masks),
            places=sent[0] if sent else None,
            is_limited=is_limited(rows),
        )
        return Drawn.of(draw(_adjusted(logits, rows), wanted))

    def _places(
        self, rows: Sequence[Sampling]
    ) -> tuple[torch.Tensor | None, NDArray[np.int32] | None]:
        """The masks on the device, and the one of each row, -1 for none; None where none has."""
        limited = [row for row, s in enumerate(rows) if s.grammar is not None or s.banned]
        if not limited:
            return None, None
        wanted = [rows[row] for row in limited]
        places = np.full(len(rows), -1, np.int32)
        if len(wanted) > self._table.num_rows:
            places[limited] = np.arange(len(limited))
            return upload([self._masks.filled(wanted)], self._table.rows.device)[0], places
        places[limited] = self._masks.in_table(self._table, wanted)
        return self._table.rows, places


def _adjusted(logits: torch.Tensor, rows: Sequence[Sampling]) -> torch.Tensor:
    """The logits, or a copy of them with penalties and biases."""
    found = adjustment_arrays(rows)
    if found is None:
        return logits
    arrays, num_prompt = found
    which, owners, tokens, *rest = upload(arrays, logits.device)
    return adjust_logits(logits, Adjustments(which, owners, tokens, num_prompt, *rest))


def sampler_on(device: torch.device, vocab_size: int) -> TokenSampler:
    """The one that draws where the logits are."""
    if device.type == "cpu":
        return Sampler(vocab_size)
    return DeviceSampler(vocab_size, MaskTable(_TABLE_ROWS, -(-vocab_size // 32), device))
