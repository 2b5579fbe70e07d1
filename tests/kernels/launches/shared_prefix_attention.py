"""Launches of the shared pass: by head and format of the pages."""

import torch

from sapwood.kernels.kv_pages import QUANTIZED, KVPages
from sapwood.kernels.paged_attention.sharing import NUM_BLOCKS
from sapwood.kernels.paged_attention.work_list import SPLIT
from sapwood.kernels.shared_prefix_attention.plan import SharedPrefixes
from sapwood.kernels.shared_prefix_attention.triton_kernel import shared_prefix_attention_triton


def attend(
    kv_heads: int,
    group: int,
    head_dim: int,
    *,
    page_size: int = 16,
    kv: torch.dtype = torch.bfloat16,
    softcap: float | None = None,
) -> None:
    shape = (32, page_size, kv_heads, head_dim)
    scales = torch.zeros(shape[:3]) if kv in QUANTIZED else None
    rows, parts = 64, 1024
    shared_prefix_attention_triton(
        torch.zeros(rows, kv_heads * group, head_dim, dtype=torch.bfloat16),
        KVPages(torch.zeros(shape, dtype=kv), torch.zeros(shape, dtype=kv), scales, scales),
        SharedPrefixes(
            header=torch.zeros(4, dtype=torch.int32),
            buffer=torch.zeros(4_096, dtype=torch.int32),
            page_ids=torch.zeros(4_096, dtype=torch.int32),
            num_programs=64,
            split=SPLIT,
            num_blocks=NUM_BLOCKS,
            block_rows=16,
        ),
        torch.zeros((parts, kv_heads * group, head_dim)),
        torch.zeros((parts, kv_heads * group)),
        scale=0.1,
        softcap=softcap,
    )


def launch_llama_8b() -> None:
    for page_size in (1, 16, 64):
        attend(8, 4, 128, page_size=page_size)


def launch_smollm2() -> None:
    attend(3, 3, 64)


def launch_quantized() -> None:
    attend(8, 4, 128, kv=torch.int8)


def launch_other_heads() -> None:
    for head_dim in (80, 96, 256):
        attend(4, 7, head_dim)


def launch_soft_cap() -> None:
    attend(4, 2, 256, softcap=50.0)
