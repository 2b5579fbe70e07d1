"""GGUF's block formats and the plain types, as float32.

Owns: the arithmetic of each format. Knows no file and no tensor names.
A row is a run of blocks; a block is a few scales and the packed small integers that they stretch.
Written over whole arrays in numpy, a few rows at a time.
"""

from collections.abc import Callable, Iterator
from typing import Final, TypeVar

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]

T = TypeVar("T", bound=np.generic)

_CHUNK: Final = 1 << 15  # elements expanded at a time: few enough to stay in cache


def dequantize(raw: Bytes, type_name: str) -> Floats:
    """Expand rows of packed blocks.

    raw: [rows, row_bytes]. Returns [rows, columns]. `type_name` is a key of `FORMATS` or `PLAIN`;
    float32 itself is a view of `raw`, everything else fresh memory.
    """
    if type_name in PLAIN:
        return PLAIN[type_name](raw)
    result = np.empty((len(raw), num_columns(raw, type_name)), np.float32)
    for start, values in dequantize_chunks(raw, type_name):
        result[start : start + len(values)] = values
    return result


def dequantize_chunks(raw: Bytes, type_name: str) -> Iterator[tuple[int, Floats]]:
    """As `dequantize` for a key of `FORMATS`, a few rows at a time: (first row, [n, columns])."""
    block_bytes, _, expand = FORMATS[type_name]
    columns = num_columns(raw, type_name)
    step = max(_CHUNK // columns, 1)
    for start in range(0, len(raw), step):
        yield start, expand(raw[start : start + step].reshape(-1, block_bytes)).reshape(-1, columns)


def num_columns(raw: Bytes, type_name: str) -> int:
    """Elements in one row of `raw`, for a key of `FORMATS`."""
    block_bytes, block_size, _ = FORMATS[type_name]
    return int(raw.shape[1]) // block_bytes * block_size


def _float32(raw: Bytes) -> Floats:
    return raw.view(np.float32)


def _float16(raw: Bytes) -> Floats:
    return raw.view(np.float16).astype(np.float32)


def _bfloat16(raw: Bytes) -> Floats:
    """A bfloat16 is the upper half of a float32."""
    return (raw.view(np.uint16).astype(np.uint32) << 16).view(np.float32)


def _half(field: Bytes) -> Floats:
    """Two bytes per block -> [blocks, 1]."""
    return np.ascontiguousarray(field).view(np.float16).astype(np.float32)


def _signed(packed: Bytes) -> npt.NDArray[np.int8]:
    return np.ascontiguousarray(packed).view(np.int8)


def _nibbles(packed: Bytes) -> Bytes:
    """[..., n] bytes -> [..., 2, n]: the low halves, then the high ones."""
    return np.stack((packed & 15, packed >> 4), axis=-2)


def _flat(values: npt.NDArray[T]) -> npt.NDArray[T]:
    """[blocks, ...] -> [blocks, elements]."""
    return values.reshape(len(values), -1)


def _bits(packed: Bytes) -> Bytes:
    """[blocks, 4] bytes -> [blocks, 32] bits, lowest first."""
    return np.unpackbits(packed, axis=1, bitorder="little")


def _q4_0(blocks: Bytes) -> Floats:
    numbers = _flat(_nibbles(blocks[:, 2:])).astype(np.float32)
    return _half(blocks[:, :2]) * (numbers - 8)


def _q4_1(blocks: Bytes) -> Floats:
    numbers = _flat(_nibbles(blocks[:, 4:])).astype(np.float32)
    return _half(blocks[:, :2]) * numbers + _half(blocks[:, 2:4])


def _q5_0(blocks: Bytes) -> Floats:
    numbers = _flat(_nibbles(blocks[:, 6:])) | _bits(blocks[:, 2:6]) << 4
    return _half(blocks[:, :2]) * (numbers.astype(np.float32) - 16)


def _q5_1(blocks: Bytes) -> Floats:
    numbers = _flat(_nibbles(blocks[:, 8:])) | _bits(blocks[:, 4:8]) << 4
    return _half(blocks[:, :2]) * numbers.astype(np.float32) + _half(blocks[:, 2:4])


def _q8_0(blocks: Bytes) -> Floats:
    return _half(blocks[:, :2]) * _signed(blocks[:, 2:]).astype(np.float32)


# The K formats: 256 elements, split into sub-blocks whose own scales are small integers again.


def _scales_and_minima(packed: Bytes) -> tuple[Floats, Floats]:
    """[blocks, 12] bytes -> two times [blocks, 8, 1]: sixteen 6-bit numbers.

    The first four scales and minima are the low six bits of bytes 0-3 and 4-7; the last four have
    their low halves in bytes 8-11 and their top two bits above those of the first four.
    """
    first, second, third = packed[:, 0:4], packed[:, 4:8], packed[:, 8:12]
    scales = np.concatenate((first & 63, (third & 15) | (first >> 6) << 4), axis=1)
    minima = np.concatenate((second & 63, (third >> 4) | (second >> 6) << 4), axis=1)
    return scales.astype(np.float32)[:, :, None], minima.astype(np.float32)[:, :, None]


def _scaled(blocks: Bytes, numbers: Bytes) -> Floats:
    """scale * number - minimum, for `numbers` [blocks, 8, 32]; the head is common to Q4_K, Q5_K."""
    scales, minima = _scales_and_minima(blocks[:, 4:16])
    scale, minimum = _half(blocks[:, 0:2])[:, :, None], _half(blocks[:, 2:4])[:, :, None]
    return _flat((scale * scales) * numbers.astype(np.float32) - minimum * minima)


def _q4_k(blocks: Bytes) -> Floats:
    return _scaled(blocks, _nibbles(blocks[:, 16:].reshape(-1, 4, 32)).reshape(-1, 8, 32))


def _q5_k(blocks: Bytes) -> Floats:
    shifts = np.arange(8, dtype=np.uint8)[:, None]
    fifth = (blocks[:, 16:48][:, None, :] >> shifts) & 1  # bit i of every byte is sub-block i's
    low = _nibbles(blocks[:, 48:].reshape(-1, 4, 32)).reshape(-1, 8, 32)
    return _scaled(blocks, low + 16 * fifth)


def _q6_k(blocks: Bytes) -> Floats:
    shifts = np.array([0, 2, 4, 6], dtype=np.uint8)[:, None]
    low = _nibbles(blocks[:, :128].reshape(-1, 2, 64))  # [blocks, half, 2, 64]
    high = (blocks[:, 128:192].reshape(-1, 2, 1, 32) >> shifts) & 3  # [blocks, half, 4, 32]
    numbers = low.reshape(-1, 2, 4, 32) | high << 4
    scale = _half(blocks[:, 208:210]) * _signed(blocks[:, 192:208]).astype(np.float32)
    centred = numbers.astype(np.float32).reshape(-1, 16, 16) - 32
    return _flat(scale[:, :, None] * centred)


Expand = Callable[[Bytes], Floats]

FORMATS: Final[dict[str, tuple[int, int, Expand]]] = {  # block_bytes, block_size, blocks -> values
    "Q4_0": (18, 32, _q4_0),
    "Q4_1": (20, 32, _q4_1),
    "Q5_0": (22, 32, _q5_0),
    "Q5_1": (24, 32, _q5_1),
    "Q8_0": (34, 32, _q8_0),
    "Q4_K": (144, 256, _q4_k),
    "Q5_K": (176, 256, _q5_k),
    "Q6_K": (210, 256, _q6_k),
}
PLAIN: Final[dict[str, Expand]] = {"F32": _float32, "F16": _float16, "BF16": _bfloat16}
