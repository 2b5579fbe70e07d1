"""rms_norm and add_rms_norm: the CPU path and the Triton kernel against their definitions."""

import math

import pytest
import torch

from sapwood.kernels.rms_norm import add_rms_norm, rms_norm
from sapwood.kernels.rms_norm.reference import add_rms_norm_reference, rms_norm_reference

pytestmark = pytest.mark.usefixtures("poisoned_memory")

FP32, FP16, BF16 = torch.float32, torch.float16, torch.bfloat16
# The interpreter's cast to bfloat16 cuts off where a GPU's rounds.
BF16_STEP = 2**-8 if torch.cuda.is_available() else 2**-7
TOLERANCE = {FP32: 1e-5, FP16: 2e-3, BF16: 2.5 * BF16_STEP}
EPS = 1e-5

SIZES = [1, 2, 7, 16, 33, 64, 80, 127, 128, 129, 511, 576, 1_000, 2_049, 4_096]
SHAPES = [
    *[(rows, size) for size in SIZES for rows in (1, 5)],
    *[(rows, 48) for rows in (0, 2, 9, 31, 65)],
    (2, 3, 16),
    (7, 4, 24),
    (2, 16_384),
    (3, 15_999),
]
KINDS = [(FP32, FP32), (FP32, FP16), (FP16, FP16), (FP32, BF16), (BF16, BF16)]


def error(got: torch.Tensor, wanted: torch.Tensor) -> float:
    """The largest difference, beside the largest number or 1."""
    assert got.shape == wanted.shape and got.dtype is wanted.dtype
    if not got.numel():
        return 0.0
    size = max(1.0, wanted.double().abs().max().item())
    return (got.double() - wanted.double()).abs().max().item() / size


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_rms_norm(shape: tuple[int, ...], device: str) -> None:
    for x_dtype, dtype in KINDS:
        x = (torch.randn(shape, device=device) * 7).to(x_dtype)
        weight = torch.randn(shape[-1], device=device).to(dtype)
        got = rms_norm(x, weight, EPS)
        assert error(got, rms_norm_reference(x, weight, EPS)) <= TOLERANCE[dtype]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_add_rms_norm(shape: tuple[int, ...], device: str) -> None:
    for total_dtype, dtype in KINDS:
        x = torch.randn(shape, device=device).to(dtype)
        total = (torch.randn(shape, device=device) * 7).to(total_dtype)
        weight = torch.randn(shape[-1], device=device).to(dtype)
        wanted_total = total.clone()
        got = add_rms_norm(x, total, weight, EPS)
        wanted = add_rms_norm_reference(x, wanted_total, weight, EPS)
        assert error(got, wanted) <= TOLERANCE[dtype]
        assert error(total, wanted_total) <= (BF16_STEP if total_dtype is BF16 else 0.0)


def test_by_hand(device: str) -> None:
    x = torch.tensor([[3.0, 4.0]], device=device)  # mean square 12.5
    weight = torch.tensor([1.0, 10.0], device=device)
    wanted = [pytest.approx([3 / math.sqrt(12.5), 40 / math.sqrt(12.5)])]
    assert rms_norm(x, weight, 1e-12).tolist() == wanted
    total = torch.tensor([[1.0, -2.0]], device=device)
    assert add_rms_norm(x - total, total, weight, 1e-12).tolist() == wanted
    assert total.tolist() == [[3.0, 4.0]]
    zeros = torch.zeros(1, 2, device=device)
    assert rms_norm(zeros, weight, EPS).tolist() == [[0.0, 0.0]]


@pytest.mark.parametrize("size", [16, 48, 200, 576])
def test_a_rows_result_does_not_depend_on_the_others(size: int, device: str) -> None:
    x, weight = torch.randn(13, size, device=device), torch.randn(size, device=device)
    together = rms_norm(x, weight, EPS)
    for row in (0, 5, 12):
        assert torch.equal(rms_norm(x[row : row + 1], weight, EPS)[0], together[row])


def test_rows_need_not_be_contiguous(device: str) -> None:
    x, weight = torch.randn(5, 4, 24, device=device)[:, 1:3], torch.ones(24, device=device)
    assert error(rms_norm(x, weight, EPS), rms_norm_reference(x, weight, EPS)) <= 1e-5


def test_misfits_are_refused(device: str) -> None:
    x = torch.zeros(2, 5, device=device)
    with pytest.raises(ValueError, match=r"weight \(4,\) does not fit x \(2, 5\)"):
        rms_norm(x, torch.zeros(4, device=device), EPS)
    with pytest.raises(ValueError, match=r"weight \(4,\) does not fit x \(2, 5\)"):
        add_rms_norm(x, x.clone(), torch.zeros(4, device=device), EPS)
    with pytest.raises(ValueError, match=r"x \(2, 5\) cannot be added to a total \(1, 5\)"):
        add_rms_norm(x, x[:1], torch.zeros(5, device=device), EPS)
    with pytest.raises(ValueError, match=r"with strides \(1, 2\)"):
        add_rms_norm(x, torch.zeros(5, 2, device=device).T, torch.zeros(5, device=device), EPS)
