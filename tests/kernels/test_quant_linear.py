"""Products by quantised weights: in Triton, on the GPU or interpreted, against float64.

No bfloat16: the interpreter multiplies it wrongly, and cuts where a GPU rounds.
"""

import pytest
import torch

from sapwood.kernels import implementation
from sapwood.kernels.quant_linear import quant_linear
from sapwood.kernels.quant_linear.reference import quant_linear_reference
from sapwood.kernels.quant_rows import quant_rows
from sapwood.kernels.quant_rows.reference import quant_rows_reference
from sapwood.kernels.quant_weight import QuantWeight, quantize

pytest.importorskip("triton")

from sapwood.kernels.quant_linear import triton_kernel

pytestmark = pytest.mark.usefixtures("poisoned_memory")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
TOLERANCE = {torch.float32: 1e-5, torch.float16: 2e-3}
dtypes = pytest.mark.parametrize("dtype", list(TOLERANCE), ids=str)
formats = pytest.mark.parametrize("form", ["int8", "int4", "int4 with minima"])


@pytest.fixture(autouse=True)
def triton(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(implementation, "is_triton", lambda x: True)


def made(outputs: int, inputs: int, form: str) -> QuantWeight:
    values = torch.randn(outputs, inputs, device=DEVICE) + 0.3
    weight = quantize(values, 8 if form == "int8" else 4)
    return QuantWeight(weight.numbers, weight.scales, None, 4) if form == "int4" else weight


def error(got: torch.Tensor, x: torch.Tensor, weight: QuantWeight) -> float:
    """Of the largest result, in float64."""
    wanted = x.double() @ quant_rows_reference(weight, None, torch.float32).double().T
    assert got.shape == wanted.shape and got.dtype is x.dtype
    return float((got.double() - wanted).abs().max() / wanted.abs().max())


# Rows, outputs, inputs: every tile, one and several parts, whole and cut off blocks.
SHAPES = [
    *[(1, 1, 32), (1, 5, 64), (1, 33, 96), (1, 64, 4_096), (1, 9, 4_128), (1, 130, 576)],
    *[(2, 1, 32), (2, 63, 64), (2, 65, 288), (3, 64, 2_048), (5, 129, 544), (8, 7, 1_056)],
    *[(15, 31, 96), (16, 64, 128), (16, 128, 320), (17, 65, 160), (23, 10, 480)],
    *[(32, 66, 256), (33, 1, 512), (47, 100, 64), (63, 64, 192), (64, 60, 640)],
    *[(65, 40, 32), (65, 33, 96), (100, 5, 224), (128, 40, 64), (129, 31, 160), (130, 129, 64)],
    *[(1, 192, 1_536), (4, 320, 576), (12, 500, 64), (20, 3, 3_072)],
]


@dtypes
@formats
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_product(shape: tuple[int, int, int], form: str, dtype: torch.dtype) -> None:
    rows, outputs, inputs = shape
    weight = made(outputs, inputs, form)
    x = torch.randn(rows, inputs, device=DEVICE).to(dtype)
    assert error(quant_linear(x, weight), x, weight) <= TOLERANCE[dtype]


@formats
@pytest.mark.parametrize("programs", [1, 3, 7])
@pytest.mark.parametrize("size", [(90, 64), (530, 256), (65, 4_160), (41, 8_320)], ids=str)
def test_a_single_rows_programs_take_several_blocks(
    size: tuple[int, int], programs: int, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    weight = made(*size, form)
    x = torch.randn(1, weight.inputs, device=DEVICE).half()
    wanted = quant_linear(x, weight)
    monkeypatch.setattr(triton_kernel, "_PROGRAMS", programs)
    got = quant_linear(x, weight)
    assert torch.equal(got, wanted)
    assert error(got, x, weight) <= TOLERANCE[torch.float16]


@formats
@pytest.mark.parametrize("rows", [0, 1, 2, 65])
def test_bias_is_added_once_whatever_the_parts(rows: int, form: str) -> None:
    weight = made(12, 1_024, form)
    x, bias = torch.randn(rows, 1_024, device=DEVICE), torch.randn(12, device=DEVICE)
    got = quant_linear(x, weight, bias)
    wanted = quant_linear_reference(x, weight, bias, torch.float32)
    assert torch.allclose(got, wanted, atol=1e-3, rtol=1e-5)
    half = quant_linear(x.half(), weight, bias.half())
    assert torch.allclose(half.float(), wanted, atol=0.25, rtol=2e-3)


@pytest.mark.parametrize("rows", [1, 2, 20, 1_025])
def test_results_may_be_wider_than_inputs(rows: int) -> None:
    weight = made(10, 512, "int8")
    x = torch.randn(rows, 512, device=DEVICE).half()
    wide = quant_linear(x, weight, dtype=torch.float32)
    assert wide.dtype is torch.float32
    assert torch.equal(wide.half(), quant_linear(x, weight))


@formats
def test_from_many_rows_on_the_whole_weight_is_stretched(form: str) -> None:
    weight = made(40, 64, form)
    x = torch.randn(1_025, 64, device=DEVICE).half()
    assert error(quant_linear(x, weight), x, weight) <= TOLERANCE[torch.float16]


@formats
@pytest.mark.parametrize("rows", [2, 16, 17, 64, 65])
def test_a_row_is_the_same_whatever_is_beside_it(rows: int, form: str) -> None:
    weight = made(65, 512, form)
    x = torch.randn(rows, 512, device=DEVICE).half()
    others = torch.randn_like(x) * 50
    others[rows // 2] = x[0]
    got, again = quant_linear(x, weight), quant_linear(others, weight)
    assert torch.equal(got[0], again[rows // 2])


def test_the_number_of_parts_is_the_shapes_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    tiles = triton_kernel._tiles(2, torch.float16)
    for outputs, groups in [(64, 128), (6_144, 128), (4_096, 448), (28_672, 128), (576, 18)]:
        for dtype in TOLERANCE:
            parts = {
                triton_kernel._part_groups(rows, outputs, groups, triton_kernel._tiles(rows, dtype))
                for rows in range(2, 65)
            }
            assert len(parts) == 1
            assert parts.pop() % (2 * tiles.groups) == 0


@formats
@dtypes
def test_rows_as_floats(form: str, dtype: torch.dtype) -> None:
    weight = made(9, 2_080, form)
    ids = torch.tensor([8, 0, 3, 3], device=DEVICE)
    for rows in (ids, ids.to(torch.int32), None, ids[:0]):
        wanted = quant_rows_reference(weight, rows, dtype)
        assert torch.equal(quant_rows(weight, rows, dtype), wanted)


def test_shapes_that_do_not_fit_are_refused() -> None:
    weight = made(8, 64, "int8")
    with pytest.raises(ValueError, match="64 inputs"):
        quant_linear(torch.randn(2, 32), weight)
    with pytest.raises(ValueError, match="bias"):
        quant_linear(torch.randn(2, 64), weight, torch.randn(7))
    with pytest.raises(ValueError, match="rows"):
        quant_rows(weight, torch.zeros(1, 1, dtype=torch.int64), torch.float32)
