"""Runs one batch on the device: page copies, page-table writes, the forward, sampling,
log-probabilities.

Owns: the model, the KV cache, the page table and the sampler. Knows no request and no tree, only
the batch.
"""

import logging
from typing import Protocol

import numpy as np
import torch

from ..kernels.paged_attention import plan_attention
from .backend import Flight
from .batch import Batch, Span, SpanResult, StepResult
from .forward import ForwardInputs
from .kv_cache import KVCache
from .models.config import LlamaConfig
from .outcome import launch_draws
from .page_table import PageTable
from .sampler import Sampler
from .step_arrays import StepArrays
from .upload import upload

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
            pairs = np.array([(copy.source, copy.target) for copy in batch.page_copies], np.int64)
            self._kv.copy(*upload((pairs[:, 0], pairs[:, 1]), self._device))
        self._page_table.write(batch.page_writes)
        return Flight(StepResult(self._compute(batch.spans)))

    def _compute(self, spans: tuple[Span, ...]) -> tuple[SpanResult, ...]:
        """All spans together; where that fails, one by one, so that the one at fault fails alone.

        Computing a span again is harmless: it writes the same keys and values, and draws the same
        token.
        """
        try:
            rows = [span.logit_rows for span in spans]
            inputs = self._inputs(StepArrays.of(spans, self._page_table))
            logits = self._model.forward(inputs, self._kv)
            return launch_draws(self._sampler, spans, rows, logits).collect()
        except Exception as error:
            if len(spans) == 1:
                _log.exception("request %s cannot be computed", spans[0].request_id)
                return (SpanResult(error=error),)
            return tuple(result for span in spans for result in self._compute((span,)))

    def _inputs(self, arrays: StepArrays) -> ForwardInputs:
        """Everything goes to the device in one copy."""
        config = self._model.config
        token_ids, positions, places, logit_rows, page_rows = upload(
            (
                *(arrays.token_ids, arrays.positions, arrays.places),
                *(arrays.logit_rows, arrays.page_rows),
            ),
            self._device,
        )
        return ForwardInputs(
            token_ids=token_ids,
            positions=positions,
            slots=places,
            attention=plan_attention(
                arrays.query_lens.tolist(),
                arrays.context_lens.tolist(),
                page_rows,
                self._page_table.page_size,
                group=config.num_heads // config.num_kv_heads,
                window=config.sliding_window,
                dtype=self._kv.dtype,
                device=self._device,
            ),
            logit_rows=logit_rows,
        )
