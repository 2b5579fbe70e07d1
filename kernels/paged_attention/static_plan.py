"""A plan whose tensors stay where they are, so that a CUDA graph can be captured with it.

Owns: the device buffer, its pinned twin on the host, and what fits in them. Each step is written
into the host's and sent in one copy; sizes that differ from step to step are read on the device.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from .packed_work import RowPages, Work, pack, packed_size
from .plan import AttentionPlan, Rows
from .sharing import share
from .work_list import Cut, Int32s, WorkList, check_page_size, list_work, short_tile

# Room for parts, where it isn't given: 128 MiB of them with 32 heads of 128.
MAX_PARTS = 8_192


@dataclass(frozen=True)
class Capacity:
    """What a static plan has room for. num_programs: of one KV head; at most three for each
    multiprocessor over all heads, as many as run at a time with heads of 128: more would begin when
    the others, which share the work evenly, are done. long_rows: whether rows may have more new
    tokens than fill a short tile. sharing: whether rows that share leading pages read them
    together, which costs one more launch for each layer also in steps where none do."""

    rows: int
    tokens: int
    pages_per_row: int
    num_programs: int
    parts: int = MAX_PARTS
    long_rows: bool = False
    sharing: bool = False


class StaticPlan:
    """`plan` is an `AttentionPlan` for `capacity.tokens` queries; `fill` changes what it says.

    Rows of a step may have no new token, and a step may have fewer rows and tokens than there is
    room for: the tokens after those of its rows are padding, and their results are zeros.
    """

    def __init__(
        self,
        capacity: Capacity,
        page_size: int,
        *,
        group: int,
        window: int | None,
        device: torch.device | str,
        cut: Cut | None = None,
    ) -> None:
        check_page_size(page_size)
        self.capacity = capacity
        self._cut = cut or Cut(group, window, long_tile=max(64, short_tile(group)))
        # Every item of a row that is split has parts of its own; a row that isn't has at most one
        # for each token.
        num_items = capacity.parts + capacity.tokens + capacity.rows
        num_page_ids = capacity.rows * capacity.pages_per_row
        size = packed_size(capacity.rows, num_items, capacity.tokens, num_page_ids)
        buffer = torch.zeros(size, dtype=torch.int32, device=device)
        self._host = _HostBuffers(buffer)
        work = Work(
            buffer=buffer,
            page_ids=buffer,
            num_rows=capacity.rows,
            num_programs=capacity.num_programs,
            num_merges=capacity.tokens,
            num_parts=capacity.parts,
            has_short=True,
            has_long=capacity.long_rows,
            has_shared=capacity.sharing,
            cut=self._cut,
        )
        self.plan = AttentionPlan(
            rows=Rows(work.rows, buffer),
            page_size=page_size,
            group=group,
            window=window,
            num_tokens=capacity.tokens,
            parts=None,
            work=work,
        )
        self.fill([], [], np.zeros((0, 0), np.int32))

    @property
    def size(self) -> int:
        """How many int32s a step may be."""
        return self.plan.rows.page_ids.numel()

    def fits(self, query_lens: Sequence[int], context_lens: Sequence[int]) -> bool:
        """Whether such a step can be filled in."""
        queries, contexts = np.asarray(query_lens, np.int64), np.asarray(context_lens, np.int64)
        return self._refusal(queries, contexts, list_work(queries, contexts, self._cut)) is None

    def fill(
        self,
        query_lens: Sequence[int],
        context_lens: Sequence[int],
        page_table: NDArray[np.int32],
    ) -> None:
        """Make the plan that of a step: one asynchronous copy on the current stream.

        Row b of page_table [B, >= the longest's pages] holds the pages of row b's positions in
        order. Raises ValueError where the step doesn't fit.
        """
        host = self._host.next()
        self._host.send(self.write(host, query_lens, context_lens, page_table))

    def write(
        self,
        target: Int32s,
        query_lens: Sequence[int],
        context_lens: Sequence[int],
        page_table: NDArray[np.int32],
    ) -> int:
        """`fill` for callers that send more than a plan in one copy: write the step to the start of
        `target` [>= size] and return how many int32s were written, which they copy to the start of
        `plan.work.buffer`."""
        queries, contexts = np.asarray(query_lens, np.int64), np.asarray(context_lens, np.int64)
        shared = None
        if self.capacity.sharing:
            shared = share(queries, contexts, page_table, self.plan.page_size, self._cut)
        work = list_work(queries, contexts, self._cut, shared)
        refusal = self._refusal(queries, contexts, work)
        if refusal is not None:
            raise ValueError(f"StaticPlan: {refusal}")
        pages = RowPages.packed(page_table, -(-contexts // self.plan.page_size))
        room = self.capacity
        return pack(target, room.rows, room.tokens, queries, contexts, work, pages)

    def _refusal(
        self, queries: NDArray[np.int64], contexts: NDArray[np.int64], work: WorkList
    ) -> str | None:
        """Why a step doesn't fit."""
        room = self.capacity
        longest = room.pages_per_row * self.plan.page_size
        if (queries < 0).any() or (queries > contexts).any():
            return "a row has more new tokens than context"
        if work.num_long and not room.long_rows:
            return f"a row has {queries.max()} new tokens; planned for short rows"
        for name, needed, there in (
            ("rows", len(queries), room.rows),
            ("tokens", int(queries.sum()), room.tokens),
            ("tokens of context", int(contexts.max(initial=0)), longest),
            ("parts", work.num_parts, room.parts),
        ):
            if needed > there:
                return f"{needed} {name}, room for {there}"
        return None


class _HostBuffers:
    """Two pinned twins of a device buffer: one may be written while the other's copy is under way.
    On a CPU one, copied at once."""

    def __init__(self, buffer: torch.Tensor) -> None:
        self._buffer = buffer
        self._cuda = buffer.device.type == "cuda"
        twins = 2 if self._cuda else 1
        self._twins = [
            torch.empty(len(buffer), dtype=torch.int32, pin_memory=self._cuda) for _ in range(twins)
        ]
        self._copied: list[torch.cuda.Event] = []
        if self._cuda:
            self._copied = [torch.cuda.Event() for _ in range(twins)]  # type: ignore[no-untyped-call]
        self._turn = 0

    def next(self) -> Int32s:
        """A twin to write to; waits until its last copy is done."""
        self._turn = (self._turn + 1) % len(self._twins)
        if self._cuda:
            self._copied[self._turn].synchronize()
        twin: Int32s = self._twins[self._turn].numpy()
        return twin

    def send(self, used: int) -> None:
        """Copy the first `used` int32s of the twin that was given out last."""
        self._buffer[:used].copy_(self._twins[self._turn][:used], non_blocking=True)
        if self._cuda:
            self._copied[self._turn].record()
