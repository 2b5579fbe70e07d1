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
_SINGLE_LOADS: Final = 4  # of 16 bytes, by each thread at a time
_SINGLE_BLOCKS: Final = 16  # of outputs, at most, by one program
_PROGRAMS: Final = 512  # enough for about four on each multiprocessor of an H100


@triton.jit
def _split_inputs(x, chunk, chunks, BITS: tl.constexpr, BLOCK_CHUNKS: tl.constexpr):
    """Of the inputs of each chunk those that meet the first number of a word, the second, ..."""
    WIDTH: tl.constexpr = 32 // BITS
    given = tl.load(
        x
        + chunk[:, None, None] * (4 * WIDTH)
        + tl.arange(0, 4)[None, :, None] * WIDTH
        + tl.arange(0, WIDTH)[None, None, :],
        mask=(chunk < chunks)[:, None, None],
        other=0.0,
    ).to(tl.float32)
    if BITS == 8:
        x02, x13 = tl.split(tl.reshape(given, (BLOCK_CHUNKS, 4, 2, 2)))
        x0, x2 = tl.split(x02)
        x1, x3 = tl.split(x13)
        return x0, x1, x2, x3
    else:
        even, odd = tl.split(tl.reshape(given, (BLOCK_CHUNKS, 4, 2, 2, 2)))
        x04, x26 = tl.split(even)
        x15, x37 = tl.split(odd)
        x0, x4 = tl.split(x04)
        x2, x6 = tl.split(x26)
        x1, x5 = tl.split(x15)
        x3, x7 = tl.split(x37)
        return x0, x1, x2, x3, x4, x5, x6, x7


