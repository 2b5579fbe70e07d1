"""Runs one batch on the device: page copies, page-table writes, the forward, sampling,
log-probabilities.

Owns: the model, the KV cache, the page table and the sampler. Knows no request and no tree, only
the batch.
"""

import logging
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch

from ..kernels.paged_attention import plan_attention
from .backend import Flight
from .batch import Batch, Span, SpanResult, StepResult, join_tokens
from .forward import ForwardInputs
from .kv_cache import KVCache
from .models.config import LlamaConfig
from .outcome import launch_draws
from .page_table import PageTable
from .sampler import Sampler

_log = logging.getLogger(__name__)


class Model(Protocol):
    """What the runner needs of a model."""

    @property
    def config(self) -> LlamaConfig: ...

    def forward(self, inputs: ForwardInputs, kv: KVCache) -> torch.Tensor:
        """Logits, float32 [len(inputs.logit_rows), vocab]."""
        ...


class ModelRunner:
    def __init__(
        self, model: Model, kv: KVCache, page_table: PageTable, device: torch.device
    ) -> None:
        self._model = model
        self._kv = kv
        self._page_table = page_table
        self._device = device
        self._sampler = Sampler.on(device, model.config.vocab_size)

    @torch.inference_mode()
    def launch(self, batch: Batch) -> Flight:
        """Run the batch. Copies first (their targets may be read by this very step), then table
        writes, then compute.

        The masks of grammars are filled after the forward was launched: on a device that is behind
        its work, for the logits are not waited for before the draw.
        """
        if batch.page_copies:
            sources = torch.tensor([copy.source for copy in batch.page_copies], device=self._device)
            targets = torch.tensor([copy.target for copy in batch.page_copies], device=self._device)
            self._kv.copy(sources, targets)
        self._page_table.write(batch.page_writes)
        return Flight(StepResult(self._compute(batch.spans)))

    def _compute(self, spans: tuple[Span, ...]) -> tuple[SpanResult, ...]:
        """All spans together; where that fails, one by one, so that the one at fault fails alone.

        Computing a span again is harmless: it writes the same keys and values, and draws the same
        token.
        """
        try:
            rows = [span.logit_rows for span in spans]
            logits = self._model.forward(self._inputs(spans, rows), self._kv)
            return launch_draws(self._sampler, spans, rows, logits).collect()
        except Exception as error:
            if len(spans) == 1:
                _log.exception("request %s cannot be computed", spans[0].request_id)
                return (SpanResult(error=error),)
            return tuple(result for span in spans for result in self._compute((span,)))

    def _inputs(self, spans: tuple[Span, ...], rows: list[list[int]]) -> ForwardInputs:
        config = self._model.config
        page_size = self._page_table.page_size
        offsets = np.cumsum([0, *(len(span.token_ids) for span in spans)])[:-1]
        max_pages = max(-(-span.end // page_size) for span in spans)
        return ForwardInputs(
            token_ids=torch.from_numpy(join_tokens(spans)).to(self._device, torch.int64),
            positions=self._moved(np.concatenate([np.arange(s.start, s.end) for s in spans])),
            slots=self._moved(
                np.concatenate(
                    [self._page_table.token_slots(s.slot, s.start, s.end) for s in spans]
                )
            ),
            attention=plan_attention(
                [len(span.token_ids) for span in spans],
                [span.end for span in spans],
                self._moved(self._page_table.rows([span.slot for span in spans], max_pages)),
                page_size,
                group=config.num_heads // config.num_kv_heads,
                window=config.sliding_window,
                dtype=self._kv.dtype,
                device=self._device,
            ),
            logit_rows=torch.tensor(
                [
                    offset + row
                    for offset, span_rows in zip(offsets, rows, strict=True)
                    for row in span_rows
                ],
                dtype=torch.int64,
                device=self._device,
            ),
        )

    def _moved(self, values: npt.NDArray[Any]) -> torch.Tensor:
        return torch.from_numpy(values).to(self._device)
