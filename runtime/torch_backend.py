"""The torch path as a backend: the model in torch's tensors and the runner over them.

Owns: torch's threads, which device is used, and what of a GPU's memory is left for the KV cache.
"""

import logging
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, Self

from .machine import bfloat16_is_fast, free_memory, wait_patiently

wait_patiently()  # before torch starts its threads
# ruff: noqa: E402
import torch

from .batch import Batch
from .config import (
    CacheOptions,
    ComputeDevice,
    ComputeDtype,
    DeviceOptions,
    EngineConfig,
    KvDtype,
    ResolvedConfig,
    ScheduleOptions,
    resolve_dtype,
)
from .errors import EngineError, InvalidRequest, OutOfMemory
from .models.llama import LlamaModel
from .models.matrices import matrices_of
from .models.torch_tensors import TorchTensors
from .models.weights import is_kept_quantized, open_checkpoint
from .page_table import PageTable
from .parallel.checkpoint import ShardedCheckpoint
from .parallel.group import ALONE, Group
from .speculation import GPU_ROW_COST, TORCH_ROW_COST
from .torch_path.device_memory import DEFAULT_FRACTION, CudaMemory, DeviceMemory, measure_use
from .torch_path.first_steps import first_steps
from .torch_path.graphs import CudaGraphs, Graphs
from .torch_path.kv_cache import KVCache
from .torch_path.largest_step import PROFILED_CONTEXT, largest_step
from .torch_path.recorded_steps import MAX_TOKENS, kept_bytes
from .torch_path.runner import Model, ModelRunner, Recording

_log = logging.getLogger(__name__)

_PROGRAMS: Final = 3  # of attention for each multiprocessor: see `Capacity`
_FP8_BEGINS: Final = (8, 9)  # Ada
_FLOATS: Final[dict[ComputeDtype, torch.dtype]] = {"float32": torch.float32}  # others: bfloat16
_KV_DTYPES: Final[dict[KvDtype, torch.dtype]] = {"int8": torch.int8, "fp8": torch.float8_e4m3fn}


@dataclass(frozen=True)
class Gpu:
    """The GPU that computes, and the user's wishes about it."""

    memory: DeviceMemory
    graphs: Graphs
    num_processors: int
    options: DeviceOptions = DeviceOptions()

    @classmethod
    def of(cls, device: torch.device, options: DeviceOptions) -> Self:
        found = torch.cuda.get_device_properties(device)
        return cls(CudaMemory(device), CudaGraphs(device), found.multi_processor_count, options)

    @property
    def fraction(self) -> float:
        given = self.options.memory_fraction
        return DEFAULT_FRACTION if given is None else given

    @property
    def records(self) -> bool:
        return self.options.cuda_graphs is not False


