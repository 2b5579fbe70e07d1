"""A step's spans as flat arrays: what a forward pass and its attention plan are made of.

Plain numpy: knows no tensor and no model.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from ..batch import Span, join_tokens
from ..page_table import PageTable

Int32Array = NDArray[np.int32]
Int64Array = NDArray[np.int64]


@dataclass(frozen=True)
class StepArrays:
    """B spans with T new tokens, of which R rows give logits; span after span everywhere."""

    token_ids: Int64Array  # [T]
    owners: Int64Array  # [T], the page-table slot of the span that the token is of
    positions: Int64Array  # [T]
    places: Int64Array  # [T], where keys and values go: page * page_size + offset
    logit_rows: Int64Array  # [R], indices into the T tokens
    query_lens: Int64Array  # [B]
    context_lens: Int64Array  # [B]
    page_rows: Int32Array  # [B, pages of the longest context]

    @classmethod
    def of(cls, spans: Sequence[Span], table: PageTable) -> Self:
        slots = np.array([span.slot for span in spans])
        starts = np.array([span.start for span in spans])
        lens = np.array([len(span.token_ids) for span in spans])
        offsets = np.cumsum(lens) - lens
        owners = np.repeat(slots, lens)
        positions = np.arange(lens.sum()) + np.repeat(starts - offsets, lens)
        rows = [span.logit_rows for span in spans]
        contexts = starts + lens
        return cls(
            token_ids=join_tokens(spans).astype(np.int64),
            owners=owners,
            positions=positions,
            places=table.places(owners, positions),
            logit_rows=np.repeat(offsets, [len(each) for each in rows])
            + np.array([row for each in rows for row in each], np.int64),
            query_lens=lens,
            context_lens=contexts,
            page_rows=table.rows(slots, -(-int(contexts.max()) // table.page_size)),
        )

    def halves(self) -> tuple[Self, Self]:
        """A step of one span as two, to be computed one after the other."""
        middle = self.num_tokens // 2
        return self._piece(0, middle), self._piece(middle, self.num_tokens)

    def _piece(self, begin: int, end: int) -> Self:
        rows = self.logit_rows
        return type(self)(
            self.token_ids[begin:end],
            self.owners[begin:end],
            self.positions[begin:end],
            self.places[begin:end],
            rows[(rows >= begin) & (rows < end)] - begin,
            np.array([end - begin]),
            self.context_lens - self.num_tokens + end,
            self.page_rows,
        )

    @property
    def num_tokens(self) -> int:
        return len(self.token_ids)

    @property
    def num_rows(self) -> int:
        return len(self.query_lens)
