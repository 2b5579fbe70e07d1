"""Results on their way from the device to this memory. Knows no shape and no meaning."""

from typing import Self

import torch


class Arriving:
    """Copies that are queued behind the work that makes their source, and not waited for before
    `wait`. From this machine's memory nothing is copied."""

    def __init__(self, tensors: tuple[torch.Tensor, ...], event: torch.cuda.Event | None) -> None:
        self._tensors = tensors
        self._event = event

    @classmethod
    def of(cls, *tensors: torch.Tensor) -> Self:
        if not tensors or tensors[0].device.type != "cuda":
            return cls(tuple(tensor.cpu() for tensor in tensors), None)
        landed = tuple(
            torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True) for tensor in tensors
        )
        for target, source in zip(landed, tensors, strict=True):
            target.copy_(source, non_blocking=True)
        event = torch.cuda.Event()  # type: ignore[no-untyped-call]
        event.record()
        return cls(landed, event)

    def wait(self) -> tuple[torch.Tensor, ...]:
        if self._event is not None:
            self._event.synchronize()
        return self._tensors
