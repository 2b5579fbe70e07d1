"""The native path as a backend: the step's weights, its threads and the runner over it. No torch.

Owns: what a dtype means here, and how many threads compute.
"""

import logging
import os
from pathlib import Path
from typing import Final, Self

from .._native import NativeUnavailable
from ..kernels.llama_step import load_library
from .config import ComputeDtype, EngineConfig, ResolvedConfig, resolve_dtype
from .errors import InvalidRequest
from .machine import bfloat16_is_fast
from .models.config import LlamaConfig
from .models.native_llama import load_native, native_obstacle, step_shape
from .models.weights import Checkpoint, open_checkpoint
from .native_runner import NativeRunner
from .page_table import PageTable

_log = logging.getLogger(__name__)

_KEPT: Final = frozenset({"Q8_0", "Q4_0", "Q4_1"})  # as the file has them


class NativeBackend:
    """See `Backend`. The checkpoint stays open until `build`: weights and cache share one native
    object, which is made when the cache's size is known."""

    def __init__(
        self, checkpoint: Checkpoint, dtype: ComputeDtype, threads: int, page_size: int
    ) -> None:
        self.config: LlamaConfig = checkpoint.config
        self.dtype: ComputeDtype = dtype
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
        return cls(checkpoint, dtype, threads, config.cache.page_size)

    @property
    def bytes_per_token(self) -> int:
        config = self.config
        width = 4 if self.dtype == "float32" else 2
        # Two tokens' keys and values lie side by side: a page of one wastes half.
        waste = 2 if width == 2 and self._page_size == 1 else 1
        return 2 * config.num_layers * config.num_kv_heads * config.head_dim * width * waste

    def build(self, resolved: ResolvedConfig) -> NativeRunner:
        shape = step_shape(
            self.config,
            page_size=resolved.page_size,
            num_pages=resolved.num_pages,
            wide_kv=self.dtype == "float32",
            threads=self._threads,
        )
        with self._checkpoint as checkpoint:
            step = load_native(checkpoint, self.dtype, shape)
        table = PageTable(
            resolved.schedule.max_running, resolved.pages_per_request, resolved.page_size
        )
        return NativeRunner(step, table, self._threads)


def is_kept_quantized(checkpoint: Checkpoint) -> bool:
    """Whether any matrix is stored in a block format that the step computes with as it is."""
    return any(checkpoint.storage(name) in _KEPT for name in checkpoint.names())


def num_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
