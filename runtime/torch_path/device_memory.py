"""How a GPU's memory is shared out: what the weights and the largest step take, the rest for keys
and values.

Owns: the arithmetic, and the questions to the device behind `DeviceMemory`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

import torch

DEFAULT_FRACTION: Final = 0.9  # the rest: growth of other processes, code of kernels, fragments


@dataclass(frozen=True)
class MemoryUse:
    """Bytes. `total`: of the device; `foreign`: taken by other processes and by the driver for
    this one; `weights`: what is there between steps; `step`: more, at the peak of the largest
    step; `recorded`: what recorded steps keep."""

    total: int
    foreign: int
    weights: int
    step: int
    recorded: int = 0

    def left(self, fraction: float) -> int:
        """For keys and values, when all together are to take `fraction` of the total. May be
        negative."""
        ours = self.weights + self.step + self.recorded
        return int(self.total * fraction) - self.foreign - ours


class DeviceMemory(Protocol):
    """A device's memory, as the process that computes on it sees it."""

    def total(self) -> int: ...

    def foreign(self) -> int:
        """Taken, but not by tensors of this process."""
        ...

    def allocated(self) -> int:
        """By tensors of this process, now."""
        ...

    def peak_of(self, run: Callable[[], None]) -> int:
        """How far `allocated` rises while `run` computes, over what it was before."""
        ...


class CudaMemory:
    """See `DeviceMemory`."""

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def total(self) -> int:
        return self._info()[1]

    def foreign(self) -> int:
        free, total = self._info()
        return total - free - torch.cuda.memory_reserved(self._device)

    def allocated(self) -> int:
        return torch.cuda.memory_allocated(self._device)

    def peak_of(self, run: Callable[[], None]) -> int:
        before = self.allocated()
        torch.cuda.reset_peak_memory_stats(self._device)
        run()
        torch.cuda.synchronize(self._device)
        peak = torch.cuda.max_memory_allocated(self._device)
        torch.cuda.empty_cache()
        return peak - before

    def _info(self) -> tuple[int, int]:
        free, total = torch.cuda.mem_get_info(self._device)
        return int(free), int(total)


def measure_use(
    memory: DeviceMemory,
    largest: Callable[[], None],
    recorded: Callable[[], None] | None = None,
    kept: int = 0,
) -> MemoryUse:
    """`largest` computes the largest step; `recorded` the largest of those that are recorded,
    whose memory is kept beside that of the others, and `kept` bytes besides."""
    step = memory.peak_of(largest)
    if recorded is not None:
        kept += memory.peak_of(recorded)
    # After the steps: the code of the kernels was loaded by them.
    return MemoryUse(memory.total(), memory.foreign(), memory.allocated(), step, kept)
