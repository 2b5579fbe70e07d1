"""A checkpoint's tensors as torch tensors. Knows no file format and no architecture."""

from typing import Final

import torch
from torch import Tensor

from .dequantize import dequantize_chunks
from .weights import Checkpoint

_PLAIN: Final = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


class TorchTensors:
    """The tensors of an open checkpoint, in whatever dtype is asked for."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.config = checkpoint.config
        self._checkpoint = checkpoint

    def tensor(self, name: str, dtype: torch.dtype) -> Tensor:
        """The float32 values, rounded once to `dtype`; a view of the file where that is what it
        holds: do not write. An unknown name raises DamagedModel."""
        raw, storage = self._checkpoint.raw(name), self._checkpoint.storage(name)
        shape = self._checkpoint.shape(name)
        if storage in _PLAIN:
            return torch.from_numpy(raw).view(_PLAIN[storage]).to(dtype).view(shape)
        result = torch.empty(shape, dtype=dtype).view(len(raw), -1)
        for start, values in dequantize_chunks(raw, storage):
            result[start : start + len(values)] = torch.from_numpy(values)
        return result.view(shape)
