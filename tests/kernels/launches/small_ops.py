"""Launches of the small ops, in the shapes of Llama-3.1-8B and SmolLM2-135M."""

import torch

from sapwood.kernels.apply_mask.triton_kernel import apply_mask_triton
from sapwood.kernels.copy_pages.triton_kernel import copy_pages_triton
from sapwood.kernels.kv_pages import KVPages
from sapwood.kernels.rms_norm.triton_kernel import rms_norm_triton


def launch_rms_norm() -> None:
    weight = torch.empty(4_096, dtype=torch.bfloat16)
    rms_norm_triton(torch.empty(8, 4_096), weight, 1e-5)
    rms_norm_triton(torch.empty(8, 4_096, dtype=torch.bfloat16), weight, 1e-5)


def launch_apply_mask() -> None:
    apply_mask_triton(torch.empty(4, 49_152), torch.empty(4, 1_536, dtype=torch.int32))


def launch_copy_pages() -> None:
    pages = [torch.empty(8, 16, 8, 128, dtype=torch.bfloat16) for _ in range(2)]
    pairs = torch.tensor([1, 2])
    copy_pages_triton(KVPages(*pages), pairs, pairs + 4)
