"""quant_rows on the GPU: one program for a part of one row. Owns how numbers become floats."""

from typing import Final

import torch
import triton
import triton.language as tl

from ..quant_weight import QuantWeight

_BLOCK_WORDS: Final = 256


# float32 of 256 and of 16: with a number's bits as the highest of their fraction, that much more.
# The kernels get the two as arguments: an `and` with one constant and an `or` with another are one
# instruction only where one of them is in a register.
PLUS_256: Final = 0x43800000
PLUS_16: Final = 0x41800000


@triton.jit
def number(words, plus_256, plus_16, INDEX: tl.constexpr, BITS: tl.constexpr):
    """The word's number `INDEX` in fp32, plus what `offset` says. As exact as a conversion from
    integers, and without the pipe that does these."""
    BYTE: tl.constexpr = INDEX * BITS // 8
    if BYTE < 2:  # bits 15 to 22 are the highest of a fraction
        placed = words << (15 - 8 * BYTE)
    else:
        placed = words >> (8 * BYTE - 15)
    if BITS == 8:
        bits = (placed & 0x7F8000) | plus_256
    elif INDEX % 2 == 0:
        bits = (placed & 0x078000) | plus_256
    else:
        bits = (placed & 0x780000) | plus_16
    return bits.to(tl.float32, bitcast=True)


@triton.jit
def offset(INDEX: tl.constexpr, BITS: tl.constexpr):
    """What `number` adds, with the 128 of 8-bit numbers."""
    if BITS == 8:
        return 384.0
    elif INDEX % 2 == 0:
        return 256.0
    else:
        return 16.0


@triton.jit
def _value(
    words,
    scale,
    minimum,
    plus_256,
    plus_16,
    INDEX: tl.constexpr,
    BITS: tl.constexpr,
    dtype: tl.constexpr,
):
    # The subtraction is exact, as float16 scales are narrow: the sum is rounded once.
    value = number(words, plus_256, plus_16, INDEX, BITS) * scale + (
        minimum - offset(INDEX, BITS) * scale
    )
    return value.to(dtype)


@triton.jit
def values(words, scale, minimum, plus_256, plus_16, BITS: tl.constexpr, dtype: tl.constexpr):
    """All numbers of each word, stretched, in order along new last dimensions of 2."""
    if BITS == 8:
        return tl.join(
            tl.join(
                _value(words, scale, minimum, plus_256, plus_16, 0, BITS, dtype),
                _value(words, scale, minimum, plus_256, plus_16, 2, BITS, dtype),
            ),
            tl.join(
                _value(words, scale, minimum, plus_256, plus_16, 1, BITS, dtype),
                _value(words, scale, minimum, plus_256, plus_16, 3, BITS, dtype),
            ),
        )
    else:
        even = tl.join(
            tl.join(
                _value(words, scale, minimum, plus_256, plus_16, 0, BITS, dtype),
                _value(words, scale, minimum, plus_256, plus_16, 4, BITS, dtype),
            ),
            tl.join(
                _value(words, scale, minimum, plus_256, plus_16, 2, BITS, dtype),
                _value(words, scale, minimum, plus_256, plus_16, 6, BITS, dtype),
            ),
        )
        odd = tl.join(
            tl.join(
                _value(words, scale, minimum, plus_256, plus_16, 1, BITS, dtype),
                _value(words, scale, minimum, plus_256, plus_16, 5, BITS, dtype),
            ),
            tl.join(
                _value(words, scale, minimum, plus_256, plus_16, 3, BITS, dtype),
                _value(words, scale, minimum, plus_256, plus_16, 7, BITS, dtype),
            ),
        )
        return tl.join(even, odd)


@triton.jit
def minimum_of(minima, place, scale, inside, BITS: tl.constexpr):
    """The group's minimum, which may be implied by its scale."""
    if minima is not None:
        return tl.load(minima + place, mask=inside, other=0.0).to(tl.float32)
    elif BITS == 4:
        return scale * -8.0
    else:
        return scale * 0.0


@triton.jit
def _quant_rows(
    rows,
    numbers,
    scales,
    minima,
    out,
    groups,
    plus_256,
    plus_16,
    BITS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    target = tl.program_id(0).to(tl.int64)
    if rows is not None:
        row = tl.load(rows + target).to(tl.int64)
    else:
        row = target
    WIDTH: tl.constexpr = 32 // BITS  # numbers of a word
    start = tl.program_id(1) * BLOCK
    word = start + tl.arange(0, BLOCK)
    inside = word < groups * BITS
    words = tl.load(numbers + row * (groups * BITS) + word, mask=inside, other=0)
    place = row * groups + word // BITS
    scale = tl.load(scales + place, mask=inside, other=0.0).to(tl.float32)
    minimum = minimum_of(minima, place, scale, inside, BITS)
    result = values(words, scale, minimum, plus_256, plus_16, BITS, out.dtype.element_ty)
    column = start * WIDTH + tl.arange(0, BLOCK * WIDTH)
    result = tl.reshape(result, (BLOCK * WIDTH,))
    tl.store(out + target * (groups * 32) + column, result, mask=column < groups * 32)


def quant_rows_triton(
    weight: QuantWeight, rows: torch.Tensor | None, dtype: torch.dtype
) -> torch.Tensor:
    """Shapes as in `quant_rows`."""
    count = weight.outputs if rows is None else len(rows)
    out = torch.empty((count, weight.inputs), dtype=dtype, device=weight.numbers.device)
    groups = weight.scales.shape[1]
    if count:
        _quant_rows[(count, triton.cdiv(groups * weight.bits, _BLOCK_WORDS))](
            *(rows, weight.numbers, weight.scales, weight.minima, out, groups),
            *(PLUS_256, PLUS_16),
            BITS=weight.bits,
            BLOCK=_BLOCK_WORDS,
        )
    return out
