"""The machine under measurement: what it is, how time is taken on it, and what it can do at best.

Owns: the clock and the two limits that every figure is a share of, copy bandwidth and the rate of
bfloat16 matrix products, both measured in the same run. On a CPU it times anything small, to try
the programs without a GPU; such figures mean nothing.
"""

import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

import torch

_COPY_BYTES = 4 << 30
_GEMM_SIZE = 8_192
_FLUSH_BYTES = 256 << 20  # more than the L2 cache of any GPU


@dataclass(frozen=True)
class Limits:
    """`bandwidth`: bytes read and written by a copy, a second; `rate`: floating-point operations of
    a bfloat16 product, a second."""

    bandwidth: float
    rate: float


class Device:
    """`device`: of torch. `repeats`: timed calls, of which the median counts."""

    def __init__(self, device: str, repeats: int = 50) -> None:
        self.torch_device = torch.device(device)
        self.is_gpu = self.torch_device.type == "cuda"
        self.repeats = repeats if self.is_gpu else 1
        self._flush = torch.empty(
            _FLUSH_BYTES if self.is_gpu else 1, dtype=torch.int8, device=device
        )

    def seconds(self, call: Callable[[], object]) -> float:
        """The median time of a call whose operands are not in the cache."""
        for _ in range(3 if self.is_gpu else 1):  # the first one compiles
            call()
        if not self.is_gpu:
            begin = time.perf_counter()
            call()
            return time.perf_counter() - begin
        torch.cuda.synchronize()
        pairs = []
        for _ in range(self.repeats):
            begin_event, end_event = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            self._flush.zero_()
            begin_event.record()
            call()
            end_event.record()
            pairs.append((begin_event, end_event))
        torch.cuda.synchronize()
        return statistics.median(begin.elapsed_time(end) for begin, end in pairs) / 1e3

    def limits(self) -> Limits:
        """Measured now, with torch's own copy and matrix product."""
        return Limits(self._bandwidth(), self._rate())

    def _bandwidth(self) -> float:
        size = _COPY_BYTES if self.is_gpu else 1 << 20
        source = torch.empty(size, dtype=torch.int8, device=self.torch_device)
        target = torch.empty_like(source)
        return 2 * size / self.seconds(lambda: target.copy_(source))

    def _rate(self) -> float:
        size = _GEMM_SIZE if self.is_gpu else 64
        left = torch.randn(size, size, dtype=torch.bfloat16, device=self.torch_device)
        right = torch.randn(size, size, dtype=torch.bfloat16, device=self.torch_device)
        return 2 * size**3 / self.seconds(lambda: left @ right)

    def synchronize(self) -> None:
        if self.is_gpu:
            torch.cuda.synchronize()

    def describe(self) -> dict[str, str]:
        """What a reader has to know to weigh the figures."""
        facts = {"date": time.strftime("%Y-%m-%d"), "python": platform.python_version()}
        if self.is_gpu:
            properties = torch.cuda.get_device_properties(self.torch_device)
            memory = properties.total_memory / 2**30
            facts["gpu"] = (
                f"{properties.name}, {memory:.0f} GiB, {properties.multi_processor_count} SMs"
            )
            facts["cuda"] = str(torch.version.cuda)
        else:
            facts["gpu"] = "none: a trial on the CPU, whose figures mean nothing"
        for package in ("torch", "triton", "transformers", "flashinfer-python", "numpy"):
            try:
                facts[package] = version(package)
            except PackageNotFoundError:
                facts[package] = "not installed"
        return facts
