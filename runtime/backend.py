"""What an engine loop computes with: a loaded model, and the runner made of it. Knows no
implementation and imports no torch.
"""

from dataclasses import dataclass
from typing import Protocol

from .batch import Batch, Draws, StepResult
from .config import ComputeDevice, ComputeDtype, ResolvedConfig, ScheduleOptions
from .models.config import LlamaConfig


class Flight(Protocol):
    """A launched step: first `draw`, then `collect`, once each.

    One step may be launched while the one before it is still in flight: that one was drawn, and is
    collected before the new one is drawn. All steps run one after another, in order of launch.
    """

    def draw(self, draws: Draws) -> None:
        """Choose the tokens after each span, by these samplings: one for each of the span's own,
        or none where what it would draw is not wanted any more. Grammars are read before it
        returns."""
        ...

    def collect(self) -> StepResult:
        """Wait for the step's end."""
        ...


@dataclass(frozen=True)
class Landed:
    """The flight of a runner that computes at once, tokens and all, by the samplings of the
    batch."""

    result: StepResult

    def draw(self, draws: Draws) -> None:
        """Nothing is left to draw: steps that don't overlap are never changed after the launch."""

    def collect(self) -> StepResult:
        return self.result


class Runner(Protocol):
    """A model with its KV cache and page table, of which the runner is the only writer."""

    @property
    def overlaps(self) -> bool:
        """Whether a step is to be launched while the one before it is in flight: there is a device
        to keep busy meanwhile. Otherwise every step is collected before the next is planned."""
        ...

    def launch(self, batch: Batch) -> Flight:
        """Run the batch: page copies first (their targets may be read by this very step), then
        page-table writes, then compute. A token AWAITED is the one that the slot drew last."""
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

    def check(self) -> None:
        """Raises EngineDied where what computes is gone."""
        ...

    def close(self) -> None:
        """Let go of all there is; of the runner too. The last call."""
        ...
