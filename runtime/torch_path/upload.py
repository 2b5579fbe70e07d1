"""Arrays that go to the device together: one copy, from memory that it can read by itself.

Owns: how several arrays lie in one piece of memory. Knows nothing of what they mean.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Self

import numpy as np
import torch
from numpy.typing import NDArray

_ALIGNMENT: Final = 16  # bytes: what one load of a GPU's thread reads at most


@dataclass(frozen=True)
class Layout:
    """Where each of some arrays begins in a piece of memory of `num_bytes`."""

    shapes: tuple[tuple[int, ...], ...]
    dtypes: tuple[torch.dtype, ...]
    begins: tuple[int, ...]
    num_bytes: int

    @classmethod
    def of(cls, arrays: Sequence[NDArray[Any]]) -> Self:
        sizes = [-(-array.nbytes // _ALIGNMENT) * _ALIGNMENT for array in arrays]
        begins = [0, *np.cumsum(sizes).tolist()]
        return cls(
            tuple(array.shape for array in arrays),
            tuple(torch.from_numpy(array[:0]).dtype for array in arrays),
            tuple(begins[:-1]),
            max(begins[-1], _ALIGNMENT),
        )

    def views(self, memory: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The arrays in `memory`, uint8 [num_bytes]."""
        return tuple(
            memory[begin : begin + torch.Size(shape).numel() * dtype.itemsize]
            .view(dtype)
            .view(shape)
            for shape, dtype, begin in zip(self.shapes, self.dtypes, self.begins, strict=True)
        )

    def pack(self, arrays: Sequence[NDArray[Any]], *, pinned: bool) -> torch.Tensor:
        """One after the other, in memory of this machine, uint8 [num_bytes].

        `pinned`: torch hands the memory out again only when the copies from it are done, so that it
        may be let go as soon as they are launched.
        """
        memory = torch.empty(self.num_bytes, dtype=torch.uint8, pin_memory=pinned)
        for view, array in zip(self.views(memory), arrays, strict=True):
            view.numpy()[...] = array
        return memory


def upload(arrays: Sequence[NDArray[Any]], device: torch.device | str) -> tuple[torch.Tensor, ...]:
    """The arrays on the device, by one copy that nobody waits for. On the CPU: themselves."""
    device = torch.device(device)
    if device.type == "cpu":
        return tuple(torch.from_numpy(array) for array in arrays)
    layout = Layout.of(arrays)
    packed = layout.pack(arrays, pinned=device.type == "cuda")
    return layout.views(packed.to(device, non_blocking=True))
