"""quant_linear on the GPU: one kernel for a single row, one for tiles of rows, one that adds parts.

A single row is bound by the bytes of the weight: no matrix product, which would first carry every
weight through shared memory. Two rows and more are tiles of a matrix product, the weight stretched
in registers. Small weights are split along their inputs, into a number of parts that their shape
alone decides; the parts are added in order.
"""

from dataclasses import dataclass
from typing import Final

import torch
import torch.nn.functional as F
import triton
import triton.language as tl

from ..quant_rows.triton_kernel import (
    PLUS_16,
    PLUS_256,
    minimum_of,
    number,
    offset,
    quant_rows_triton,
    values,
)
from ..quant_weight import QuantWeight

# All sizes below are estimates from compiled code and rooflines: not measured on a GPU.
_DENSE_ROWS: Final = 1_024  # from here on stretching the whole weight first costs less than a fifth
_DENSE_WIDE_ROWS: Final = 65  # in float32
_SINGLE_THREADS: Final = 128
_SINGLE_LOADS: Final = 8  # of 16 bytes, by each thread at a time
_PROGRAMS: Final = 512  # enough for about four on each multiprocessor of an H100


@triton.jit
def _single_kernel(
    x,
    numbers,
    scales,
    minima,
    bias,
    out,
    outputs,
    chunks,
    plus_256,
    plus_16,
    BITS: tl.constexpr,
    BLOCK_OUTPUTS: tl.constexpr,
    BLOCK_CHUNKS: tl.constexpr,
):
    """One row: each program computes some outputs over all inputs, in chunks of 16 bytes."""
    WIDTH: tl.constexpr = 32 // BITS  # numbers of a word
    GROUP_CHUNKS: tl.constexpr = BITS // 4
    # What `number` adds is taken off a whole chunk's sum. The sum is 16 to 60 times larger before:
    # nothing for 16-bit inputs, a digit that others care for.
    EXACT: tl.constexpr = x.dtype.element_ty == tl.float32
    output = tl.program_id(0) * BLOCK_OUTPUTS + tl.arange(0, BLOCK_OUTPUTS)
    inside_outputs = output < outputs
    row = output.to(tl.int64)[:, None] * chunks
    total = tl.zeros((BLOCK_OUTPUTS, BLOCK_CHUNKS), tl.float32)
    for start in range(0, chunks, BLOCK_CHUNKS):
        chunk = start + tl.arange(0, BLOCK_CHUNKS)
        inside_chunks = chunk < chunks
        inside = inside_outputs[:, None] & inside_chunks[None, :]
        words = tl.load(
            numbers + (row + chunk[None, :])[:, :, None] * 4 + tl.arange(0, 4)[None, None, :],
            mask=inside[:, :, None],
            other=0,
        )
        place = row // GROUP_CHUNKS + (chunk // GROUP_CHUNKS)[None, :]
        scale = tl.load(scales + place, mask=inside, other=0.0).to(tl.float32)
        given = tl.load(
            x
            + chunk[:, None, None] * (4 * WIDTH)
            + tl.arange(0, 4)[None, :, None] * WIDTH
            + tl.arange(0, WIDTH)[None, None, :],
            mask=inside_chunks[:, None, None],
            other=0.0,
        ).to(tl.float32)
        if BITS == 4:
            low, high = tl.split(tl.reshape(given, (BLOCK_CHUNKS, 4, 2, 2, 2)))
            x04, x26 = tl.split(low)
            x15, x37 = tl.split(high)
            x0, x4 = tl.split(x04)
            x2, x6 = tl.split(x26)
            x1, x5 = tl.split(x15)
            x3, x7 = tl.split(x37)
            dots = _part(words, x0, plus_256, plus_16, 0, BITS, EXACT)
            dots += _part(words, x1, plus_256, plus_16, 1, BITS, EXACT)
            dots += _part(words, x2, plus_256, plus_16, 2, BITS, EXACT)
            dots += _part(words, x3, plus_256, plus_16, 3, BITS, EXACT)
            dots += _part(words, x4, plus_256, plus_16, 4, BITS, EXACT)
            dots += _part(words, x5, plus_256, plus_16, 5, BITS, EXACT)
            dots += _part(words, x6, plus_256, plus_16, 6, BITS, EXACT)
            dots += _part(words, x7, plus_256, plus_16, 7, BITS, EXACT)
            even = tl.sum(x0 + x2 + x4 + x6, axis=1)
            odd = tl.sum(x1 + x3 + x5 + x7, axis=1)
            added = even * offset(0, BITS) + odd * offset(1, BITS)
            minimum = minimum_of(minima, place, scale, inside, BITS)
            total += minimum * (even + odd)[None, :]
        else:
            low, high = tl.split(tl.reshape(given, (BLOCK_CHUNKS, 4, 2, 2)))
            x0, x2 = tl.split(low)
            x1, x3 = tl.split(high)
            dots = _part(words, x0, plus_256, plus_16, 0, BITS, EXACT)
            dots += _part(words, x1, plus_256, plus_16, 1, BITS, EXACT)
            dots += _part(words, x2, plus_256, plus_16, 2, BITS, EXACT)
            dots += _part(words, x3, plus_256, plus_16, 3, BITS, EXACT)
            added = tl.sum(x0 + x1 + x2 + x3, axis=1) * offset(0, BITS)
        sums = tl.sum(dots, axis=2)
        if not EXACT:
            sums -= added[None, :]
        total += scale * sums
    result = tl.sum(total, axis=1)
    if bias is not None:
        result += tl.load(bias + output, mask=inside_outputs, other=0.0).to(tl.float32)
    tl.store(out + output, result.to(out.dtype.element_ty), mask=inside_outputs)


