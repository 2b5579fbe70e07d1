"""GGUF's block formats, back to plain numbers.

Owns: the arithmetic of each format. Knows no file and no tensor names.
A row is a run of blocks; a block is a few scales and the packed small integers that they stretch.
Written over whole arrays in torch, a few rows at a time.
"""

from collections.abc import Callable
from typing import Final

import torch
from torch import Tensor

# Elements expanded at a time: few enough to stay in cache, and not more than torch does on one
# thread. Split between threads, these short operations are several times slower on a busy machine,
# where each waits for the slowest thread, and hardly faster on an idle one.
_CHUNK: Final = 1 << 15


def dequantize(raw: Tensor, type_name: str, dtype: torch.dtype) -> Tensor:
    """Expand rows of packed blocks.

    raw: [rows, row_bytes] uint8. Returns [rows, columns] in `dtype`: the float32 value, rounded
    once. `type_name` is a key of `FORMATS` or `PLAIN`; a plain type of the same dtype is a view of
    `raw`, everything else fresh memory.
    """
    if type_name in PLAIN:
        return raw.view(PLAIN[type_name]).to(dtype)
    block_bytes, block_size, expand = FORMATS[type_name]
    num_rows, row_bytes = raw.shape
    columns = row_bytes // block_bytes * block_size
    result = torch.empty(num_rows, columns, dtype=dtype)
    step = max(_CHUNK // columns, 1)
    for start in range(0, num_rows, step):
        blocks = raw[start : start + step].reshape(-1, block_bytes)
        result[start : start + step] = expand(blocks).view(-1, columns)
    return result


def _half(field: Tensor) -> Tensor:
    """Two bytes per block -> float32 [blocks, 1]."""
    return field.contiguous().view(torch.float16).float()


def _nibbles(packed: Tensor) -> Tensor:
    """[..., n] bytes -> [..., 2, n]: the low halves, then the high ones."""
    return torch.stack((packed & 15, packed >> 4), dim=-2)


def _bits(packed: Tensor) -> Tensor:
    """[blocks, 4] bytes -> [blocks, 32] bits, lowest first."""
    shifts = torch.arange(8, dtype=torch.uint8)
    return ((packed[:, :, None] >> shifts) & 1).flatten(1)


def _q4_0(blocks: Tensor) -> Tensor:
    return _half(blocks[:, :2]) * (_nibbles(blocks[:, 2:]).flatten(1).float() - 8)


def _q4_1(blocks: Tensor) -> Tensor:
    scale, low = _half(blocks[:, :2]), _half(blocks[:, 2:4])
    return scale * _nibbles(blocks[:, 4:]).flatten(1).float() + low


def _q5_0(blocks: Tensor) -> Tensor:
    numbers = _nibbles(blocks[:, 6:]).flatten(1) | _bits(blocks[:, 2:6]) << 4
    return _half(blocks[:, :2]) * (numbers.float() - 16)


def _q5_1(blocks: Tensor) -> Tensor:
    numbers = _nibbles(blocks[:, 8:]).flatten(1) | _bits(blocks[:, 4:8]) << 4
    return _half(blocks[:, :2]) * numbers.float() + _half(blocks[:, 2:4])


def _q8_0(blocks: Tensor) -> Tensor:
    return _half(blocks[:, :2]) * blocks[:, 2:].view(torch.int8).float()


# The K formats: 256 elements, split into sub-blocks whose own scales are small integers again.


def _scales_and_minima(packed: Tensor) -> tuple[Tensor, Tensor]:
    """[blocks, 12] bytes -> two times [blocks, 8, 1]: sixteen 6-bit numbers.

    The first four scales and minima are the low six bits of bytes 0-3 and 4-7; the last four have
    their low halves in bytes 8-11 and their top two bits above those of the first four.
    """
    first, second, third = packed[:, 0:4], packed[:, 4:8], packed[:, 8:12]
    scales = torch.cat((first & 63, (third & 15) | (first >> 6) << 4), dim=1)
    minima = torch.cat((second & 63, (third >> 4) | (second >> 6) << 4), dim=1)
    return scales.float()[:, :, None], minima.float()[:, :, None]


def _scaled(blocks: Tensor, numbers: Tensor) -> Tensor:
    """scale * number - minimum, for `numbers` [blocks, 8, 32]; the head is common to Q4_K, Q5_K."""
    scales, minima = _scales_and_minima(blocks[:, 4:16])
    scale, minimum = _half(blocks[:, 0:2])[:, :, None], _half(blocks[:, 2:4])[:, :, None]
    return ((scale * scales) * numbers.float() - minimum * minima).flatten(1)


def _q4_k(blocks: Tensor) -> Tensor:
    return _scaled(blocks, _nibbles(blocks[:, 16:].reshape(-1, 4, 32)).flatten(1, 2))


def _q5_k(blocks: Tensor) -> Tensor:
    shifts = torch.arange(8, dtype=torch.uint8)[:, None]
    fifth = (blocks[:, 16:48][:, None, :] >> shifts) & 1  # bit i of every byte is sub-block i's
    low = _nibbles(blocks[:, 48:].reshape(-1, 4, 32)).flatten(1, 2)
    return _scaled(blocks, low | fifth << 4)


def _q6_k(blocks: Tensor) -> Tensor:
    shifts = torch.tensor([0, 2, 4, 6], dtype=torch.uint8)[:, None]
    low = _nibbles(blocks[:, :128].reshape(-1, 2, 64))  # [blocks, half, 2, 64]
    high = (blocks[:, 128:192].reshape(-1, 2, 1, 32) >> shifts) & 3  # [blocks, half, 4, 32]
    numbers = low.reshape(-1, 2, 4, 32) | high << 4
    scales = blocks[:, 192:208].contiguous().view(torch.int8).float()
    scale = _half(blocks[:, 208:210]) * scales  # [blocks, 16]
    return (scale[:, :, None] * (numbers.float() - 32).reshape(-1, 16, 16)).flatten(1)


Expand = Callable[[Tensor], Tensor]  # [blocks, block_bytes] uint8 -> [blocks, block_size] float32

FORMATS: Final[dict[str, tuple[int, int, Expand]]] = {  # block_bytes, block_size, how
    "Q4_0": (18, 32, _q4_0),
    "Q4_1": (20, 32, _q4_1),
    "Q5_0": (22, 32, _q5_0),
    "Q5_1": (24, 32, _q5_1),
    "Q8_0": (34, 32, _q8_0),
    "Q4_K": (144, 256, _q4_k),
    "Q5_K": (176, 256, _q5_k),
    "Q6_K": (210, 256, _q6_k),
}
PLAIN: Final = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
