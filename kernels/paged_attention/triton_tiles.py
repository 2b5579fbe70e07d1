"""Pieces of attention kernels: where a tile of keys lies, how it is read, and the running softmax.

For kernels over paged keys and values. Exponents are to base 2; a tile's sums run over its keys in
the same order whether it is masked or not, so a result never depends on which of a tile's rows are
other queries'.
"""

import triton
import triton.language as tl


@triton.jit
def tile_slots(
    page_ids, block, end, PAGE_SIZE: tl.constexpr, BLOCK_N: tl.constexpr, MASKED: tl.constexpr
):
    """int64 [BLOCK_N]: slots of the positions from `block` on, where a row's pages are `page_ids`.
    Masked: those from `end` on are page 0's, and are not to be read."""
    offset = tl.arange(0, BLOCK_N)
    if PAGE_SIZE >= BLOCK_N:
        page = tl.load(page_ids + block // PAGE_SIZE).to(tl.int64)
        return page * PAGE_SIZE + (block % PAGE_SIZE + offset)
    else:
        key = block + offset
        if MASKED:
            page = tl.load(page_ids + key // PAGE_SIZE, mask=key < end, other=0)
        else:
            page = tl.load(page_ids + key // PAGE_SIZE)
        return page.to(tl.int64) * PAGE_SIZE + key % PAGE_SIZE


@triton.jit
def load_tile(
    base,
    slots,
    slot_stride,
    inside,
    HEAD_DIM: tl.constexpr,
    BLOCK_D: tl.constexpr,
    MASKED: tl.constexpr,
):
    """[BLOCK_N, BLOCK_D]: one head's keys or values, zero beyond HEAD_DIM and where not inside."""
    d = tl.arange(0, BLOCK_D)
    address = base + slots[:, None] * slot_stride + d[None, :]
    if MASKED:
        mask = inside[:, None]
        if BLOCK_D != HEAD_DIM:
            mask = mask & (d[None, :] < HEAD_DIM)
        return tl.load(address, mask=mask, other=0.0)
    elif BLOCK_D != HEAD_DIM:
        return tl.load(address, mask=d[None, :] < HEAD_DIM, other=0.0)
    else:
        return tl.load(address)


@triton.jit
def load_scales(base, slots, slot_stride, inside, MASKED: tl.constexpr):
    """[BLOCK_N]: one head's scales."""
    if MASKED:
        return tl.load(base + slots * slot_stride, mask=inside, other=0.0)
    else:
        return tl.load(base + slots * slot_stride)


@triton.jit
def cap_scores(dots, exponent_scale, softcap_exponent, HAS_SOFTCAP: tl.constexpr):
    """Scores that, times `exponent_scale` (with a cap: as they are), are exponents to base 2."""
    if HAS_SOFTCAP:
        # cap * tanh(x), x = dots * scale / cap; `exponent_scale` makes it 2x to base 2.
        return softcap_exponent * (1.0 - 2.0 / (tl.exp2(dots * exponent_scale) + 1.0))
    else:
        return dots


@triton.jit
def soften(scores, largest, exponent_scale, HAS_SOFTCAP: tl.constexpr, MASKED: tl.constexpr):
    """One tile of the running softmax: weights [BLOCK_M, BLOCK_N], the factor by which what was
    gathered fades, and the new largest exponent."""
    if HAS_SOFTCAP:
        new_largest = tl.maximum(largest, tl.max(scores, axis=1))
    else:
        new_largest = tl.maximum(largest, tl.max(scores, axis=1) * exponent_scale)
    shift = new_largest
    if MASKED:
        # A tile row may not have seen any key yet: keep -inf - -inf out.
        shift = tl.where(new_largest == float("-inf"), 0.0, new_largest)
    if HAS_SOFTCAP:
        weights = tl.exp2(scores - shift[:, None])
    else:
        weights = tl.exp2(scores * exponent_scale - shift[:, None])
    return weights, tl.exp2(largest - shift), new_largest