class TorchBackend:
    """See `Backend`. `dtype`: of the model's weights; `kv_dtype` auto: the cache holds what the
    model computes with. `gpu`: None on a CPU. `group`: the ranks that compute the model together;
    this is what one of them does. `page_size`: kernels are compiled for pages of that many tokens
    while memory is measured."""

    def __init__(
        self,
        model: Model,
        dtype: ComputeDtype,
        gpu: Gpu | None = None,
        kv_dtype: KvDtype = "auto",
        group: Group = ALONE,
        page_size: int = CacheOptions.page_size,
    ) -> None:
        self._group = group
        self._page_size = page_size
        self.config = model.config
        self._kv_dtype = _KV_DTYPES.get(kv_dtype, model.dtype)
        self.dtype = dtype
        self.device: ComputeDevice = "cpu" if gpu is None else "cuda"
        self._gpu = gpu
        self._model = model
        self._device = model.device

    @classmethod
    def load(
        cls, path: Path, config: EngineConfig, device: ComputeDevice, group: Group = ALONE
    ) -> Self:
        """Read the checkpoint, tensor by tensor to the device; as one of several ranks, this one's
        slices of it. Raises ModelError; InvalidRequest where the device has no such dtype."""
        options = config.model
        if config.cache.kv_dtype == "fp8":
            check_fp8("kv_dtype", *_gpu())
        if options.num_threads is not None:
            torch.set_num_threads(options.num_threads)
        fast = device == "cuda" or bfloat16_is_fast()
        with open_checkpoint(path) as whole:
            # On a CPU without native code nothing multiplies by small integers.
            keeps = device == "cuda" and is_kept_quantized(whole)
            dtype = resolve_dtype(options.dtype, bfloat16_is_fast=fast, keeps_quantized=keeps)
            if dtype == "fp8":
                check_fp8("dtype", *_gpu())
            mine = whole if group.size == 1 else ShardedCheckpoint.of(whole, group.rank, group.size)
            matrices = matrices_of(dtype, mine)
            model = LlamaModel.load(TorchTensors(mine), _floats(dtype), device, matrices, group)
        gpu = Gpu.of(model.device, config.device) if device == "cuda" else None
        return cls(model, dtype, gpu, config.cache.kv_dtype, group, config.cache.page_size)

    def free_bytes(self, schedule: ScheduleOptions) -> int:
        """On a GPU: measured, by computing the largest step."""
        if self._gpu is None:
            return free_memory()
        assert schedule.token_budget is not None, "the schedule was resolved"
        run = partial(self._compute_largest, schedule.token_budget, schedule)
        memory = self._gpu.memory
        if not self._gpu.records:
            use = measure_use(memory, run)
        else:
            small = min(schedule.token_budget, MAX_TOKENS)
            small_run = partial(self._compute_largest, small, schedule)
            use = measure_use(memory, run, small_run, kept_bytes(self.config, schedule.max_running))
        left = use.left(self._gpu.fraction)
        _log.info("memory of the GPU: %s, %d bytes left for keys and values", use, left)
        return left

    def _compute_largest(self, num_tokens: int, schedule: ScheduleOptions) -> None:
        """And small steps of all kinds, so that later ones find their kernels compiled.

        Raises InvalidRequest where there is no room for such a step, EngineError where it cannot be
        computed at all."""
        context = min(self.config.context_length, PROFILED_CONTEXT)
        pages_per_slot = -(-context // self._page_size)
        table = PageTable(schedule.max_running, pages_per_slot, self._page_size)
        runner = self._runner(1, table)
        self._compute(runner, largest_step(num_tokens, schedule.max_running, context))
        for batch in first_steps(schedule.max_running, context):
            self._compute(runner, batch)

    def _compute(self, runner: ModelRunner, batch: Batch) -> None:
        flight = runner.launch(batch)
        flight.draw([span.samplings for span in batch.spans])
        for result in flight.collect().spans:
            if isinstance(result.error, OutOfMemory):
                raise InvalidRequest(
                    f"token_budget: a step of {batch.num_tokens} tokens has no room on this GPU "
                    f"beside the weights: {result.error}",
                    field="token_budget",
                )
            if result.error is not None:
                message = f"this model cannot be computed on this GPU: {result.error!r}"
                raise EngineError(message) from result.error

    @property
    def bytes_per_token(self) -> int:
        config = self.config
        return KVCache.bytes_per_token(
            config.num_layers, config.num_kv_heads, config.head_dim, self._kv_dtype
        )

    @property
    def row_cost(self) -> float:
        return TORCH_ROW_COST if self._gpu is None else GPU_ROW_COST

    def build(self, resolved: ResolvedConfig) -> ModelRunner:
        table = PageTable(
            resolved.schedule.max_running, resolved.pages_per_request, resolved.page_size
        )
        return self._runner(resolved.num_pages, table, self._recording(resolved.schedule))

    def _recording(self, schedule: ScheduleOptions) -> Recording | None:
        if self._gpu is None or not self._gpu.records:
            return None
        assert schedule.token_budget is not None, "the schedule was resolved"
        programs = max(_PROGRAMS * self._gpu.num_processors // self.config.num_kv_heads, 1)
        is_required = self._gpu.options.cuda_graphs is True
        return Recording(self._gpu.graphs, schedule.token_budget, programs, is_required)

    def _runner(
        self, num_pages: int, table: PageTable, recording: Recording | None = None
    ) -> ModelRunner:
        config = self.config
        kv = KVCache(
            config.num_layers,
            num_pages,
            table.page_size,
            config.num_kv_heads,
            config.head_dim,
            self._kv_dtype,
            self._device,
        )
        return ModelRunner(
            *(self._model, kv, table, self._device),
            overlaps=self._gpu is not None,
            deterministic=self._gpu is None or self._gpu.options.deterministic,
            recording=recording,
            group=self._group,
        )

    def check(self) -> None:
        """It computes in this process."""

    def close(self) -> None:
        """It holds memory alone."""


def _floats(dtype: ComputeDtype) -> torch.dtype:
    """Of activations, and of weights that are kept as floats."""
    return _FLOATS.get(dtype, torch.bfloat16)


def _gpu() -> tuple[str, tuple[int, int]]:
    """The name and the compute capability of the one that computes."""
    return torch.cuda.get_device_name(), torch.cuda.get_device_capability()


def check_fp8(option: str, name: str, capability: tuple[int, int]) -> None:
    """Raises InvalidRequest where the GPU of this name has no 8-bit floats for `option`."""
    if capability < _FP8_BEGINS:
        raise InvalidRequest(
            f"{option}: fp8 needs compute capability {_FP8_BEGINS[0]}.{_FP8_BEGINS[1]}, and {name} "
            f"has {capability[0]}.{capability[1]}",
            field=option,
        )
