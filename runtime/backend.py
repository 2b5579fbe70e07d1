"""What an engine loop computes with: a loaded model, and the runner made of it. Knows no
implementation and imports no torch.
"""

from dataclasses import dataclass
from typing import Protocol

from .batch import Batch, StepResult
from .config import ComputeDevice, ComputeDtype, ResolvedConfig, ScheduleOptions
from .models.config import LlamaConfig


@dataclass(frozen=True)
class Flight:
    """A launched step. On the CPU the result is there at once; a GPU runner would wait in
    `collect`."""

    result: StepResult

    def collect(self) -> StepResult:
        return self.result


class Runner(Protocol):
    """A model with its KV cache and page table, of which the runner is the only writer."""

    def launch(self, batch: Batch) -> Flight:
        """Run the batch: page copies first (their targets may be read by this very step), then
        page-table writes, then compute."""
        ...


class Backend(Protocol):
    """A loaded model whose KV cache has no size yet: that is what memory it leaves over."""

    @property
    def config(self) -> LlamaConfig: ...

    @property
    def dtype(self) -> ComputeDtype: ...

    @property
    def device(self) -> ComputeDevice: ...

    def free_bytes(self, schedule: ScheduleOptions) -> int:
        """Bytes of memory left for keys and values beside the weights and what the largest step of
        this schedule needs."""
        ...

    @property
    def bytes_per_token(self) -> int:
        """Bytes of keys and values of one token over all layers."""
        ...

    @property
    def row_cost(self) -> float:
        """Of one more row in a decode step, as a share of a step of one row (see `speculation`)."""
        ...

    def build(self, resolved: ResolvedConfig) -> Runner:
        """Allocate the KV cache and the page table. Called once."""
        ...
