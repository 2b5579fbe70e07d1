"""Paged attention on the GPU: one flash-style kernel for decode, extend and mixed steps.

A program walks over items of work (`work_list`): a tile of one row's queries over a run of its
keys, for one KV head; the query heads of the group are rows of the same tile, so that each key and
value is loaded once for all of them. Items of short rows have tiles of 16 rows and those of long
rows tiles of 64 or 128, in the same launch; a row's tile never depends on its neighbours. Tiles
of keys that every query sees whole need no mask; only those at the diagonal and at the window's
edge have one, and what lies beyond is never read. A second, small kernel merges rows' parts.
"""

import math

import torch
import triton
import triton.language as tl

from ..kv_pages import KVPages
from ..shared_prefix_attention.triton_kernel import shared_prefix_attention_triton
from .packed_work import FIRST_PART_AT, HEADER, ITEM, NUM_ITEMS, NUM_LONG, ROW, Work
from .triton_merge import merge_parts
from .triton_tiles import (
    load_pages,
    load_scales,
    load_tile,
    reduce_tile,
    tile_offsets,
    tile_slots,
)
from .tuning import long_tiles, short_tiles

_HEADER = tl.constexpr(HEADER)
_ROW, _ITEM = tl.constexpr(ROW), tl.constexpr(ITEM)
_NUM_LONG, _NUM_ITEMS = tl.constexpr(NUM_LONG), tl.constexpr(NUM_ITEMS)
_FIRST_PART_AT = tl.constexpr(FIRST_PART_AT)


@triton.jit
def _walk(
    begin,
    end,
    queries,
    position,
    acc,
    total,
    largest,
    k_head,
    v_head,
    k_scales_head,
    v_scales_head,
    page_ids,
    exponent_scale,
    softcap_exponent,
    window,
    masks,
    num_masked,
    query,
    first_new,
    HAS_WINDOW: tl.constexpr,
    HAS_TREES: tl.constexpr,
    HAS_SOFTCAP: tl.constexpr,
    QUANTIZED: tl.constexpr,
    PAGE_SIZE: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    KV_HEADS: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_N: tl.constexpr,
    NUM_STAGES: tl.constexpr,
    MASKED: tl.constexpr,
):
    """Gather the keys begin .. end-1; begin is a multiple of BLOCK_N, and so is end if unmasked."""
    SLOT_STRIDE: tl.constexpr = KV_HEADS * HEAD_DIM
    offset = tile_offsets(PAGE_SIZE, BLOCK_N)
    pages = load_pages(page_ids, begin, end, PAGE_SIZE, BLOCK_N)
    for block in tl.range(begin, end, BLOCK_N, num_stages=2 if MASKED else NUM_STAGES):
        block = tl.multiple_of(block, BLOCK_N)
        key = block + offset
        inside = key < end
        slots = tile_slots(pages, block, PAGE_SIZE, BLOCK_N)
        # One tile ahead: a tile's loads then wait for no load of their own turn.
        pages = load_pages(page_ids, block + BLOCK_N, end, PAGE_SIZE, BLOCK_N)
        keys = load_tile(k_head, slots, inside, SLOT_STRIDE, HEAD_DIM, BLOCK_D, MASKED)
        values = load_tile(v_head, slots, inside, SLOT_STRIDE, HEAD_DIM, BLOCK_D, MASKED)
        k_scale, v_scale = None, None
        if QUANTIZED:
            keys, values = keys.to(queries.dtype), values.to(queries.dtype)
            k_scale = load_scales(k_scales_head, slots, inside, KV_HEADS, MASKED)
            v_scale = load_scales(v_scales_head, slots, inside, KV_HEADS, MASKED)
        seen = None
        if MASKED:
            seen = inside[None, :] & (key[None, :] <= position[:, None])
            if HAS_WINDOW:
                seen = seen & (key[None, :] > position[:, None] - window)
            if HAS_TREES:
                new = key - first_new
                bits = tl.load(
                    masks + query[:, None] * tl.cdiv(num_masked, 32) + (new >> 5)[None, :],
                    mask=(query < num_masked)[:, None] & (inside & (new >= 0))[None, :],
                    other=-1,
                )
                seen = seen & ((bits >> (new & 31)[None, :] & 1) != 0)
        acc, total, largest = reduce_tile(
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
            HAS_SOFTCAP,
            QUANTIZED,
            MASKED,
        )
    return acc, total, largest


