"""Products by quantised weights on a real GPU in bfloat16, and engines that are made of them."""

import pytest
import torch

import sapwood as sw
from sapwood.kernels.fp8_linear import fp8_linear, to_fp8
from sapwood.kernels.fp8_linear.reference import fp8_linear_reference
from sapwood.kernels.quant_linear import quant_linear
from sapwood.kernels.quant_rows.reference import quant_rows_reference
from sapwood.kernels.quant_weight import Bits, quantize

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU"),
    pytest.mark.timeout(600),
]
HAS_FP8 = torch.cuda.is_available() and torch.cuda.get_device_capability() >= (8, 9)
SIZES = [(4_096, 4_096), (6_144, 4_096), (4_096, 14_336), (576, 1_536), (49_152, 576)]


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("rows", [1, 2, 7, 16, 17, 33, 64, 65, 300, 1_024])
def test_product_in_bfloat16(rows: int, bits: Bits, size: tuple[int, int]) -> None:
    torch.manual_seed(rows)
    weight = quantize(torch.randn(size, device="cuda"), bits)
    x = torch.randn(rows, size[1], device="cuda").bfloat16()
    wanted = x.double() @ quant_rows_reference(weight, None, torch.float32).double().T
    got = quant_linear(x, weight)
    assert (got.double() - wanted).abs().max() <= 1e-2 * wanted.abs().max()
    others = torch.randn_like(x) * 9
    others[-1] = x[0]
    if rows < 1_024:
        assert torch.equal(quant_linear(others, weight)[-1], got[0])


@pytest.mark.skipif(not HAS_FP8, reason="needs compute capability 8.9")
@pytest.mark.parametrize("rows", [1, 2, 15, 64, 300])
def test_product_in_float8(rows: int) -> None:
    weight = to_fp8(torch.randn(6_144, 4_096, device="cuda"))
    x = torch.randn(rows, 4_096, device="cuda").bfloat16()
    wanted = fp8_linear_reference(x, weight.values, weight.scales).double()
    assert (fp8_linear(x, weight).double() - wanted).abs().max() <= 1e-2 * wanted.abs().max()


@pytest.mark.parametrize("dtype", ["auto", "int8", "q4", *(["fp8"] if HAS_FP8 else [])])
def test_engines_with_such_weights_speak(dtype: str) -> None:
    with sw.Engine(device="cuda", dtype=dtype, max_tokens_in_cache=8_192) as engine:
        answer = engine.generate("The capital of France is", {"temperature": 0.0})
    assert isinstance(answer, dict)
    assert "Paris" in answer["text"]
