"""The torch path as a backend: the model in torch's tensors and the runner over them.

Owns: torch's threads, and which device is used.
"""

from pathlib import Path
from typing import Final, Self

from .machine import bfloat16_is_fast, free_memory, wait_patiently

wait_patiently()  # before torch starts its threads
# ruff: noqa: E402
import torch

from .config import (
    ComputeDevice,
    ComputeDtype,
    EngineConfig,
    ResolvedConfig,
    ScheduleOptions,
    resolve_dtype,
)
from .kv_cache import KVCache
from .models.llama import LlamaModel
from .models.torch_tensors import TorchTensors
from .models.weights import open_checkpoint
from .page_table import PageTable
from .runner import Model, ModelRunner
from .speculation import TORCH_ROW_COST

_DTYPES: Final[dict[ComputeDtype, torch.dtype]] = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
}


class TorchBackend:
    """See `Backend`. `dtype`: of the model's weights, and of the KV cache."""

    def __init__(self, model: Model, dtype: ComputeDtype, device: ComputeDevice = "cpu") -> None:
        self.config = model.config
        self.dtype = dtype
        self._model = model
        self.device: ComputeDevice = device
        self._device = torch.device(device)

    @classmethod
    def load(cls, path: Path, config: EngineConfig, device: ComputeDevice) -> Self:
        """Read the checkpoint, tensor by tensor to the device. Raises ModelError."""
        options = config.model
        if options.num_threads is not None:
            torch.set_num_threads(options.num_threads)
        fast = device == "cuda" or bfloat16_is_fast()
        dtype = resolve_dtype(options.dtype, bfloat16_is_fast=fast)
        with open_checkpoint(path) as checkpoint:
            model = LlamaModel.load(TorchTensors(checkpoint), _DTYPES[dtype], device)
        return cls(model, dtype, device)

    def free_bytes(self, schedule: ScheduleOptions) -> int:
        return free_memory()

    @property
    def bytes_per_token(self) -> int:
        config = self.config
        return KVCache.bytes_per_token(
            config.num_layers, config.num_kv_heads, config.head_dim, _DTYPES[self.dtype]
        )

    @property
    def row_cost(self) -> float:
        return TORCH_ROW_COST

    def build(self, resolved: ResolvedConfig) -> ModelRunner:
        config = self.config
        kv = KVCache(
            config.num_layers,
            resolved.num_pages,
            resolved.page_size,
            config.num_kv_heads,
            config.head_dim,
            _DTYPES[self.dtype],
            self._device,
        )
        table = PageTable(
            resolved.schedule.max_running, resolved.pages_per_request, resolved.page_size
        )
        return ModelRunner(
            self._model, kv, table, self._device, overlaps=self._device.type != "cpu"
        )
