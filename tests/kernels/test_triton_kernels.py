"""The Triton kernels against their definitions: on the GPU, or without one in Triton's interpreter.

float16 and float32 only: the interpreter's bfloat16 matrix product is wrong.
"""

import numpy as np
import pytest
import torch

pytest.importorskip("triton")

from sapwood.kernels.apply_mask.reference import apply_mask_reference
from sapwood.kernels.apply_mask.triton_kernel import apply_mask_triton
from sapwood.kernels.copy_pages.reference import copy_pages_reference
from sapwood.kernels.copy_pages.triton_kernel import copy_pages_triton
from sapwood.kernels.kv_pages import KVPages
from sapwood.kernels.rms_norm.reference import rms_norm_reference
from sapwood.kernels.rms_norm.triton_kernel import rms_norm_triton
from sapwood.kernels.rotary import RotaryAngles
from sapwood.kernels.rotary.reference import rotate_reference
from sapwood.kernels.rotary.triton_kernel import rotate_triton
from sapwood.kernels.silu_mul.reference import silu_mul_reference
from sapwood.kernels.silu_mul.triton_kernel import silu_mul_triton
from sapwood.kernels.store_kv.reference import store_kv_reference
from sapwood.kernels.store_kv.triton_kernel import store_kv_triton

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
TOLERANCE = {torch.float32: 1e-5, torch.float16: 4e-3}
dtypes = pytest.mark.parametrize("dtype", list(TOLERANCE), ids=str)


def rand(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(shape, dtype=dtype, device=DEVICE)


def close(got: torch.Tensor, wanted: torch.Tensor) -> bool:
    assert got.shape == wanted.shape and got.dtype == wanted.dtype
    tolerance = TOLERANCE[got.dtype]
    return torch.allclose(got, wanted, atol=tolerance, rtol=tolerance)


@dtypes
@pytest.mark.parametrize("shape", [(1, 16), (5, 48), (3, 2, 7)], ids=str)
def test_rms_norm(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    x, weight = rand(*shape, dtype=dtype), rand(shape[-1], dtype=dtype)
    assert close(rms_norm_triton(x, weight, 1e-5), rms_norm_reference(x, weight, 1e-5))
    wide = x.float() * 30
    assert close(rms_norm_triton(wide, weight, 1e-5), rms_norm_reference(wide, weight, 1e-5))


@dtypes
@pytest.mark.parametrize("shape", [(1, 2), (3, 50), (2, 2_200)], ids=str)
def test_silu_mul(shape: tuple[int, int], dtype: torch.dtype) -> None:
    gate_up = rand(*shape, dtype=dtype) * 3
    assert close(silu_mul_triton(gate_up), silu_mul_reference(gate_up))


@dtypes
@pytest.mark.parametrize("heads", [1, 3])
@pytest.mark.parametrize("head_dim", [8, 12])
def test_rotate(heads: int, head_dim: int, dtype: torch.dtype) -> None:
    fused = rand(5, heads + 2, head_dim, dtype=dtype)
    x = fused[:, :heads]  # not contiguous, as a part of a fused projection
    positions = torch.tensor([0, 1, 7, 300, 2], device=DEVICE)
    frequencies = 10_000.0 ** -(np.arange(0, head_dim, 2, dtype=np.float32) / head_dim)
    cos, sin = RotaryAngles(frequencies, device=DEVICE).at(positions)
    assert close(rotate_triton(x, cos, sin), rotate_reference(x, cos, sin))


@dtypes
def test_store_kv(dtype: torch.dtype) -> None:
    fused = rand(5, 9, 6, dtype=dtype)
    k, v = fused[:, 3:6], fused[:, 6:]
    slots = torch.tensor([3, 14, 0, 7, 8], device=DEVICE)
    got = [rand(4, 4, 3, 6, dtype=dtype) for _ in range(2)]
    wanted = [pages.clone() for pages in got]
    store_kv_triton(k, v, KVPages(*got), slots)
    store_kv_reference(k, v, KVPages(*wanted), slots)
    assert torch.equal(got[0], wanted[0]) and torch.equal(got[1], wanted[1])


@pytest.mark.parametrize("shape", [(6, 4, 3, 5), (6, 16, 5, 32)], ids=str)
def test_copy_pages(shape: tuple[int, ...]) -> None:
    sources = torch.tensor([4, 0, 4], device=DEVICE)
    targets = torch.tensor([1, 5, 2], device=DEVICE)
    got = [rand(*shape) for _ in range(2)]
    wanted = [pages.clone() for pages in got]
    copy_pages_triton(KVPages(*got), sources, targets)
    copy_pages_reference(KVPages(*wanted), sources, targets)
    assert torch.equal(got[0], wanted[0]) and torch.equal(got[1], wanted[1])


@pytest.mark.parametrize("vocab", [1, 32, 77, 4_100])
def test_apply_mask(vocab: int) -> None:
    words = (vocab + 31) // 32
    masks = torch.randint(-(2**31), 2**31, (3, words), dtype=torch.int32, device=DEVICE)
    got = rand(3, vocab)
    wanted = got.clone()
    apply_mask_triton(got, masks)
    apply_mask_reference(wanted, masks)
    assert torch.equal(got, wanted)