@triton.jit
def _part(
    words,
    x,
    plus_256,
    plus_16,
    INDEX: tl.constexpr,
    BITS: tl.constexpr,
    EXACT: tl.constexpr,
):
    """Each word's number `INDEX`, times x."""
    numbers = number(words, plus_256, plus_16, INDEX, BITS)
    if EXACT:
        numbers -= offset(INDEX, BITS)
    return numbers * x[None]


@triton.jit
def _tile_kernel(
    x,
    numbers,
    scales,
    minima,
    bias,
    out,
    rows,
    outputs,
    groups,
    part_groups,
    plus_256,
    plus_16,
    BITS: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_OUTPUTS: tl.constexpr,
    BLOCK_GROUPS: tl.constexpr,
):
    """A tile of rows by outputs over one part of the inputs; out: [parts, rows, outputs]."""
    CHUNKS: tl.constexpr = BITS // 4  # 16-byte loads of a group
    BLOCK: tl.constexpr = BLOCK_GROUPS * CHUNKS
    INPUTS: tl.constexpr = BLOCK_GROUPS * 32
    part = tl.program_id(2)
    row = tl.program_id(1) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    output = tl.program_id(0) * BLOCK_OUTPUTS + tl.arange(0, BLOCK_OUTPUTS)
    inside_rows, inside_outputs = row < rows, output < outputs
    given_row = x + row.to(tl.int64)[:, None] * (groups * 32)
    weight_row = output.to(tl.int64) * groups
    # Few rows are the narrow side of the product: fewer registers, more programs at a time.
    TURNED: tl.constexpr = BLOCK_ROWS < BLOCK_OUTPUTS
    if TURNED:
        total = tl.zeros((BLOCK_OUTPUTS, BLOCK_ROWS), tl.float32)
    else:
        total = tl.zeros((BLOCK_ROWS, BLOCK_OUTPUTS), tl.float32)
    first = part * part_groups
    for start in range(first, min(first + part_groups, groups), BLOCK_GROUPS):
        input = start * 32 + tl.arange(0, INPUTS)
        given = tl.load(
            given_row + input[None, :],
            mask=inside_rows[:, None] & (input < groups * 32)[None, :],
            other=0.0,
        )
        chunk = start * CHUNKS + tl.arange(0, BLOCK)
        inside = inside_outputs[:, None] & (chunk < groups * CHUNKS)[None, :]
        place = (weight_row * CHUNKS)[:, None] + chunk[None, :]
        words = tl.load(
            numbers + place[:, :, None] * 4 + tl.arange(0, 4)[None, None, :],
            mask=inside[:, :, None],
            other=0,
        )
        place = weight_row[:, None] + (chunk // CHUNKS)[None, :]
        scale = tl.load(scales + place, mask=inside, other=0.0).to(tl.float32)
        minimum = minimum_of(minima, place, scale, inside, BITS)
        weight = values(
            words, scale[:, :, None], minimum[:, :, None], plus_256, plus_16, BITS, given.dtype
        )
        weight = tl.reshape(weight, (BLOCK_OUTPUTS, INPUTS))
        if TURNED:
            total = tl.dot(weight, tl.trans(given), total, input_precision="ieee")
        else:
            total = tl.dot(given, tl.trans(weight), total, input_precision="ieee")
    if TURNED:
        total = tl.trans(total)
    if bias is not None:
        total += tl.load(bias + output, mask=inside_outputs, other=0.0).to(tl.float32)[None, :]
    target = (part.to(tl.int64) * rows + row)[:, None] * outputs + output[None, :]
    inside = inside_rows[:, None] & inside_outputs[None, :]
    tl.store(out + target, total.to(out.dtype.element_ty), mask=inside)


@triton.jit
def _add_kernel(partial, bias, out, size, outputs, parts, BLOCK: tl.constexpr):
    """The parts of each element, added in order; partial: [parts, size], out: [size]."""
    place = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = place < size
    total = tl.load(partial + place, mask=inside, other=0.0)
    for part in range(1, parts):
        total += tl.load(partial + part * size + place, mask=inside, other=0.0)
    if bias is not None:
        total += tl.load(bias + place % outputs, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + place, total.to(out.dtype.element_ty), mask=inside)


@dataclass(frozen=True)
class _Tiles:
    rows: int
    outputs: int
    groups: int
    num_warps: int
    num_stages: int


def _tiles(rows: int, dtype: torch.dtype) -> _Tiles:
    if dtype is torch.float32:  # no tensor cores: larger tiles don't fit into registers
        return _Tiles(16, 64, 4, num_warps=4, num_stages=3)
    if rows <= 64:
        return _Tiles(max(16, triton.next_power_of_2(rows)), 64, 4, num_warps=4, num_stages=3)
    return _Tiles(128, 128, 2, num_warps=8, num_stages=3)


def _part_groups(rows: int, outputs: int, groups: int, tiles: _Tiles) -> int:
    """Groups of one part. By the weight's shape alone, so that no row's sum depends on the batch;
    steps of many rows have programs enough."""
    if rows > 64:
        return groups
    wanted = _PROGRAMS // -(-outputs // tiles.outputs)
    step = 2 * tiles.groups
    return -(-groups // (max(wanted, 1) * step)) * step


def _single_chunks(chunks: int) -> int:
    """Chunks that a program takes at a time: as many as leave no eighth of its threads idle."""
    for size in (_SINGLE_THREADS, 64, 32, 16):
        if triton.cdiv(chunks, size) * size * 7 <= chunks * 8:
            return size
    return 8


def quant_linear_triton(
    x: torch.Tensor, weight: QuantWeight, bias: torch.Tensor | None, dtype: torch.dtype
) -> torch.Tensor:
    """Shapes as in `quant_linear`."""
    x = x.contiguous()
    if len(x) == 1:
        return _single(x, weight, bias, dtype)
    if len(x) < (_DENSE_ROWS if x.dtype.itemsize == 2 else _DENSE_WIDE_ROWS):
        return _tiled(x, weight, bias, dtype)
    return F.linear(x, quant_rows_triton(weight, None, x.dtype), bias).to(dtype)


def _single(
    x: torch.Tensor, weight: QuantWeight, bias: torch.Tensor | None, dtype: torch.dtype
) -> torch.Tensor:
    outputs, chunks = weight.outputs, weight.numbers.shape[1] // 4
    block_chunks = _single_chunks(chunks)
    block_outputs = _SINGLE_LOADS * _SINGLE_THREADS // block_chunks
    out = x.new_empty((1, outputs), dtype=dtype)
    _single_kernel[(triton.cdiv(outputs, block_outputs),)](
        *(x, weight.numbers, weight.scales, weight.minima, bias, out, outputs, chunks),
        *(PLUS_256, PLUS_16),
        BITS=weight.bits,
        BLOCK_OUTPUTS=block_outputs,
        BLOCK_CHUNKS=block_chunks,
        num_warps=_SINGLE_THREADS // 32,
    )
    return out


def _tiled(
    x: torch.Tensor, weight: QuantWeight, bias: torch.Tensor | None, dtype: torch.dtype
) -> torch.Tensor:
    outputs, groups = weight.scales.shape
    rows = len(x)
    out = x.new_empty((rows, outputs), dtype=dtype)
    if not rows:
        return out
    tiles = _tiles(rows, x.dtype)
    part_groups = _part_groups(rows, outputs, groups, tiles)
    parts = triton.cdiv(groups, part_groups)
    partial = out if parts == 1 else x.new_empty((parts, rows, outputs), dtype=torch.float32)
    grid = (triton.cdiv(outputs, tiles.outputs), triton.cdiv(rows, tiles.rows), parts)
    _tile_kernel[grid](
        *(x, weight.numbers, weight.scales, weight.minima, bias if parts == 1 else None, partial),
        *(rows, outputs, groups, part_groups, PLUS_256, PLUS_16),
        BITS=weight.bits,
        BLOCK_ROWS=tiles.rows,
        BLOCK_OUTPUTS=tiles.outputs,
        BLOCK_GROUPS=tiles.groups,
        num_warps=tiles.num_warps,
        num_stages=tiles.num_stages,
    )
    if parts > 1:
        _add_kernel[(triton.cdiv(rows * outputs, 1_024),)](
            *(partial, bias, out, rows * outputs, outputs, parts), BLOCK=1_024
        )
    return out
