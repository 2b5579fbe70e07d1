"""The CPU paths of the small ops against their definitions, and the definitions against facts."""

import numpy as np
import pytest
import torch
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from sapwood.kernels.apply_mask import apply_mask
from sapwood.kernels.apply_mask.reference import apply_mask_reference
from sapwood.kernels.kv_pages import KVPages
from sapwood.kernels.rotary import RotaryAngles, rotate

FP32, BF16 = torch.float32, torch.bfloat16
STEP = 2.0**-7  # one rounding of bfloat16, relative
dtypes = pytest.mark.parametrize("dtype", [FP32, BF16], ids=str)


# --- rotary ---------------------------------------------------------------------------------------


@dtypes
def test_rotation_equals_transformers(dtype: torch.dtype) -> None:
    q, k = torch.randn(6, 4, 16).to(dtype), torch.randn(6, 2, 16).to(dtype)
    positions = torch.tensor([0, 1, 2, 100, 8_191, 5])
    frequencies = 1.0 / 500.0 ** (torch.arange(0, 16, 2) / 16)
    angles = torch.outer(positions.float(), frequencies)
    both = torch.cat((angles, angles), dim=-1)
    wanted = apply_rotary_pos_emb(q.float(), k.float(), both.cos(), both.sin(), unsqueeze_dim=1)
    cos, sin = RotaryAngles(frequencies.numpy()).at(positions)
    got = rotate(q, cos, sin), rotate(k, cos, sin)
    for ours, theirs in zip(got, wanted, strict=True):
        assert ours.dtype is dtype
        assert torch.allclose(ours.float(), theirs, atol=1e-3 if dtype is FP32 else 2 * STEP)


def test_rotation_depends_on_distance_alone() -> None:
    x = torch.randn(1, 1, 8).expand(4, 1, 8)
    turned = rotate(
        x,
        *RotaryAngles(np.array([1.0, 0.1, 0.01, 0.001], np.float32)).at(
            torch.tensor([3, 10, 103, 110])
        ),
    )[:, 0]
    assert torch.allclose(turned[0] @ turned[1], turned[2] @ turned[3], atol=1e-4)
    assert torch.allclose(turned.norm(dim=1), x[:, 0].norm(dim=1), atol=1e-5)


# --- apply_mask -----------------------------------------------------------------------------------


@pytest.mark.parametrize("vocab", [1, 31, 32, 33, 500])
def test_apply_mask(vocab: int) -> None:
    words = (vocab + 31) // 32
    masks = torch.randint(-(2**31), 2**31, (4, words), dtype=torch.int32)
    got = torch.randn(4, vocab)
    wanted = got.clone()
    apply_mask(got, masks)
    apply_mask_reference(wanted, masks)
    assert torch.equal(got, wanted)


def test_apply_mask_by_hand() -> None:
    logits = torch.zeros(2, 40)
    masks = torch.tensor([[-(2**31) | 1, 1 << 7], [0, -1]], dtype=torch.int32)
    apply_mask(logits, masks)
    assert [torch.nonzero(row == 0).flatten().tolist() for row in logits] == [
        [0, 31, 39],
        list(range(32, 40)),
    ]


# --- refusals -------------------------------------------------------------------------------------


def test_misfits_are_refused() -> None:
    with pytest.raises(ValueError, match=r"cos \(2, 4\)"):
        rotate(torch.zeros(2, 1, 8), torch.zeros(2, 4), torch.zeros(2, 4))
    with pytest.raises(ValueError, match="do not fit logits"):
        apply_mask(torch.zeros(1, 33), torch.zeros(1, 1, dtype=torch.int32))
    with pytest.raises(TypeError, match="masks int32"):
        apply_mask(torch.zeros(1, 32), torch.zeros(1, 1, dtype=torch.int64))


def test_pages_of_different_kinds_are_refused() -> None:
    pages, scales = torch.zeros(2, 4, 3, 5), torch.ones(2, 4, 3)
    with pytest.raises(ValueError, match="differ"):
        KVPages(pages, pages[:1])
    with pytest.raises(ValueError, match="k_scales go with pages of int8"):
        KVPages(pages, pages, scales, scales)
    with pytest.raises(ValueError, match="k_scales go with pages of int8"):
        KVPages(pages.to(torch.int8), pages.to(torch.int8))
    with pytest.raises(ValueError, match="do not fit pages"):
        KVPages(pages.to(torch.int8), pages.to(torch.int8), scales[:1], scales)
