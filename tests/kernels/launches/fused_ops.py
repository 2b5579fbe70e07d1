"""Launches of the small fused ops at the shapes of Llama-3.1-8B, Qwen3 and SmolLM2-135M."""

import torch
from triton.runtime import driver

from sapwood.kernels.copy_pages.triton_kernel import copy_pages_triton
from sapwood.kernels.gated_activation.triton_kernel import gated_activation_triton
from sapwood.kernels.kv_pages import QUANTIZED, KVPages
from sapwood.kernels.rms_norm.triton_kernel import add_rms_norm_triton, rms_norm_triton
from sapwood.kernels.rotate_store import HeadNorms
from sapwood.kernels.rotate_store.triton_kernel import rotate_and_store_triton
from sapwood.kernels.store_kv.triton_kernel import store_kv_triton

BF16, FP8 = torch.bfloat16, torch.float8_e4m3fn
TOKENS = 64


def page_dtypes() -> list[torch.dtype]:
    """float8 as e4m3 begins with compute capability 8.9."""
    has_fp8 = driver.active.get_current_target().arch >= 89
    return [BF16, torch.int8, *([FP8] if has_fp8 else [])]


def pages(kv_heads: int, head_dim: int, dtype: torch.dtype) -> KVPages:
    shape = (8, 16, kv_heads, head_dim)
    k, v = torch.empty(shape, dtype=dtype), torch.empty(shape, dtype=dtype)
    if dtype not in QUANTIZED:
        return KVPages(k, v)
    return KVPages(k, v, torch.empty(shape[:3]), torch.empty(shape[:3]))


def launch_rms_norm() -> None:
    for size in (576, 1_024, 4_096, 8_192, 16_384):
        rms_norm_triton(torch.empty(TOKENS, size), torch.empty(size, dtype=BF16), 1e-5)


def launch_add_rms_norm() -> None:
    for size in (576, 1_024, 4_096, 8_192, 16_384):
        x, weight = torch.empty(TOKENS, size, dtype=BF16), torch.empty(size, dtype=BF16)
        add_rms_norm_triton(x, torch.empty(TOKENS, size), weight, 1e-5)


def launch_gated_activation() -> None:
    for activation in ("silu", "gelu", "gelu_tanh"):
        gated_activation_triton(torch.empty(TOKENS, 2 * 14_336, dtype=BF16), activation)


def launch_rotate_and_store() -> None:
    for heads, kv_heads, head_dim in ((32, 8, 128), (9, 3, 64), (8, 4, 256), (32, 32, 96)):
        for dtype in page_dtypes():
            qkv = torch.empty(TOKENS, heads + 2 * kv_heads, head_dim, dtype=BF16)
            cos, slots = torch.empty(TOKENS, head_dim), torch.empty(TOKENS, dtype=torch.int64)
            weight = torch.empty(head_dim, dtype=BF16)
            for norms in (None, HeadNorms(weight, weight, 1e-6)):
                stored = pages(kv_heads, head_dim, dtype)
                rotate_and_store_triton(qkv, cos, cos, stored, slots, norms)


def launch_store_kv() -> None:
    for dtype in page_dtypes():
        k, slots = torch.empty(TOKENS, 8, 128, dtype=BF16), torch.empty(TOKENS, dtype=torch.int64)
        store_kv_triton(k, k, pages(8, 128, dtype), slots)


def launch_copy_pages() -> None:
    pairs = torch.empty(4, dtype=torch.int64)
    copy_pages_triton(torch.empty(2, 8, 4_096, dtype=torch.int64), pairs, pairs)