@triton.jit
def _chunks_of(
    numbers,
    scales,
    minima,
    output,
    outputs,
    chunk,
    chunks,
    BITS: tl.constexpr,
):
    """Words [outputs, chunks, 4], scales and minima [outputs, chunks] (the scales, if implied)."""
    GROUP_CHUNKS: tl.constexpr = BITS // 4
    inside = (output < outputs)[:, None] & (chunk < chunks)[None, :]
    place = output.to(tl.int64)[:, None] * chunks + chunk[None, :]
    words = tl.load(
        numbers + place[:, :, None] * 4 + tl.arange(0, 4)[None, None, :],
        mask=inside[:, :, None],
        other=0,
    )
    # A row's chunks are a multiple of its groups': so the place in all rows may be divided.
    scale = tl.load(scales + place // GROUP_CHUNKS, mask=inside, other=0.0)
    minimum = scale
    if minima is not None:
        minimum = tl.load(minima + place // GROUP_CHUNKS, mask=inside, other=0.0)
    return words, scale, minimum


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
    blocks,
    plus_256,
    plus_16,
    BITS: tl.constexpr,
    BLOCK_OUTPUTS: tl.constexpr,
    BLOCK_CHUNKS: tl.constexpr,
    ONE_STEP: tl.constexpr,
):
    """One row: each program computes `blocks` blocks of outputs, one after the other, each in steps
    along the inputs. ONE_STEP: there is one, so all blocks share the inputs in registers."""
    WIDTH: tl.constexpr = 32 // BITS  # numbers of a word
    # What `number` adds is taken off a whole chunk's sum. The sum is 16 to 60 times larger before:
    # nothing for 16-bit inputs, a digit that others care for.
    EXACT: tl.constexpr = x.dtype.element_ty == tl.float32
    steps = tl.cdiv(chunks, BLOCK_CHUNKS)
    step = 0
    output = tl.program_id(0) * blocks * BLOCK_OUTPUTS + tl.arange(0, BLOCK_OUTPUTS)
    chunk = tl.arange(0, BLOCK_CHUNKS)
    words, scale, minimum = _chunks_of(
        numbers, scales, minima, output, outputs, chunk, chunks, BITS
    )
    if ONE_STEP:
        given = _split_inputs(x, chunk, chunks, BITS, BLOCK_CHUNKS)
    total = tl.zeros((BLOCK_OUTPUTS, BLOCK_CHUNKS), tl.float32)
    for turn in range(blocks * steps, 0, -1):
        if not ONE_STEP:
            given = _split_inputs(x, step * BLOCK_CHUNKS + chunk, chunks, BITS, BLOCK_CHUNKS)
        is_last = step == steps - 1
        # What is next is on its way while this is computed; after the last turn: no output.
        next_step = tl.where(is_last, 0, step + 1)
        next_output = output + tl.where(is_last, BLOCK_OUTPUTS, 0)
        next_outputs = tl.where(turn > 1, outputs, 0)
        next_chunk = next_step * BLOCK_CHUNKS + chunk
        next_words, next_scale, next_minimum = _chunks_of(
            numbers, scales, minima, next_output, next_outputs, next_chunk, chunks, BITS
        )
        dots = tl.zeros((BLOCK_OUTPUTS, BLOCK_CHUNKS, 4), tl.float32)
        even, odd = given[0], given[1]
        for index in tl.static_range(WIDTH):
            value = number(words, plus_256, plus_16, index, BITS)
            if EXACT:
                value -= offset(index, BITS)
            dots += value * given[index][None]
            if index > 1 and index % 2 == 0:
                even += given[index]
            elif index > 1:
                odd += given[index]
        sums = tl.sum(dots, axis=2)
        if not EXACT:
            added = tl.sum(even * offset(0, BITS) + odd * offset(1, BITS), axis=1)
            sums -= added[None, :]
        total += scale.to(tl.float32) * sums
        if minima is not None:
            total += minimum.to(tl.float32) * tl.sum(even + odd, axis=1)[None, :]
        elif BITS == 4:
            total -= scale.to(tl.float32) * (8.0 * tl.sum(even + odd, axis=1))[None, :]
        if is_last:
            result = tl.sum(total, axis=1)
            if bias is not None:
                result += tl.load(bias + output, mask=output < outputs, other=0.0).to(tl.float32)
            tl.store(out + output, result.to(out.dtype.element_ty), mask=output < outputs)
            total = tl.zeros((BLOCK_OUTPUTS, BLOCK_CHUNKS), tl.float32)
        step, output = next_step, next_output
        words, scale, minimum = next_words, next_scale, next_minimum


@triton.jit(do_not_specialize=["rows"])
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
    INPUTS: tl.constexpr = BLOCK_GROUPS * 32
    part = tl.program_id(2)
    row = tl.program_id(1) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    output = tl.program_id(0) * BLOCK_OUTPUTS + tl.arange(0, BLOCK_OUTPUTS)
    inside_rows, inside_outputs = row < rows, output < outputs
    given_row = x + row.to(tl.int64)[:, None] * (groups * 32)
    weight_row = output.to(tl.int64) * groups
    # Few rows are the narrow side of the product: fewer registers, more programs at a time. And 4
    # bits' weights from shared memory are what Triton 3.6 cannot compile for Hopper.
    TURNED: tl.constexpr = BLOCK_ROWS < BLOCK_OUTPUTS or BITS == 4
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
        group = start + tl.arange(0, BLOCK_GROUPS)
        inside = inside_outputs[:, None] & (group < groups)[None, :]
        place = weight_row[:, None] + group[None, :]
        words = tl.load(
            numbers + place[:, :, None] * BITS + tl.arange(0, BITS)[None, None, :],
            mask=inside[:, :, None],
            other=0,
        )
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


@triton.jit(do_not_specialize=["size"])
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


def _single_chunks(chunks: int, bits: int) -> int:
    """Chunks that a program takes at a time: as many as leave no eighth of its threads idle, and
    not more than 32 inputs for each of them, which are to stay in registers."""
    for size in (32 * bits, 128, 64, 32, 16):
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
    block_chunks = _single_chunks(chunks, weight.bits)
    block_outputs = _SINGLE_LOADS * _SINGLE_THREADS // block_chunks
    all_blocks = -(-outputs // block_outputs)
    blocks = min(max(all_blocks // _PROGRAMS, 1), _SINGLE_BLOCKS)
    out = x.new_empty((1, outputs), dtype=dtype)
    _single_kernel[(triton.cdiv(all_blocks, blocks),)](
        *(x, weight.numbers, weight.scales, weight.minima, bias, out, outputs, chunks, blocks),
        *(PLUS_256, PLUS_16),
        BITS=weight.bits,
        BLOCK_OUTPUTS=block_outputs,
        BLOCK_CHUNKS=block_chunks,
        ONE_STEP=chunks <= block_chunks,
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
