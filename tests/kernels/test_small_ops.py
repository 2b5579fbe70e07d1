"""The CPU paths of the small ops against their definitions, and the definitions against facts."""

import math

import numpy as np
import pytest
import torch
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from sapwood.kernels.apply_mask import apply_mask
from sapwood.kernels.apply_mask.reference import apply_mask_reference
from sapwood.kernels.copy_pages import copy_pages
from sapwood.kernels.copy_pages.reference import copy_pages_reference
from sapwood.kernels.kv_pages import KVPages
from sapwood.kernels.rms_norm import rms_norm
from sapwood.kernels.rms_norm.reference import rms_norm_reference
from sapwood.kernels.rotary import RotaryAngles, rotary, rotate
from sapwood.kernels.silu_mul import silu_mul
from sapwood.kernels.silu_mul.reference import silu_mul_reference
from sapwood.kernels.store_kv import store_kv
from sapwood.kernels.store_kv.reference import store_kv_reference

FP32, BF16 = torch.float32, torch.bfloat16
STEP = 2.0**-7  # one rounding of bfloat16, relative
dtypes = pytest.mark.parametrize("dtype", [FP32, BF16], ids=str)


def close(got: torch.Tensor, wanted: torch.Tensor) -> bool:
    assert got.shape == wanted.shape and got.dtype == wanted.dtype
    tolerance = 1e-5 if got.dtype is FP32 else STEP
    return torch.allclose(got, wanted, atol=tolerance / 10, rtol=tolerance)


# --- rms_norm, silu_mul ---------------------------------------------------------------------------


@pytest.mark.parametrize(("x_dtype", "dtype"), [(FP32, FP32), (BF16, BF16), (FP32, BF16)], ids=str)
@pytest.mark.parametrize("shape", [(1, 8), (5, 33), (2, 3, 16), (0, 8)], ids=str)
def test_rms_norm(shape: tuple[int, ...], x_dtype: torch.dtype, dtype: torch.dtype) -> None:
    x, weight = (torch.randn(shape) * 7).to(x_dtype), torch.randn(shape[-1]).to(dtype)
    assert close(rms_norm(x, weight, 1e-5), rms_norm_reference(x, weight, 1e-5))


def test_rms_norm_by_hand() -> None:
    x = torch.tensor([[3.0, 4.0]])  # mean square 12.5
    got = rms_norm(x, torch.tensor([1.0, 10.0]), 0.0)
    assert got.tolist() == [pytest.approx([3 / math.sqrt(12.5), 40 / math.sqrt(12.5)])]
    assert rms_norm(torch.zeros(1, 2), torch.ones(2), 1e-5).tolist() == [[0.0, 0.0]]


@dtypes
@pytest.mark.parametrize("shape", [(1, 2), (7, 66), (0, 4)], ids=str)
def test_silu_mul(shape: tuple[int, int], dtype: torch.dtype) -> None:
    gate_up = (torch.randn(shape) * 3).to(dtype)
    got, wanted = silu_mul(gate_up), silu_mul_reference(gate_up)
    assert torch.allclose(got.float(), wanted.float(), rtol=2 * STEP, atol=1e-6)
    if dtype is FP32:
        assert close(got, wanted)


def test_silu_mul_by_hand() -> None:
    got = silu_mul(torch.tensor([[0.0, 1.0, 5.0, 2.0]]))  # gates 0 and 1, ups 5 and 2
    assert got.tolist() == [pytest.approx([0.0, 2 / (1 + math.exp(-1))])]


# --- rotary ---------------------------------------------------------------------------------------


@dtypes
def test_rotation_equals_transformers(dtype: torch.dtype) -> None:
    q, k = torch.randn(6, 4, 16).to(dtype), torch.randn(6, 2, 16).to(dtype)
    positions = torch.tensor([0, 1, 2, 100, 8_191, 5])
    frequencies = 1.0 / 500.0 ** (torch.arange(0, 16, 2) / 16)
    angles = torch.outer(positions.float(), frequencies)
    both = torch.cat((angles, angles), dim=-1)
    wanted = apply_rotary_pos_emb(q.float(), k.float(), both.cos(), both.sin(), unsqueeze_dim=1)
    got = rotary(q, k, *RotaryAngles(frequencies.numpy()).at(positions))
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


# --- pages ----------------------------------------------------------------------------------------


@dtypes
def test_store_kv(dtype: torch.dtype) -> None:
    fused = torch.randn(5, 9, 6).to(dtype)
    k, v = fused[:, 3:6], fused[:, 6:]  # parts of one projection: not contiguous
    slots = torch.tensor([3, 14, 0, 7, 8])
    got = [torch.randn(4, 4, 3, 6).to(dtype) for _ in range(2)]
    wanted = [pages.clone() for pages in got]
    store_kv(k, v, KVPages(*got), slots)
    store_kv_reference(k, v, KVPages(*wanted), slots)
    assert torch.equal(got[0], wanted[0]) and torch.equal(got[1], wanted[1])
    assert torch.equal(got[0][3, 2], k[1]) and torch.equal(got[1][1, 3], v[3])


def test_copy_pages() -> None:
    sources, targets = torch.tensor([4, 0, 4]), torch.tensor([1, 5, 2])
    got = [torch.randn(6, 4, 3, 5) for _ in range(2)]
    wanted = [pages.clone() for pages in got]
    copy_pages(KVPages(*got), sources, targets)
    copy_pages_reference(KVPages(*wanted), sources, targets)
    assert torch.equal(got[0], wanted[0]) and torch.equal(got[1], wanted[1])
    assert torch.equal(got[1][5], got[1][0]) and torch.equal(got[0][2], got[0][4])


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
    pages = KVPages(torch.zeros(2, 4, 3, 5), torch.zeros(2, 4, 3, 5))
    with pytest.raises(ValueError, match=r"weight \(4,\) does not fit x \(2, 5\)"):
        rms_norm(torch.zeros(2, 5), torch.zeros(4), 1e-5)
    with pytest.raises(ValueError, match="even width"):
        silu_mul(torch.zeros(2, 5))
    with pytest.raises(ValueError, match=r"cos \(2, 4\)"):
        rotate(torch.zeros(2, 1, 8), torch.zeros(2, 4), torch.zeros(2, 4))
    with pytest.raises(ValueError, match="do not fit pages"):
        store_kv(torch.zeros(1, 2, 5), torch.zeros(1, 2, 5), pages, torch.tensor([0]))
    with pytest.raises(ValueError, match=r"\(2,\) slots for 1 tokens"):
        store_kv(torch.zeros(1, 3, 5), torch.zeros(1, 3, 5), pages, torch.tensor([0, 1]))
    with pytest.raises(ValueError, match="sources for"):
        copy_pages(pages, torch.tensor([0]), torch.tensor([0, 1]))
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
