"""How much of a decode step the GPU waits: the profiler's kernels against the wall clock."""

from dataclasses import dataclass
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from sapwood.runtime.loop import EngineLoop

from . import drive
from .work import Work

_STEPS = 40


@dataclass(frozen=True)
class Gaps:
    """Microseconds of one step, on average: between the first kernel's begin and the last one's end
    (`span`), with at least one kernel running (`busy`); `kernels`: how many ran; `slowest`: the
    kernels that took most, by name."""

    span: float
    busy: float
    kernels: float
    slowest: tuple[tuple[str, float], ...]

    @property
    def share(self) -> float:
        return 1 - self.busy / self.span


def measure(loop: EngineLoop, work: Work, prompts: list[list[int]]) -> Gaps:
    """Of decode steps in the middle of the work."""
    loop.control("flush_cache")
    drive.submit(loop, work, prompts, "gaps")
    for _ in range(30):  # prefill, and the first steps
        loop.step()
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        for _ in range(_STEPS):
            loop.step()
        torch.cuda.synchronize()
    drive.abort(loop, work, "gaps")
    return _summarize(profiler.events(), _STEPS)


def _summarize(events: Any, steps: int) -> Gaps:
    spans = sorted(
        (event.time_range.start, event.time_range.end, event.name)
        for event in events
        if event.device_type is torch.autograd.DeviceType.CUDA
    )
    busy, covered = 0.0, spans[0][0]
    total: dict[str, float] = {}
    for begin, end, name in spans:
        busy += max(0.0, end - max(begin, covered))
        covered = max(covered, end)
        total[name] = total.get(name, 0.0) + (end - begin)
    slowest = sorted(total.items(), key=lambda item: -item[1])[:8]
    return Gaps(
        span=(covered - spans[0][0]) / steps,
        busy=busy / steps,
        kernels=len(spans) / steps,
        slowest=tuple((name, time / steps) for name, time in slowest),
    )
