"""The shared pass on the GPU: one program, one tile of tokens over one split of keys.

The tile's rows are tokens times the query heads of a KV head, gathered by their numbers, so that
what were many rows' vector-matrix products become one matrix product. Splits are whole and lie
before every query: nothing is masked but the tile's empty rows.

A tile is a few blocks of rows over the same keys. With blocks as large as those that
`paged_attention` has for decoding, the matrix instructions and the order of every sum are those of
a row on its own (the same code over tiles of the same shape), so that who shares should never
change a result: it doesn't in Triton's interpreter; on a GPU that is not measured. One block of 64
rows would do the same products by larger instructions (wgmma), which may round otherwise.
"""

import math

import torch
import triton
import triton.language as tl

from ..kv_pages import KVPages
from ..paged_attention.triton_tiles import (
    load_pages,
    load_scales,
    load_tile,
    reduce_tile,
    tile_slots,
)
from ..paged_attention.tuning import short_tiles
from .plan import SharedPrefixes


@triton.jit
def _shared_prefix_attention(
    q,
    k_pages,
    v_pages,
    k_scales,
    v_scales,
    part_out,
    part_lse,
    header,
    buffer,
    page_ids,
    q_token_stride,
    q_head_stride,
    exponent_scale,
    softcap_exponent,
    HAS_SOFTCAP: tl.constexpr,
    QUANTIZED: tl.constexpr,
    GROUP: tl.constexpr,
    KV_HEADS: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    PAGE_SIZE: tl.constexpr,
    SPLIT: tl.constexpr,
    NUM_BLOCKS: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
    NUM_STAGES: tl.constexpr,
):
    BLOCK_TOKENS: tl.constexpr = BLOCK_M // GROUP
    SLOT_STRIDE: tl.constexpr = KV_HEADS * HEAD_DIM
    kv_head = tl.program_id(1)
    num_items = tl.load(header)
    items = buffer + tl.load(header + 1)
    tokens = buffer + tl.load(header + 2)
    first_part = buffer + tl.load(header + 3)
    k_head, v_head = k_pages + kv_head * HEAD_DIM, v_pages + kv_head * HEAD_DIM
    k_scales_head, v_scales_head = k_scales + kv_head, v_scales + kv_head

    m = tl.arange(0, BLOCK_M)
    d = tl.arange(0, BLOCK_D)
    head = kv_head * GROUP + m % GROUP
    for item in range(tl.program_id(0), num_items, tl.num_programs(0)):
        begin = tl.load(items + item * 4)
        count = tl.load(items + item * 4 + 1)
        split_pages = page_ids + tl.load(items + item * 4 + 2)
        split = tl.load(items + item * 4 + 3)

        queries, accs, totals, largests = (), (), (), ()
        for block in tl.static_range(NUM_BLOCKS):
            member = block * BLOCK_TOKENS + m // GROUP
            valid = (m < BLOCK_TOKENS * GROUP) & (member < count)
            token = tl.load(tokens + begin + member, mask=valid, other=0).to(tl.int64)
            place = token[:, None] * q_token_stride + head[:, None] * q_head_stride + d[None, :]
            tile = valid[:, None] & (d[None, :] < HEAD_DIM)
            queries = queries + (tl.load(q + place, mask=tile, other=0.0),)
            accs = accs + (tl.zeros((BLOCK_M, BLOCK_D), dtype=tl.float32),)
            totals = totals + (tl.zeros((BLOCK_M,), dtype=tl.float32),)
            largests = largests + (tl.full((BLOCK_M,), float("-inf"), dtype=tl.float32),)

        pages = load_pages(split_pages, 0, SPLIT, PAGE_SIZE, BLOCK_N)
        for start in tl.range(0, SPLIT, BLOCK_N, num_stages=NUM_STAGES):
            start = tl.multiple_of(start, BLOCK_N)
            slots = tile_slots(pages, start, PAGE_SIZE, BLOCK_N)
            pages = load_pages(split_pages, start + BLOCK_N, SPLIT, PAGE_SIZE, BLOCK_N)
            keys = load_tile(k_head, slots, None, SLOT_STRIDE, HEAD_DIM, BLOCK_D, False)
            values = load_tile(v_head, slots, None, SLOT_STRIDE, HEAD_DIM, BLOCK_D, False)
            k_scale, v_scale = None, None
            if QUANTIZED:
                keys, values = keys.to(q.dtype.element_ty), values.to(q.dtype.element_ty)
                k_scale = load_scales(k_scales_head, slots, None, KV_HEADS, False)
                v_scale = load_scales(v_scales_head, slots, None, KV_HEADS, False)
            new_accs, new_totals, new_largests = (), (), ()
            for block in tl.static_range(NUM_BLOCKS):
                acc, total, largest = reduce_tile(
                    queries[block],
                    keys,
                    values,
                    k_scale,
                    v_scale,
                    None,
                    accs[block],
                    totals[block],
                    largests[block],
                    exponent_scale,
                    softcap_exponent,
                    HAS_SOFTCAP,
                    QUANTIZED,
                    MASKED=False,
                )
                new_accs = new_accs + (acc,)
                new_totals = new_totals + (total,)
                new_largests = new_largests + (largest,)
            accs, totals, largests = new_accs, new_totals, new_largests

        for block in tl.static_range(NUM_BLOCKS):
            member = block * BLOCK_TOKENS + m // GROUP
            valid = (m < BLOCK_TOKENS * GROUP) & (member < count)
            token = tl.load(tokens + begin + member, mask=valid, other=0)
            part = tl.load(first_part + token, mask=valid, other=0).to(tl.int64) + split
            place = part * (KV_HEADS * GROUP) + head
            tl.store(
                part_out + place[:, None] * HEAD_DIM + d[None, :],
                accs[block] / totals[block][:, None],
                mask=valid[:, None] & (d[None, :] < HEAD_DIM),
            )
            tl.store(part_lse + place, largests[block] + tl.log2(totals[block]), mask=valid)


