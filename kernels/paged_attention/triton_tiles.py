"""Pieces of attention kernels: where a tile of keys lies, how it is read, and the running softmax.

For kernels over paged keys and values. Exponents are to base 2; a tile's sums run over its keys in
the same order whether it is masked or not, so a result never depends on which of a tile's rows are
other queries'.
"""

import triton
import triton.language as tl


@triton.jit
def tile_offsets(PAGE_SIZE: tl.constexpr, BLOCK_N: tl.constexpr):
    """[BLOCK_N]: which of a tile's positions each of its keys has. Neighbours are on different
    pages, so that a thread, which reads keys some way apart, needs few pages."""
    offset = tl.arange(0, BLOCK_N)
    if PAGE_SIZE < BLOCK_N:
        NUM_PAGES: tl.constexpr = BLOCK_N // PAGE_SIZE
        return offset % NUM_PAGES * PAGE_SIZE + offset // NUM_PAGES
    else:
        return offset


@triton.jit
def load_pages(page_ids, block, end, PAGE_SIZE: tl.constexpr, BLOCK_N: tl.constexpr):
    """The page, or pages [BLOCK_N // PAGE_SIZE], of the tile of positions from `block` on in a row
    whose pages are `page_ids`; page 0 for positions from `end` on."""
    if PAGE_SIZE < BLOCK_N:
        page = tl.arange(0, BLOCK_N // PAGE_SIZE)
        needed = block + page * PAGE_SIZE < end
        return tl.load(page_ids + block // PAGE_SIZE + page, mask=needed, other=0)
    else:
        return tl.load(page_ids + block // PAGE_SIZE, mask=block < end, other=0)


@triton.jit
def tile_slots(pages, block, PAGE_SIZE: tl.constexpr, BLOCK_N: tl.constexpr):
    """int32 [BLOCK_N]: slots of a tile's keys, by what `load_pages` gave."""
    if PAGE_SIZE < BLOCK_N:
        in_page = tl.arange(0, PAGE_SIZE)
        slots = (pages * PAGE_SIZE)[None, :] + in_page[:, None]
        return tl.reshape(slots, (BLOCK_N,))
    else:
        return pages * PAGE_SIZE + block % PAGE_SIZE + tl.arange(0, BLOCK_N)


@triton.jit
def load_tile(
    base,
    slots,
    inside,
    SLOT_STRIDE: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    BLOCK_D: tl.constexpr,
    MASKED: tl.constexpr,
):
    """[BLOCK_N, BLOCK_D]: one head's keys or values, zero beyond HEAD_DIM and where not inside."""
    d = tl.arange(0, BLOCK_D)
    address = base + (slots.to(tl.int64) * SLOT_STRIDE)[:, None] + d[None, :]
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
def load_scales(base, slots, inside, KV_HEADS: tl.constexpr, MASKED: tl.constexpr):
    """[BLOCK_N]: one head's scales."""
    if MASKED:
        return tl.load(base + slots.to(tl.int64) * KV_HEADS, mask=inside, other=0.0)
    else:
        return tl.load(base + slots.to(tl.int64) * KV_HEADS)


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


@triton.jit
def reduce_tile(
    queries,
    keys,
    values,
    k_scale,
    v_scale,
    seen,
    acc,
    total,
    largest,
    exponent_scale,
    softcap_exponent,
    HAS_SOFTCAP: tl.constexpr,
    QUANTIZED: tl.constexpr,
    MASKED: tl.constexpr,
):
    """Add a tile of keys to the running softmax of some queries: acc [BLOCK_M, BLOCK_D], total and
    largest [BLOCK_M]. Quantised: scales [BLOCK_N]. Masked: only keys that are `seen` count."""
    scores = tl.dot(queries, tl.trans(keys), input_precision="ieee")
    if QUANTIZED:
        scores = scores * k_scale[None, :]
    scores = cap_scores(scores, exponent_scale, softcap_exponent, HAS_SOFTCAP)
    if MASKED:
        scores = tl.where(seen, scores, float("-inf"))
    weights, fade, largest = soften(scores, largest, exponent_scale, HAS_SOFTCAP, MASKED)
    total = total * fade + tl.sum(weights, axis=1)
    if QUANTIZED:
        weights = weights * v_scale[None, :]
    acc = acc * fade[:, None]
    acc = tl.dot(weights.to(queries.dtype), values, acc, input_precision="ieee")
    return acc, total, largest
