"""Figures of attention: decode, extend, shared prefixes, beside the same work of others."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from sapwood.kernels.paged_attention import paged_attention

from . import attention_peers as peers
from .device import Device, Limits
from .paged import LLAMA_8B, QWEN_7B, SMOLLM2, Heads, Step, make_step
from .report import Table, microseconds, share

FP8, INT8 = torch.float8_e4m3fn, torch.int8


@dataclass(frozen=True)
class Case:
    name: str
    rows: Sequence[tuple[int, int]]  # new tokens, context
    heads: Heads = LLAMA_8B
    page_size: int = 16
    kv_dtype: torch.dtype | None = None

    def smaller(self) -> "Case":
        """For a trial on the CPU."""
        rows = [(max(1, new // 256), max(1, context // 64)) for new, context in self.rows[:3]]
        heads = Heads(2 * self.heads.group, 2, 16)
        return Case(self.name, rows, heads, self.page_size, self.kv_dtype)

    def step(self, device: Device, shared: int = 0) -> Step:
        dtype = torch.bfloat16 if device.is_gpu else torch.float16
        kv = {"kv_dtype": self.kv_dtype, "shared": shared}
        place = device.torch_device
        return make_step(
            self.rows, self.heads, page_size=self.page_size, dtype=dtype, device=place, **kv
        )


DECODE = (
    Case("8B, 64 x 4,096", [(1, 4_096)] * 64),
    Case("8B, 64 x 4,096, pages of 64", [(1, 4_096)] * 64, page_size=64),
    Case("8B, 64 x 4,096, pages of 1", [(1, 4_096)] * 64, page_size=1),
    Case("8B, 64 x 4,096, fp8", [(1, 4_096)] * 64, kv_dtype=FP8),
    Case("8B, 64 x 4,096, int8", [(1, 4_096)] * 64, kv_dtype=INT8),
    Case("8B, 1 x 32,768", [(1, 32_768)]),
    Case("8B, 128 x 1,024", [(1, 1_024)] * 128),
    Case("7B (group 7), 64 x 4,096", [(1, 4_096)] * 64, QWEN_7B),
    Case("SmolLM2, 64 x 4,096", [(1, 4_096)] * 64, SMOLLM2),
)
EXTEND = (
    Case("8B, 8,192 new", [(8_192, 8_192)]),
    Case("8B, 4 x 2,048 new", [(2_048, 2_048)] * 4),
    Case("8B, 512 after 8,192", [(512, 8_704)]),
    Case("8B, 8,192 new, fp8", [(8_192, 8_192)], kv_dtype=FP8),
    Case("SmolLM2, 8,192 new", [(8_192, 8_192)], SMOLLM2),
    Case("8B, 64 decodes beside 1,024 new", [(1, 4_096)] * 64 + [(1_024, 1_024)]),
)

SHARED = ((64, 4_096, 64), (64, 4_096, 512), (16, 8_192, 256), (128, 8_192, 64))


def _cases(device: Device, cases: Sequence[Case]) -> list[Case]:
    """All of them; for a trial two small ones."""
    return list(cases) if device.is_gpu else [case.smaller() for case in (cases[0], cases[3])]


def _ours(step: Step, heads: Heads) -> Callable[[], object]:
    scale = heads.size**-0.5
    return lambda: paged_attention(step.q, step.pages, step.plan, scale=scale)


def _peer(device: Device, make: Callable[[], Callable[[], object]]) -> str:
    """Its time, or why there is none."""
    try:
        return microseconds(device.seconds(make()))
    except Exception as error:  # what others refuse is theirs; one line of it
        return f"{type(error).__name__}: {str(error).splitlines()[0][:60]}" if str(error) else "-"


def _peers(device: Device, case: Case, step: Step) -> list[str]:
    """SDPA, flex_attention, FlashInfer."""
    if case.kv_dtype is not None or len(set(case.rows)) > 1 or not device.is_gpu:
        return ["-", "-", "-"]
    new, context = case.rows[0]
    dense = new in (1, context)  # what SDPA's own causal mask covers
    heads = case.heads
    return [
        _peer(device, lambda: peers.sdpa(step, heads)) if dense else "-",
        _peer(device, lambda: peers.flex(step, heads)),
        _peer(device, lambda: peers.flashinfer(step, heads))
        if peers.flashinfer_is_here()
        else "not installed",
    ]


def decode_table(device: Device, limits: Limits) -> Table:
    table = Table(
        "Paged decode",
        ("step", "time", "GB/s", "of copy bandwidth", "SDPA, dense", "flex, dense", "FlashInfer"),
        "Goal: 85 % of copy bandwidth for 64 rows of 4,096 tokens.",
    )
    for case in _cases(device, DECODE):
        step = case.step(device)
        seconds = device.seconds(_ours(step, case.heads))
        rate = step.kv_bytes / seconds
        table.add(
            case.name,
            microseconds(seconds),
            f"{rate / 1e9:,.0f}",
            share(rate, limits.bandwidth),
            *_peers(device, case, step),
        )
    return table


def extend_table(device: Device, limits: Limits) -> Table:
    table = Table(
        "Extend and mixed steps",
        ("step", "time", "TFLOP/s", "of the GEMM rate", "SDPA, dense", "flex, dense", "FlashInfer"),
        "Goal: 55 % of the bfloat16 GEMM rate for 8,192 new tokens. Masked pairs count as no work.",
    )
    for case in _cases(device, EXTEND):
        step = case.step(device)
        seconds = device.seconds(_ours(step, case.heads))
        rate = step.flops(case.heads) / seconds
        table.add(
            case.name,
            microseconds(seconds),
            f"{rate / 1e12:,.1f}",
            share(rate, limits.rate),
            *_peers(device, case, step),
        )
    return table


def shared_table(device: Device) -> Table:
    table = Table(
        "Decode rows that share a prefix",
        ("rows", "prefix + own", "sharing", "the same rows, nothing shared", "ratio"),
        "Goal: 5 times faster than the plain kernel for 64 rows over 4,096 tokens.",
    )
    for rows, prefix, own in SHARED if device.is_gpu else [(4, 128, 8)]:
        heads = LLAMA_8B if device.is_gpu else Heads(4, 2, 16)
        case = Case("", [(1, prefix + own)] * rows, heads)
        together = device.seconds(_ours(case.step(device, shared=prefix), case.heads))
        alone = device.seconds(_ours(case.step(device), case.heads))
        sizes = f"{prefix:,} + {own:,}"
        table.add(
            str(len(case.rows)),
            sizes,
            microseconds(together),
            microseconds(alone),
            f"{alone / together:.1f}x",
        )
    return table
