"""Quantised matrices: the files' blocks without loss, and the rounding of floats."""

import numpy as np
import pytest
import torch

from sapwood.kernels.quant_rows import quant_rows
from sapwood.kernels.quant_weight import QuantWeight, from_blocks, quantize, stack
from sapwood.runtime.models.dequantize import dequantize

BLOCK_BYTES = {"Q8_0": 34, "Q4_0": 18, "Q4_1": 20}


def random_blocks(outputs: int, groups: int, block_format: str) -> torch.Tensor:
    """Random bytes, the scales small numbers."""
    blocks = torch.randint(0, 256, (outputs, groups, BLOCK_BYTES[block_format])).to(torch.uint8)
    heads = torch.randn(outputs, groups, 2 if block_format == "Q4_1" else 1).half()
    blocks[..., : 2 * heads.shape[-1]] = heads.view(torch.uint8)
    return blocks.flatten(1)


@pytest.mark.parametrize("block_format", list(BLOCK_BYTES))
@pytest.mark.parametrize(("outputs", "groups"), [(1, 1), (7, 3), (64, 18)])
def test_blocks_are_kept_without_loss(outputs: int, groups: int, block_format: str) -> None:
    rows = random_blocks(outputs, groups, block_format)
    weight = from_blocks(rows, block_format)
    wanted = torch.from_numpy(dequantize(rows.numpy(), block_format))
    assert torch.equal(quant_rows(weight, None, torch.float32), wanted)
    assert (weight.outputs, weight.inputs) == (outputs, groups * 32)
    assert weight.nbytes == rows.nbytes


def test_rows_are_found_by_number() -> None:
    weight = from_blocks(random_blocks(9, 2, "Q4_1"), "Q4_1")
    rows = torch.tensor([8, 0, 8, 3])
    every = quant_rows(weight, None, torch.float32)
    assert torch.equal(quant_rows(weight, rows, torch.float32), every[rows])
    assert quant_rows(weight, rows[:0], torch.float16).shape == (0, 64)


def test_int8_is_symmetric_and_rounds_half_to_even() -> None:
    values = torch.zeros(1, 64)
    values[0, :6] = torch.tensor([127.0, -127.0, 2.5, 3.5, -0.5, 100.25])
    weight = quantize(values, 8)
    numbers = weight.numbers.view(torch.uint8).to(torch.int16) - 128
    assert numbers[0, :6].tolist() == [127, -127, 2, 4, 0, 100]
    assert weight.scales.tolist() == [[1.0, 0.0]] and weight.minima is None
    assert not numbers[0, 32:].any()


def test_int4_spans_a_group_from_its_smallest_to_its_largest() -> None:
    values = torch.linspace(-3, 12, 32).view(1, 32)
    weight = quantize(values, 4)
    assert weight.minima is not None
    assert weight.scales.item() == 1 and weight.minima.item() == -3
    got = quant_rows(weight, None, torch.float32)
    assert got[0, 0] == -3 and got[0, -1] == 12
    assert (got - values).abs().max() <= 0.5
    flat = quantize(torch.full((1, 32), 5.0), 4)
    assert torch.equal(quant_rows(flat, None, torch.float32), torch.full((1, 32), 5.0))


@pytest.mark.parametrize("bits", [4, 8])
def test_rounding_is_that_of_a_naive_loop(bits: int) -> None:
    values = torch.randn(5, 96) * torch.logspace(-3, 3, 5).view(5, 1)
    weight = quantize(values, 4 if bits == 4 else 8)
    got = quant_rows(weight, None, torch.float32).view(-1, 32)
    for group, wanted in zip(values.view(-1, 32).numpy(), got.numpy(), strict=True):
        low = group.min().astype(np.float16) if bits == 4 else np.float16(0)
        span = group.max() - group.min() if bits == 4 else np.abs(group).max()
        scale = np.float32(np.float16(span / np.float32(15 if bits == 4 else 127)))
        steps = np.rint((group - np.float32(low)) / scale)
        steps = np.clip(steps, *((0, 15) if bits == 4 else (-127, 127)))
        assert np.array_equal(steps * scale + np.float32(low), wanted)


def test_stacking_mixes_implied_and_stored_minima() -> None:
    parts = [from_blocks(random_blocks(3, 2, name), name) for name in ("Q4_0", "Q4_1")]
    whole = stack(parts)
    each = [quant_rows(part, None, torch.float32) for part in parts]
    assert torch.equal(quant_rows(whole, None, torch.float32), torch.cat(each))
    assert stack(parts[:1]) is parts[0] and stack([parts[0], parts[0]]).minima is None


def test_shapes_that_do_not_fit_are_refused() -> None:
    weight = quantize(torch.randn(4, 64), 8)
    with pytest.raises(ValueError, match="numbers"):
        QuantWeight(weight.numbers[:, 1:], weight.scales, None, 8)
    with pytest.raises(ValueError, match="minima"):
        QuantWeight(weight.numbers, weight.scales, weight.scales[:1], 8)