def shared_prefix_attention_triton(
    q: torch.Tensor,
    pages: KVPages,
    shared: SharedPrefixes,
    part_out: torch.Tensor,
    part_lse: torch.Tensor,
    *,
    scale: float,
    softcap: float | None,
) -> None:
    """Shapes as in `shared_prefix_attention`; the last dimension of q is contiguous."""
    num_kv_heads, head_dim = pages.num_kv_heads, pages.head_dim
    exponent_scale, softcap_exponent = scale * math.log2(math.e), 0.0
    if softcap is not None:
        exponent_scale, softcap_exponent = 2 * exponent_scale / softcap, softcap * math.log2(math.e)
    tile = short_tiles(pages)
    _shared_prefix_attention[(shared.num_programs, num_kv_heads)](
        q,
        pages.k,
        pages.v,
        pages.k if pages.k_scales is None else pages.k_scales,
        pages.v if pages.v_scales is None else pages.v_scales,
        part_out,
        part_lse,
        shared.header,
        shared.buffer,
        shared.page_ids,
        q.stride(0),
        q.stride(1),
        exponent_scale,
        softcap_exponent,
        HAS_SOFTCAP=softcap is not None,
        QUANTIZED=pages.k_scales is not None,
        GROUP=q.shape[1] // num_kv_heads,
        KV_HEADS=num_kv_heads,
        HEAD_DIM=head_dim,
        PAGE_SIZE=pages.page_size,
        SPLIT=shared.split,
        NUM_BLOCKS=shared.num_blocks,
        BLOCK_M=shared.block_rows,
        BLOCK_N=tile.block_keys,
        BLOCK_D=max(16, triton.next_power_of_2(head_dim)),
        NUM_STAGES=tile.num_stages,
        num_warps=tile.num_warps,
    )
