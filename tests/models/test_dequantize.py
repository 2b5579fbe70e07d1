"""Each block format against the gguf package (bit for bit) and against its definition, one number
at a time."""

import struct

import gguf
import numpy as np
import numpy.typing as npt
import pytest
import torch
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

from sapwood.runtime.models import dequantize as module
from sapwood.runtime.models.dequantize import FORMATS, PLAIN, dequantize

Bytes = npt.NDArray[np.uint8]


def random_blocks(type_name: str, rows: int, blocks_per_row: int, seed: int = 0) -> Bytes:
    """Random bytes whose half-precision scales are finite."""
    random = np.random.default_rng(seed)
    size = FORMATS[type_name][0]
    blocks = random.integers(0, 256, (rows, blocks_per_row, size), dtype=np.uint8)
    places = {"Q8_0": (0,), "Q4_0": (0,), "Q5_0": (0,), "Q6_K": (208,)}.get(type_name, (0, 2))
    for place in places:
        halves = random.normal(0, 0.1, (rows, blocks_per_row, 1)).astype(np.float16)
        blocks[:, :, place : place + 2] = halves.view(np.uint8)
    return blocks.reshape(rows, -1)


def half(data: bytes) -> np.float32:
    value: np.float32 = np.frombuffer(data, "<f2")[0].astype(np.float32)
    return value


def scalar_small(block: bytes, type_name: str) -> list[float]:
    """Formats of 32: the number of element i sits in nibble i // 16 of byte i % 16."""
    d = half(block[:2])
    if type_name == "Q8_0":
        return [float(d * np.float32(v)) for v in struct.unpack("<32b", block[2:])]
    has_minimum, has_fifth = type_name.endswith("_1"), type_name.startswith("Q5")
    m = half(block[2:4]) if has_minimum else np.float32(0)
    start = 4 if has_minimum else 2
    fifth = struct.unpack("<I", block[start : start + 4])[0] if has_fifth else 0
    packed = block[start + 4 :] if has_fifth else block[start:]
    out = []
    for i in range(32):
        number = packed[i] & 15 if i < 16 else packed[i - 16] >> 4
        number += ((fifth >> i) & 1) * 16
        offset = 0 if has_minimum else (16 if has_fifth else 8)
        out.append(float(d * np.float32(number - offset) + m))
    return out


def six_bit_pair(j: int, q: bytes) -> tuple[int, int]:
    if j < 4:
        return q[j] & 63, q[j + 4] & 63
    return (q[j + 4] & 15) | (q[j - 4] >> 6) << 4, (q[j + 4] >> 4) | (q[j] >> 6) << 4


def scalar_k(block: bytes, type_name: str) -> list[float]:
    """Formats of 256, walked in the order in which the bits are laid down."""
    out = [0.0] * 256
    if type_name == "Q6_K":
        d = half(block[208:210])
        for n in range(2):
            ql, qh = block[64 * n : 64 * n + 64], block[128 + 32 * n : 160 + 32 * n]
            scales = struct.unpack("<8b", block[192 + 8 * n : 200 + 8 * n])
            for i in range(32):
                quarter = (
                    (ql[i] & 15) | (qh[i] & 3) << 4,
                    (ql[i + 32] & 15) | ((qh[i] >> 2) & 3) << 4,
                    (ql[i] >> 4) | ((qh[i] >> 4) & 3) << 4,
                    (ql[i + 32] >> 4) | (qh[i] >> 6) << 4,
                )
                for part, number in enumerate(quarter):
                    scale = d * np.float32(scales[i // 16 + 2 * part])
                    out[128 * n + 32 * part + i] = float(scale * np.float32(number - 32))
        return out
    d, minimum, packed_scales = half(block[:2]), half(block[2:4]), block[4:16]
    qh, qs = (block[16:48], block[48:]) if type_name == "Q5_K" else (bytes(32), block[16:])
    for sub in range(8):
        sub_scale, low = six_bit_pair(sub, packed_scales)
        for i in range(32):
            byte = qs[32 * (sub // 2) + i]
            number = (byte >> 4 if sub % 2 else byte & 15) + 16 * ((qh[i] >> sub) & 1)
            value = d * np.float32(sub_scale) * np.float32(number) - minimum * np.float32(low)
            out[32 * sub + i] = float(value)
    return out


@pytest.mark.parametrize("type_name", FORMATS)
def test_block_sizes_are_the_formats(type_name: str) -> None:
    size, elements, _ = FORMATS[type_name]
    assert GGML_QUANT_SIZES[GGMLQuantizationType[type_name]] == (elements, size)


@pytest.mark.parametrize("type_name", FORMATS)
def test_equals_the_definition(type_name: str) -> None:
    raw = random_blocks(type_name, rows=2, blocks_per_row=3)
    size, elements, _ = FORMATS[type_name]
    scalar = scalar_small if elements == 32 else scalar_k
    expected = [
        [
            v
            for i in range(0, raw.shape[1], size)
            for v in scalar(bytes(row[i : i + size]), type_name)
        ]
        for row in raw
    ]
    np.testing.assert_allclose(dequantize(raw, type_name), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("type_name", FORMATS)
def test_equals_the_gguf_package_bit_for_bit(
    type_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = random_blocks(type_name, rows=37, blocks_per_row=4, seed=1)
    expected = gguf.quants.dequantize(raw, GGMLQuantizationType[type_name])
    assert np.array_equal(dequantize(raw, type_name), expected)
    # Chunks that end inside the tensor, and one row longer than a chunk.
    for chunk in (5 * expected.shape[1], 1):
        monkeypatch.setattr(module, "_CHUNK", chunk)
        assert np.array_equal(dequantize(raw, type_name), expected)


@pytest.mark.parametrize(
    ("type_name", "steps"), [("Q8_0", 255), ("Q4_0", 16), ("Q4_1", 16), ("Q5_0", 32), ("Q5_1", 32)]
)
def test_what_was_quantized_comes_back(type_name: str, steps: int) -> None:
    values = np.random.default_rng(3).uniform(-1, 1, (4, 96)).astype(np.float32)
    raw = gguf.quants.quantize(values, GGMLQuantizationType[type_name])
    # At most one step, of which there are `steps` over the range of 2.
    assert np.abs(dequantize(raw, type_name) - values).max() <= 2 / (steps - 1) * 1.02


@pytest.mark.parametrize(
    ("type_name", "dtype"),
    [("F32", torch.float32), ("F16", torch.float16), ("BF16", torch.bfloat16)],
)
def test_plain_types_are_what_torch_reads(type_name: str, dtype: torch.dtype) -> None:
    special = [0.0, -0.0, float("inf"), -float("inf"), float("nan"), 1e-40, 6e-8, 65504.0]
    values = torch.cat((torch.randn(3, 8), torch.tensor([special]))).to(dtype)
    got = dequantize(values.view(torch.uint8).numpy(), type_name)
    assert np.array_equal(got, values.float().numpy(), equal_nan=True)
    assert np.array_equal(np.signbit(got[3, :2]), [False, True])


def test_float32_is_a_view() -> None:
    raw = np.arange(64, dtype=np.uint8).reshape(2, 32)
    assert np.shares_memory(dequantize(raw, "F32"), raw)
    assert set(PLAIN) == {"F32", "F16", "BF16"}
