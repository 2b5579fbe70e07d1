"""Small steps that are recorded once and replayed: their launches would take longer than they do.

Owns: the sizes that are recorded, the tensors that such a step reads and leaves its logits in, and
what stands in them beyond the step's own tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
import torch

from ...kernels.paged_attention import Capacity, StaticPlan
from ...kernels.paged_attention.static_plan import MAX_PARTS
from ..batch import AWAITED
from ..models.config import LlamaConfig
from ..page_table import PageTable
from ..speculation import MAX_ROWS
from .forward import ForwardInputs
from .graphs import Graphs
from .kv_cache import KVCache
from .step_arrays import StepArrays
from .upload import Layout

# Beyond so many tokens even a small model computes for longer than its launches take.
MAX_TOKENS: Final = 512
# A pass over shared prefixes is one more launch for each layer, in every step of a size: fewer rows
# seldom share enough to pay for that.
SHARING_ROWS: Final = 8
NO_PLACE: Final = -1  # nothing is stored of a token that is only padding


class Model(Protocol):
    @property
    def config(self) -> LlamaConfig: ...

    def forward(self, inputs: ForwardInputs, kv: KVCache) -> torch.Tensor: ...


@dataclass(frozen=True)
class Size:
    """What a recorded step has room for. `has_long`: rows of more new tokens than a decode or its
    drafts have; attention then computes in larger tiles."""

    tokens: int
    rows: int
    has_long: bool


def sizes(max_rows: int, token_budget: int) -> list[Size]:
    """Smallest first: of decode steps, fewer than 8 rows or a quarter larger than needed; then of
    steps with prefill chunks."""
    counts = [1, 2, 4, *range(8, 64, 8), *range(64, 256, 16), *range(256, max_rows, 32)]
    most = min(max_rows, MAX_TOKENS)
    decodes = [count for count in counts if count < most] + [most]
    chunks = [32, 64, 128, 256, MAX_TOKENS]
    return [Size(count, count, has_long=False) for count in decodes] + [
        Size(count, min(count, _most_drawn(max_rows)), has_long=True)
        for count in chunks
        if count <= token_budget
    ]


def _most_drawn(max_rows: int) -> int:
    """Of few requests, drafts are drawn after as well."""
    return max(max_rows, MAX_ROWS)


def kept_bytes(config: LlamaConfig, max_rows: int) -> int:
    """What all recorded steps keep besides the memory of the largest: their logits, and the parts
    of attention that a plan has room for."""
    parts = MAX_PARTS * config.num_heads * (config.head_dim + 1)
    return 4 * (min(_most_drawn(max_rows), MAX_TOKENS) * config.vocab_size + parts)


class RecordedSteps:
    """`last_tokens`: int64 [slots], what each drew last. `num_programs`: see `Capacity`."""

    def __init__(
        self,
        model: Model,
        kv: KVCache,
        table: PageTable,
        last_tokens: torch.Tensor,
        graphs: Graphs,
        token_budget: int,
        num_programs: int,
    ) -> None:
        chosen = sizes(table.num_slots, token_budget)
        most = max(size.rows for size in chosen)
        device = last_tokens.device
        self._logits = torch.zeros((most, model.config.vocab_size), device=device)
        recorded = [
            _RecordedStep(size, model, kv, table, last_tokens, self._logits, graphs, num_programs)
            for size in sorted(chosen, key=lambda size: size.tokens, reverse=True)
        ]
        self._steps = [
            sorted((step for step in recorded if step.size.has_long is kind), key=_num_tokens)
            for kind in (False, True)
        ]

    def logits(self, arrays: StepArrays) -> torch.Tensor | None:
        """Float32 [R, vocab], until the next step is launched; None where the step fits in no
        recorded one."""
        if arrays.num_tokens > MAX_TOKENS:
            return None
        for steps in self._steps:
            step = next((step for step in steps if step.has_room(arrays)), None)
            if step is not None and step.fill(arrays):
                return step.launch(arrays)
        return None


def _num_tokens(step: "_RecordedStep") -> int:
    return step.size.tokens


class _RecordedStep:
    def __init__(
        self,
        size: Size,
        model: Model,
        kv: KVCache,
        table: PageTable,
        last_tokens: torch.Tensor,
        logits: torch.Tensor,
        graphs: Graphs,
        num_programs: int,
    ) -> None:
        config, device = model.config, last_tokens.device
        self.size = size
        self._logits = logits
        self._plan = StaticPlan(
            Capacity(
                rows=size.rows,
                tokens=size.tokens,
                pages_per_row=table.pages_per_slot,
                num_programs=num_programs,
                long_rows=size.has_long,
                sharing=size.rows >= SHARING_ROWS,
            ),
            table.page_size,
            group=config.num_heads // config.num_kv_heads,
            window=config.sliding_window,
            device=device,
        )
        nothing = self._padded(None)
        self._layout = Layout.of(nothing)
        self._memory = torch.zeros(self._layout.num_bytes, dtype=torch.uint8, device=device)
        token_ids, owners, positions, places, logit_rows = self._layout.views(self._memory)

        def run() -> None:
            ids = torch.where(token_ids == AWAITED, last_tokens[owners], token_ids)
            inputs = ForwardInputs(ids, positions, places, self._plan.plan, logit_rows)
            logits[: size.rows] = model.forward(inputs, kv)

        self._send(nothing)
        self._replay = graphs.record(run)

    def has_room(self, arrays: StepArrays) -> bool:
        rows = max(arrays.num_rows, len(arrays.logit_rows))
        return arrays.num_tokens <= self.size.tokens and rows <= self.size.rows

    def fill(self, arrays: StepArrays) -> bool:
        """Make attention's plan the step's; False where it cannot be."""
        lens = arrays.query_lens.tolist(), arrays.context_lens.tolist()
        try:
            self._plan.fill(*lens, arrays.page_rows)
        except ValueError:  # rows too long for its tiles, or too many parts
            return False
        return True

    def launch(self, arrays: StepArrays) -> torch.Tensor:
        """Once it is filled."""
        self._send(self._padded(arrays))
        self._replay()
        return self._logits[: len(arrays.logit_rows)]

    def _send(self, arrays: Sequence[np.ndarray]) -> None:
        packed = self._layout.pack(arrays, pinned=self._memory.device.type == "cuda")
        self._memory.copy_(packed, non_blocking=True)

    def _padded(self, arrays: StepArrays | None) -> tuple[np.ndarray, ...]:
        """token_ids, owners, positions, places, logit_rows; of None, a step of padding alone."""
        tokens, rows = self.size.tokens, self.size.rows
        if arrays is None:
            empty = np.zeros(0, np.int64)
            columns = (empty, empty, empty, empty, empty)
        else:
            columns = (
                *(arrays.token_ids, arrays.owners, arrays.positions, arrays.places),
                arrays.logit_rows,
            )
        lengths = (tokens, tokens, tokens, tokens, rows)
        fills = (0, 0, 0, NO_PLACE, 0)
        return tuple(
            np.concatenate([column, np.full(length - len(column), fill)])
            for column, length, fill in zip(columns, lengths, fills, strict=True)
        )
