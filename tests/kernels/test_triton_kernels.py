"""The Triton kernels against their definitions: on the GPU, or without one in Triton's interpreter.

The ops with a file of their own are tested there.
"""

import pytest
import torch

pytest.importorskip("triton")

from sapwood.kernels.apply_mask.reference import apply_mask_reference
from sapwood.kernels.apply_mask.triton_kernel import apply_mask_triton

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@pytest.mark.parametrize("vocab", [1, 32, 77, 4_100])
def test_apply_mask(vocab: int) -> None:
    words = (vocab + 31) // 32
    masks = torch.randint(-(2**31), 2**31, (3, words), dtype=torch.int32, device=DEVICE)
    got = torch.randn(3, vocab, device=DEVICE)
    wanted = got.clone()
    apply_mask_triton(got, masks)
    apply_mask_reference(wanted, masks)
    assert torch.equal(got, wanted)
