"""Launches of paged attention: head sizes, page sizes and formats at decode, extend and mixed."""

import torch
import triton

from sapwood.kernels.kv_pages import QUANTIZED, KVPages
from sapwood.kernels.paged_attention import Capacity, StaticPlan
from sapwood.kernels.paged_attention.triton_kernel import paged_attention_triton
from sapwood.kernels.paged_attention.work_list import Cut


def launch(
    *,
    head_dim: int = 128,
    group: int = 4,
    page_size: int = 16,
    dtype: torch.dtype = torch.bfloat16,
    stored: torch.dtype | None = None,
    window: int | None = None,
    softcap: float | None = None,
    short: bool = True,
    long_tile: int | None = None,
    trees: bool = False,
) -> None:
    """Decode, unless told otherwise; with `long_tile` and `short` mixed."""
    shape = (64, page_size, 8, head_dim)
    k, v = torch.zeros(shape, dtype=stored or dtype), torch.zeros(shape, dtype=stored or dtype)
    scales = torch.ones(shape[:3]) if stored in QUANTIZED else None
    capacity = Capacity(16, 64, 256, 32, long_rows=long_tile is not None)
    cut = Cut(group, window, long_tile=long_tile or 64)
    plan = StaticPlan(capacity, page_size, group=group, window=window, device="cpu", cut=cut).plan
    assert plan.work is not None
    object.__setattr__(plan.work, "has_short", short)
    if trees:
        object.__setattr__(plan.work, "trees", torch.zeros(64, dtype=torch.int32))
    q = torch.zeros((64, 8 * group + 16, head_dim), dtype=dtype)[:, : 8 * group]
    pages = KVPages(k, v, scales, scales)
    paged_attention_triton(q, pages, plan.work, window, scale=0.1, softcap=softcap)


def launch_decode_64() -> None:
    launch(head_dim=64, group=3)


def launch_decode_80() -> None:
    launch(head_dim=80, group=1)


def launch_decode_96() -> None:
    launch(head_dim=96, group=1)


def launch_decode_128() -> None:
    launch()


def launch_decode_128_float16() -> None:
    launch(dtype=torch.float16)


def launch_decode_256_softcap_window() -> None:
    launch(head_dim=256, group=2, softcap=50.0, window=4_096)


def launch_decode_pages_of_1() -> None:
    launch(page_size=1)


def launch_decode_pages_of_64() -> None:
    launch(page_size=64)


def launch_decode_int8() -> None:
    launch(stored=torch.int8)


def launch_decode_float32() -> None:
    launch(head_dim=64, group=3, dtype=torch.float32)


def launch_extend_64() -> None:
    launch(head_dim=64, group=3, short=False, long_tile=64)


def launch_extend_64_wide() -> None:
    launch(head_dim=64, group=3, short=False, long_tile=128)


def launch_extend_80() -> None:
    launch(head_dim=80, group=1, short=False, long_tile=128)


def launch_extend_96() -> None:
    launch(head_dim=96, group=1, short=False, long_tile=128)


def launch_extend_128() -> None:
    launch(short=False, long_tile=64)


def launch_extend_128_wide() -> None:
    launch(short=False, long_tile=128)


def launch_extend_256_softcap_window() -> None:
    launch(head_dim=256, group=2, softcap=50.0, window=4_096, short=False, long_tile=64)


def launch_extend_int8() -> None:
    launch(stored=torch.int8, short=False, long_tile=128)


def launch_extend_float32() -> None:
    launch(head_dim=64, group=3, dtype=torch.float32, short=False, long_tile=64)


def launch_mixed_64() -> None:
    launch(head_dim=64, group=3, long_tile=64)


def launch_mixed_128() -> None:
    launch(long_tile=64)


def launch_mixed_256_softcap_window() -> None:
    launch(head_dim=256, group=2, softcap=50.0, window=4_096, long_tile=64)


def launch_mixed_quantized() -> None:
    if triton.runtime.driver.active.get_current_target().arch >= 89:
        launch(stored=torch.float8_e4m3fn)  # older GPUs have no such numbers
        launch(stored=torch.float8_e4m3fn, long_tile=64)
    launch(stored=torch.int8, long_tile=64)
    launch(stored=torch.int8, dtype=torch.float16, head_dim=64, long_tile=64)


def launch_trees_64() -> None:
    launch(head_dim=64, group=3, trees=True)


def launch_trees_128() -> None:
    launch(trees=True)
