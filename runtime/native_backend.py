"""The native path as a backend: the step's weights, its threads and the runner over it. No torch.

Owns: what a dtype means here, and how many threads compute.
"""

import logging
from pathlib import Path
from typing import Final, Self

from .._native import NativeUnavailable
from ..kernels.llama_step import KvFormat, LlamaStep, StepShape, load_library
from .config import (
    ComputeDtype,
    EngineConfig,
    KvDtype,
    ResolvedConfig,
    ScheduleOptions,
    resolve_dtype,
)
from .errors import InvalidRequest
from .machine import bfloat16_is_fast, free_memory, num_cores
from .models.config import LlamaConfig
from .models.native_llama import load_native, native_obstacle, step_shape
from .models.weights import Checkpoint, is_kept_quantized, open_checkpoint
from .native_runner import NativeRunner
from .page_table import PageTable
from .speculation import ROW_COSTS

_log = logging.getLogger(__name__)


class NativeBackend:
    """See `Backend`. The checkpoint stays open until `build`: weights and cache share one native
    object, which is made when the cache's size is known."""

    device: Final = "cpu"

    def __init__(
        self,
        checkpoint: Checkpoint,
        dtype: ComputeDtype,
        kv_format: KvFormat,
        threads: int,
        page_size: int,
    ) -> None:
        self.config: LlamaConfig = checkpoint.config
        self.dtype: ComputeDtype = dtype
        self._kv_format = kv_format
        self._checkpoint = checkpoint
        self._threads = threads
        self._page_size = page_size

    @classmethod
    def load(cls, path: Path, config: EngineConfig) -> Self:
        """Open the checkpoint; compile the step where that is still to do.

        Raises ModelError; NativeUnavailable, also for an architecture that the native step does not
        compute; InvalidRequest where an environment variable makes no sense.
        """
        try:
            load_library(_log.warning)
        except ValueError as error:
            raise InvalidRequest(str(error)) from error
        checkpoint = open_checkpoint(path)
        obstacle = native_obstacle(checkpoint.config)
        if obstacle is not None:
            checkpoint.close()
            raise NativeUnavailable(obstacle)
        options = config.model
        dtype = resolve_dtype(
            options.dtype,
            bfloat16_is_fast=bfloat16_is_fast(),
            keeps_quantized=is_kept_quantized(checkpoint),
        )
        threads = options.num_threads or num_cores()
        try:
            kv_format = choose_kv_format(config.cache.kv_dtype, dtype)
        except InvalidRequest:
            checkpoint.close()
            raise
        return cls(checkpoint, dtype, kv_format, threads, config.cache.page_size)

    def free_bytes(self, schedule: ScheduleOptions) -> int:
        return free_memory()

    @property
    def bytes_per_token(self) -> int:
        return -(-LlamaStep.page_bytes(load_library(), self._shape(1)) // self._page_size)

    @property
    def row_cost(self) -> float:
        return ROW_COSTS[self.dtype]

    def build(self, resolved: ResolvedConfig) -> NativeRunner:
        with self._checkpoint as checkpoint:
            step = load_native(checkpoint, self.dtype, self._shape(resolved.num_pages))
        table = PageTable(
            resolved.schedule.max_running, resolved.pages_per_request, resolved.page_size
        )
        return NativeRunner(step, table, self._threads)

    def check(self) -> None:
        """It computes in this process."""

    def close(self) -> None:
        self._checkpoint.close()

    def _shape(self, num_pages: int) -> StepShape:
        return step_shape(
            self.config,
            page_size=self._page_size,
            num_pages=num_pages,
            kv_format=self._kv_format,
            threads=self._threads,
        )


def choose_kv_format(kv_dtype: KvDtype, dtype: ComputeDtype) -> KvFormat:
    """Raises InvalidRequest where the two do not go together."""
    if kv_dtype == "fp8":
        raise InvalidRequest("kv_dtype: fp8 is for a GPU", field="kv_dtype")
    if dtype != "float32":
        return KvFormat.INT8 if kv_dtype == "int8" else KvFormat.BFLOAT16
    if kv_dtype == "int8":
        raise InvalidRequest(
            "kv_dtype: int8 is multiplied as bfloat16 and does not go with dtype float32",
            field="kv_dtype",
        )
    return KvFormat.FLOAT32
