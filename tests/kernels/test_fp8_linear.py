"""Products in e4m3: the rounding bit by bit, the product against float32 and the exact weights."""

import pytest
import torch

from sapwood.kernels import implementation
from sapwood.kernels.fp8_linear import Fp8Weight, fp8_linear, fp8_rows, to_fp8
from sapwood.kernels.fp8_linear.reference import fp8_linear_reference, fp8_rows_reference

pytestmark = pytest.mark.usefixtures("poisoned_memory")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
if DEVICE == "cuda" and torch.cuda.get_device_capability() < (8, 9):
    pytest.skip("e4m3 needs compute capability 8.9", allow_module_level=True)

ROWS = [1, 2, 3, 5, 16, 17, 33, 70]
SIZES = [(16, 16), (48, 32), (16, 80), (144, 64), (32, 592)]


@pytest.fixture(params=["torch", "triton"])
def path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "triton":
        pytest.importorskip("triton")
    monkeypatch.setattr(implementation, "is_triton", lambda x: request.param == "triton")
    return str(request.param)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (4, 64), (2, 1_000), (33, 16), (0, 8)], ids=str)
def test_rounding_is_the_references(path: str, shape: tuple[int, int], dtype: torch.dtype) -> None:
    x = (torch.randn(shape, device=DEVICE) * 3).to(dtype)
    if len(x) > 1:
        x[1] = 0
    got, scales = fp8_rows(x)
    wanted, wanted_scales = fp8_rows_reference(x)
    assert torch.equal(scales, wanted_scales)
    assert torch.equal(got.view(torch.uint8), wanted.view(torch.uint8))
    assert ((got.float() * scales - x.float()).abs() <= x.float().abs() / 15 + scales / 512).all()


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("rows", ROWS)
def test_product(path: str, rows: int, size: tuple[int, int]) -> None:
    outputs, inputs = size
    matrix = torch.randn(outputs, inputs, device=DEVICE)
    weight = to_fp8(matrix)
    x = torch.randn(rows, inputs, device=DEVICE).half()
    got = fp8_linear(x, weight)
    wanted = fp8_linear_reference(x, weight.values, weight.scales)
    assert got.dtype is torch.float16 and got.shape == (rows, outputs)
    largest = wanted.abs().max()
    assert (got - wanted).abs().max() <= 2**-8 * largest  # bfloat16, rounded from sums in fp32
    exact = x.float() @ matrix.T
    assert (got - exact).norm() <= 0.06 * exact.norm()


def test_bias_and_no_rows(path: str) -> None:
    weight = to_fp8(torch.randn(32, 16, device=DEVICE))
    x, bias = torch.randn(3, 16, device=DEVICE), torch.randn(32, device=DEVICE)
    wanted = fp8_linear_reference(x, weight.values, weight.scales, bias)
    assert torch.allclose(fp8_linear(x, weight, bias), wanted, atol=2e-2)
    assert fp8_linear(x[:0], weight, bias).shape == (0, 32)


def test_an_outputs_largest_weight_keeps_its_value() -> None:
    matrix = torch.tensor([[0.5, -7.0] + [0.0] * 14, [0.0] * 16] * 8)
    weight = to_fp8(matrix)
    assert weight.values.float()[0, 1] == -448 and weight.scales[0, 0] == 7 / 448
    assert not weight.values.float()[1].any() and weight.scales[0, 1] == 1
    assert weight.nbytes == 256 + 64


def test_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="multiples of 16"):
        to_fp8(torch.randn(8, 16))
    weight = to_fp8(torch.randn(16, 16))
    with pytest.raises(ValueError, match="16 inputs"):
        fp8_linear(torch.randn(2, 32), weight)
    with pytest.raises(ValueError, match="scales"):
        Fp8Weight(weight.values, weight.scales.T)
