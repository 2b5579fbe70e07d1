"""Launches of the small ops, in the shapes of Llama-3.1-8B and SmolLM2-135M."""

import torch

from sapwood.kernels.apply_mask.triton_kernel import apply_mask_triton


def launch_apply_mask() -> None:
    apply_mask_triton(torch.empty(4, 49_152), torch.empty(4, 1_536, dtype=torch.int32))