@triton.jit
def _attend(
    index,
    q,
    k_pages,
    v_pages,
    k_scales,
    v_scales,
    out,
    part_out,
    part_lse,
    work,
    page_ids,
    trees,
    num_rows,
    split,
    q_token_stride,
    q_head_stride,
    exponent_scale,
    softcap_exponent,
    window,
    HAS_WINDOW: tl.constexpr,
    HAS_TREES: tl.constexpr,
    HAS_SOFTCAP: tl.constexpr,
    QUANTIZED: tl.constexpr,
    GROUP: tl.constexpr,
    PAGE_SIZE: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    KV_HEADS: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    NUM_STAGES: tl.constexpr,
):
    """One item of work for one KV head."""
    BLOCK_QUERIES: tl.constexpr = BLOCK_M // GROUP
    kv_head = tl.program_id(1)
    num_heads = tl.num_programs(1) * GROUP
    item = work + _HEADER + _ROW * num_rows + _ITEM * index
    row_number = tl.load(item)
    row = work + _HEADER + _ROW * row_number
    start = tl.load(item + 1)
    begin = tl.load(item + 2)
    part = tl.load(item + 3)
    first_token = tl.load(row)
    num_queries = tl.load(row + 1)
    context = tl.load(row + 2)
    row_pages = page_ids + tl.load(row + 3)

    # Tile row m is query start + m // GROUP, head m % GROUP of the group.
    m = tl.arange(0, BLOCK_M)
    query = start + m // GROUP
    head = kv_head * GROUP + m % GROUP
    valid = (m < BLOCK_QUERIES * GROUP) & (query < num_queries)
    position = context - num_queries + query
    token = (first_token + query).to(tl.int64)
    d = tl.arange(0, BLOCK_D)
    tile = valid[:, None] & (d[None, :] < HEAD_DIM)
    q_offset = token[:, None] * q_token_stride + head[:, None] * q_head_stride + d[None, :]
    queries = tl.load(q + q_offset, mask=tile, other=0.0)

    # Keys begin .. end-1 are needed; those from full_begin to full_end-1 every query sees.
    oldest = context - num_queries + start
    newest = tl.minimum(oldest + BLOCK_QUERIES, context) - 1
    end = newest + 1
    if part >= 0:
        end = tl.minimum(end, begin + split)
    full_begin = begin
    if HAS_WINDOW:
        full_begin = tl.cdiv(tl.maximum(newest - window + 1, begin), BLOCK_N) * BLOCK_N
        begin = tl.maximum(tl.maximum(oldest - window + 1, 0) // BLOCK_N * BLOCK_N, begin)
    num_seen = oldest + 1  # keys that every query sees
    masks, num_masked = trees, 0
    if HAS_TREES:
        masks_at = tl.load(trees + row_number)
        masks = trees + masks_at
        num_masked = tl.where(masks_at >= 0, num_queries, 0)
        num_seen = tl.where(masks_at >= 0, context - num_queries, num_seen)
    full_end = tl.maximum(tl.minimum(end, num_seen) // BLOCK_N * BLOCK_N, full_begin)

    k_head = k_pages + kv_head * HEAD_DIM
    v_head = v_pages + kv_head * HEAD_DIM
    k_scales_head = k_scales + kv_head
    v_scales_head = v_scales + kv_head
    largest = tl.full((BLOCK_M,), float("-inf"), dtype=tl.float32)
    total = tl.zeros((BLOCK_M,), dtype=tl.float32)
    acc = tl.zeros((BLOCK_M, BLOCK_D), dtype=tl.float32)
    if HAS_WINDOW:
        acc, total, largest = _walk(
            begin,
            tl.minimum(full_begin, end),
            queries,
            position,
            acc,
            total,
            largest,
            k_head,
            v_head,
            k_scales_head,
            v_scales_head,
            row_pages,
            exponent_scale,
            softcap_exponent,
            window,
            masks,
            num_masked,
            query,
            context - num_queries,
            HAS_WINDOW,
            HAS_TREES,
            HAS_SOFTCAP,
            QUANTIZED,
            PAGE_SIZE,
            HEAD_DIM,
            KV_HEADS,
            BLOCK_D,
            BLOCK_N,
            NUM_STAGES,
            MASKED=True,
        )
    acc, total, largest = _walk(
        full_begin,
        full_end,
        queries,
        position,
        acc,
        total,
        largest,
        k_head,
        v_head,
        k_scales_head,
        v_scales_head,
        row_pages,
        exponent_scale,
        softcap_exponent,
        window,
        masks,
        num_masked,
        query,
        context - num_queries,
        HAS_WINDOW,
        HAS_TREES,
        HAS_SOFTCAP,
        QUANTIZED,
        PAGE_SIZE,
        HEAD_DIM,
        KV_HEADS,
        BLOCK_D,
        BLOCK_N,
        NUM_STAGES,
        MASKED=False,
    )
    acc, total, largest = _walk(
        full_end,
        end,
        queries,
        position,
        acc,
        total,
        largest,
        k_head,
        v_head,
        k_scales_head,
        v_scales_head,
        row_pages,
        exponent_scale,
        softcap_exponent,
        window,
        masks,
        num_masked,
        query,
        context - num_queries,
        HAS_WINDOW,
        HAS_TREES,
        HAS_SOFTCAP,
        QUANTIZED,
        PAGE_SIZE,
        HEAD_DIM,
        KV_HEADS,
        BLOCK_D,
        BLOCK_N,
        NUM_STAGES,
        MASKED=True,
    )

    total = tl.where(total == 0.0, 1.0, total)  # no key seen: `largest` is -inf
    result = acc / total[:, None]
    if part >= 0:
        first_part = work + tl.load(work + _FIRST_PART_AT)
        place = (tl.load(first_part + token, mask=valid, other=0) + part).to(tl.int64)
        place = place * num_heads + head
        tl.store(part_out + place[:, None] * HEAD_DIM + d[None, :], result, mask=tile)
        tl.store(part_lse + place, largest + tl.log2(total), mask=valid)
    else:
        place = token * num_heads + head
        out_offset = place[:, None] * HEAD_DIM + d[None, :]
        tl.store(out + out_offset, result.to(out.dtype.element_ty), mask=tile)


@triton.jit(do_not_specialize=["num_rows", "split", "long_split", "window"])
def _paged_attention(
    q,
    k_pages,
    v_pages,
    k_scales,
    v_scales,
    out,
    part_out,
    part_lse,
    work,
    page_ids,
    trees,
    num_rows,
    split,
    long_split,
    q_token_stride,
    q_head_stride,
    exponent_scale,
    softcap_exponent,
    window,
    HAS_WINDOW: tl.constexpr,
    HAS_TREES: tl.constexpr,
    HAS_SOFTCAP: tl.constexpr,
    QUANTIZED: tl.constexpr,
    GROUP: tl.constexpr,
    PAGE_SIZE: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    KV_HEADS: tl.constexpr,
    BLOCK_D: tl.constexpr,
    SHORT_M: tl.constexpr,
    SHORT_N: tl.constexpr,
    SHORT_STAGES: tl.constexpr,
    LONG_M: tl.constexpr,
    LONG_N: tl.constexpr,
    LONG_STAGES: tl.constexpr,
):
    """Items program, program + num_programs, ... of one KV head; a size of 0: no such items."""
    first = tl.program_id(0)
    step = tl.num_programs(0)
    if LONG_M > 0:
        num_long = tl.load(work + _NUM_LONG)
        for index in range(first, num_long, step):
            _attend(
                index,
                q,
                k_pages,
                v_pages,
                k_scales,
                v_scales,
                out,
                part_out,
                part_lse,
                work,
                page_ids,
                trees,
                num_rows,
                long_split,
                q_token_stride,
                q_head_stride,
                exponent_scale,
                softcap_exponent,
                window,
                HAS_WINDOW,
                HAS_TREES,
                HAS_SOFTCAP,
                QUANTIZED,
                GROUP,
                PAGE_SIZE,
                HEAD_DIM,
                KV_HEADS,
                BLOCK_D,
                LONG_M,
                LONG_N,
                LONG_STAGES,
            )
        if first < num_long:
            first += tl.cdiv(num_long - first, step) * step
    if SHORT_M > 0:
        num_items = tl.load(work + _NUM_ITEMS)
        for index in range(first, num_items, step):
            _attend(
                index,
                q,
                k_pages,
                v_pages,
                k_scales,
                v_scales,
                out,
                part_out,
                part_lse,
                work,
                page_ids,
                trees,
                num_rows,
                split,
                q_token_stride,
                q_head_stride,
                exponent_scale,
                softcap_exponent,
                window,
                HAS_WINDOW,
                HAS_TREES,
                HAS_SOFTCAP,
                QUANTIZED,
                GROUP,
                PAGE_SIZE,
                HEAD_DIM,
                KV_HEADS,
                BLOCK_D,
                SHORT_M,
                SHORT_N,
                SHORT_STAGES,
            )


def paged_attention_triton(
    q: torch.Tensor,
    pages: KVPages,
    work: Work,
    window: int | None,
    *,
    scale: float,
    softcap: float | None,
) -> torch.Tensor:
    """Shapes as in `paged_attention`; the last dimension of q is contiguous."""
    num_kv_heads, head_dim, cut = pages.num_kv_heads, pages.head_dim, work.cut
    short, long = short_tiles(pages), long_tiles(pages, cut.long_tile)
    if cut.split % short.block_keys or cut.long_split % long.block_keys:
        raise ValueError(
            f"paged_attention: a split of {cut.split} keys, {cut.long_split} for long rows: not "
            f"in tiles of {short.block_keys} and {long.block_keys}"
        )
    num_heads = q.shape[1]
    out = q.new_empty(q.shape)
    part_out = q.new_empty((work.num_parts, num_heads, head_dim), dtype=torch.float32)
    part_lse = q.new_empty((work.num_parts, num_heads), dtype=torch.float32)
    exponent_scale, softcap_exponent = scale * math.log2(math.e), 0.0
    if softcap is not None:
        exponent_scale, softcap_exponent = 2 * exponent_scale / softcap, softcap * math.log2(math.e)
    _paged_attention[(work.num_programs, num_kv_heads)](
        q,
        pages.k,
        pages.v,
        pages.k if pages.k_scales is None else pages.k_scales,
        pages.v if pages.v_scales is None else pages.v_scales,
        out,
        part_out,
        part_lse,
        work.buffer,
        work.page_ids,
        work.buffer if work.trees is None else work.trees,
        work.num_rows,
        cut.split,
        cut.long_split,
        q.stride(0),
        q.stride(1),
        exponent_scale,
        softcap_exponent,
        window or 0,
        HAS_WINDOW=window is not None,
        HAS_TREES=work.trees is not None,
        HAS_SOFTCAP=softcap is not None,
        QUANTIZED=pages.k_scales is not None,
        GROUP=cut.group,
        PAGE_SIZE=pages.page_size,
        HEAD_DIM=head_dim,
        KV_HEADS=num_kv_heads,
        BLOCK_D=max(16, triton.next_power_of_2(head_dim)),
        SHORT_M=cut.short_tile if work.has_short else 0,
        SHORT_N=short.block_keys,
        SHORT_STAGES=short.num_stages,
        LONG_M=cut.long_tile if work.has_long else 0,
        LONG_N=long.block_keys,
        LONG_STAGES=long.num_stages,
        num_warps=short.num_warps if work.has_short else long.num_warps,
    )
    if work.shared is not None:
        shared_prefix_attention_triton(
            q, pages, work.shared, part_out, part_lse, scale=scale, softcap=softcap
        )
    if work.num_merges:
        merge_parts(out, part_out, part_lse, work)
    return out
