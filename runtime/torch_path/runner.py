"""Runs one batch on the device: page copies, page-table writes, the forward, sampling,
log-probabilities.

Owns: the model, the KV cache, the page table, the sampler, and which token each slot drew last.
Knows no request and no tree, only the batch.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from ...kernels.paged_attention import plan_attention
from ..batch import AWAITED, Batch, Draws, Span, SpanResult, StepResult
from ..errors import InvalidRequest, OutOfMemory
from ..models.config import LlamaConfig
from ..page_table import PageTable
from ..parallel.group import ALONE, Group
from .device_errors import give_back_memory, is_fatal, is_out_of_memory
from .device_sampler import sampler_on
from .forward import ForwardInputs
from .graphs import Graphs
from .kv_cache import KVCache
from .outcome import Outcome, launch_draws
from .recorded_steps import RecordedSteps
from .step_arrays import StepArrays
from .upload import upload

_log = logging.getLogger(__name__)


class Model(Protocol):
    """What the runner needs of a model."""

    @property
    def config(self) -> LlamaConfig: ...

    @property
    def device(self) -> torch.device: ...

    @property
    def dtype(self) -> torch.dtype:
        """Of what it computes with, queries among it."""
        ...

    def forward(self, inputs: ForwardInputs, kv: KVCache) -> torch.Tensor:
        """Logits, float32 [len(inputs.logit_rows), vocab]."""
        ...


@dataclass(frozen=True)
class _Part:
    """Spans that one forward computed, their logit rows, and the logits, float32 [all rows, vocab];
    or why there are none."""

    spans: tuple[Span, ...]
    rows: tuple[list[int], ...]
    logits: torch.Tensor | Exception

    def split(self, logits: torch.Tensor) -> list["_Part"]:
        """Each span by itself."""
        blocks = torch.split(logits, [len(rows) for rows in self.rows])
        return [
            _Part((span,), (rows,), block)
            for span, rows, block in zip(self.spans, self.rows, blocks, strict=True)
        ]


@dataclass(frozen=True)
class Recording:
    """How steps are recorded. `token_budget`: of a step; `num_programs`: of attention, see
    `Capacity`. `is_required`: where it cannot be done, steps are not just launched anew."""

    graphs: Graphs
    token_budget: int
    num_programs: int
    is_required: bool


class ModelRunner:
    """`overlaps`: see `Runner`; `deterministic`: see `DeviceOptions`. `recording`: None launches
    every step anew. `group`: the ranks that compute the model together, each with a runner that is
    told the same batches. They wait for each other within a step: there a forward that fails is the
    end."""

    def __init__(
        self,
        model: Model,
        kv: KVCache,
        page_table: PageTable,
        device: torch.device,
        *,
        overlaps: bool,
        deterministic: bool = True,
        recording: Recording | None = None,
        group: Group = ALONE,
    ) -> None:
        self.overlaps = overlaps
        self._deterministic = deterministic
        self._group = group
        self._model = model
        self._kv = kv
        self._page_table = page_table
        self._device = device
        self._sampler = sampler_on(device, model.config.vocab_size)
        self._last_tokens = torch.zeros(page_table.num_slots, dtype=torch.int64, device=device)
        self._recorded = None if recording is None else self._record(recording)

    @torch.inference_mode()
    def _record(self, recording: Recording) -> RecordedSteps | None:
        try:
            return RecordedSteps(
                self._model,
                self._kv,
                self._page_table,
                self._last_tokens,
                recording.graphs,
                recording.token_budget,
                recording.num_programs,
            )
        except Exception as error:
            message = f"steps of this model cannot be recorded: {error}"
            if recording.is_required or self._group.size > 1:  # all ranks replay, or none
                raise InvalidRequest(f"cuda_graphs: {message}", field="cuda_graphs") from error
            # What went wrong within a recording is the cause of the error that ends it.
            _log.warning("%s; their kernels are launched one by one", message, exc_info=error)
            return None

    @torch.inference_mode()
    def launch(self, batch: Batch) -> "ModelFlight":
        """Run the batch. Copies first (their targets may be read by this very step), then table
        writes, then the forward."""
        if batch.page_copies:
            pairs = np.array([(copy.source, copy.target) for copy in batch.page_copies], np.int64)
            self._kv.copy(*upload((pairs[:, 0], pairs[:, 1]), self._device))
        self._page_table.write(batch.page_writes)
        return ModelFlight(self, self._forward(batch.spans, may_replay=True))

    def _forward(self, spans: tuple[Span, ...], *, may_replay: bool = False) -> tuple[_Part, ...]:
        """All spans together; where that fails, in pieces: of half the size where memory is short,
        one by one otherwise, so that the span at fault fails alone.

        Computing a span again is harmless: it writes the same keys and values. Raises what ends
        every computation on the device.
        """
        rows = tuple(span.logit_rows for span in spans)
        try:
            arrays = StepArrays.of(spans, self._page_table)
            # Only of a whole step: the logits of a recorded one stay until the next is launched.
            replayed = self._recorded.logits(arrays) if self._recorded and may_replay else None
            logits = self._logits(arrays) if replayed is None else replayed
            return (_Part(spans, rows, logits),)
        except Exception as error:
            if self._group.size > 1 or is_fatal(error):
                raise
            if len(spans) == 1:
                return (_Part(spans, rows, self._failure(spans[0], error)),)
            size = len(spans) // 2 if is_out_of_memory(error) else 1
        return tuple(
            part
            for begin in range(0, len(spans), size)
            for part in self._forward(spans[begin : begin + size])
        )

    def _failure(self, span: Span, error: Exception) -> Exception:
        """As the scheduler is to hear of it."""
        if is_out_of_memory(error):
            return OutOfMemory(f"{len(span.token_ids)} tokens do not fit in memory: {error}")
        _log.exception("request %s cannot be computed", span.request_id)
        return error

    def _logits(self, arrays: StepArrays) -> torch.Tensor:
        """Float32 [R, vocab]. One span that finds no memory is computed in pieces."""
        try:
            return self._model.forward(self._inputs(arrays), self._kv)
        except Exception as error:
            if self._group.size > 1 or not is_out_of_memory(error):
                raise
            give_back_memory(self._device)
            if arrays.num_rows > 1 or arrays.num_tokens == 1:
                raise
        first, second = arrays.halves()
        logits = torch.cat([self._logits(first), self._logits(second)])
        places = np.argsort(arrays.logit_rows >= first.num_tokens, kind="stable").argsort()
        return logits[upload((places,), self._device)[0]]

    def _inputs(self, arrays: StepArrays) -> ForwardInputs:
        """On the device: by one copy, and one for attention's plan."""
        config = self._model.config
        columns = (arrays.token_ids, arrays.owners, arrays.positions, arrays.places)
        token_ids, owners, positions, places, logit_rows = upload(
            (*columns, arrays.logit_rows), self._device
        )
        return ForwardInputs(
            token_ids=self._resolved(token_ids, owners),
            positions=positions,
            slots=places,
            attention=plan_attention(
                arrays.query_lens.tolist(),
                arrays.context_lens.tolist(),
                torch.from_numpy(arrays.page_rows),
                self._page_table.page_size,
                group=config.num_heads // config.num_kv_heads,
                window=config.sliding_window,
                dtype=self._model.dtype,
                device=self._device,
                head_dim=config.head_dim,
                deterministic=self._deterministic,
            ),
            logit_rows=logit_rows,
        )

    def _resolved(self, token_ids: torch.Tensor, owners: torch.Tensor) -> torch.Tensor:
        """With those that were awaited, which are on the device by now: steps run in order."""
        return torch.where(token_ids == AWAITED, self._last_tokens[owners], token_ids)

    @torch.inference_mode()
    def draw(self, part: _Part, draws: Draws) -> list[Outcome | SpanResult]:
        """Of all spans together; where that fails, one by one.

        The masks of grammars are filled only now, while the forward runs on a device.
        """
        if isinstance(part.logits, Exception):
            return [SpanResult(error=part.logits) for _ in part.spans]
        spans = tuple(
            span if drawn is span.samplings else span._replace(samplings=drawn)
            for span, drawn in zip(part.spans, draws, strict=True)
        )
        try:
            outcome = launch_draws(self._sampler, spans, part.rows, part.logits)
        except Exception as error:
            if is_fatal(error):
                raise
            if is_out_of_memory(error):
                give_back_memory(self._device)
            if len(spans) == 1:
                return [SpanResult(error=self._failure(spans[0], error))]
            singles = zip(part.split(part.logits), draws, strict=True)
            return [result for one, drawn in singles for result in self.draw(one, (drawn,))]
        self._remember(spans, outcome.drawn.tokens)
        return [outcome]

    def _remember(self, spans: Sequence[Span], tokens: torch.Tensor) -> None:
        """What each slot drew. Of several draws any may stand there: no step awaits one of
        those."""
        slots = np.array([span.slot for span in spans for _ in span.samplings], np.int64)
        if len(slots):
            self._last_tokens[upload((slots,), self._device)[0]] = tokens


class ModelFlight:
    """See `Flight`."""

    def __init__(self, runner: ModelRunner, parts: Sequence[_Part]) -> None:
        self._runner = runner
        self._parts = parts
        self._outcomes: list[Outcome | SpanResult] = []

    def draw(self, draws: Draws) -> None:
        start = 0
        for part in self._parts:
            end = start + len(part.spans)
            self._outcomes += self._runner.draw(part, draws[start:end])
            start = end

    def collect(self) -> StepResult:
        results: list[SpanResult] = []
        for outcome in self._outcomes:
            results += [outcome] if isinstance(outcome, SpanResult) else outcome.collect()
        return StepResult(tuple(results))
