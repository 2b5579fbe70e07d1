"""Paged attention on the GPU: one flash-style kernel for prefill, extend and decode.

A program computes a block of one row's queries for one KV head; the query heads of the group are
rows of the same tile, so that each key and value is loaded once for all of them. Not yet tuned: no
split over long contexts, no shared-prefix pass.
"""

import math

import torch
import triton
import triton.language as tl

from ..kv_pages import KVPages
from .plan import AttentionPlan
from .query_blocks import QueryBlocks

_BLOCK_KEYS = 64


@triton.jit
def _kernel(
    q,
    k_pages,
    v_pages,
    out,
    page_table,
    block_rows,
    block_starts,
    first_tokens,
    query_lens,
    context_lens,
    exponent_scale,
    table_stride,
    q_token_stride,
    q_head_stride,
    slot_stride,
    window,
    HAS_WINDOW: tl.constexpr,
    GROUP: tl.constexpr,
    BLOCK_QUERIES: tl.constexpr,
    PAGE_SIZE: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    row = tl.load(block_rows + tl.program_id(0))
    start = tl.load(block_starts + tl.program_id(0))
    kv_head = tl.program_id(1)
    num_kv_heads = tl.num_programs(1)
    num_queries = tl.load(query_lens + row)
    context = tl.load(context_lens + row)
    first_token = tl.load(first_tokens + row).to(tl.int64)

    # Tile row m is query start + m // GROUP, head m % GROUP of the group.
    m = tl.arange(0, BLOCK_M)
    query = start + m // GROUP
    head = kv_head * GROUP + m % GROUP
    valid = (m < BLOCK_QUERIES * GROUP) & (query < num_queries)
    position = context - num_queries + query
    d = tl.arange(0, BLOCK_D)
    in_head = d < HEAD_DIM
    q_offset = (first_token + query)[:, None] * q_token_stride + head[:, None] * q_head_stride
    tile = valid[:, None] & in_head[None, :]
    queries = tl.load(q + q_offset + d[None, :], mask=tile, other=0.0)

    first_position = context - num_queries + start
    end = tl.minimum(context, first_position + BLOCK_QUERIES)
    begin = 0
    if HAS_WINDOW:
        begin = tl.maximum(first_position - window + 1, 0) // BLOCK_N * BLOCK_N

    largest = tl.full((BLOCK_M,), float("-inf"), dtype=tl.float32)
    total = tl.zeros((BLOCK_M,), dtype=tl.float32)
    acc = tl.zeros((BLOCK_M, BLOCK_D), dtype=tl.float32)
    for block in range(begin, end, BLOCK_N):
        key = block + tl.arange(0, BLOCK_N)
        in_context = key < end
        page = tl.load(
            page_table + row * table_stride + key // PAGE_SIZE, mask=in_context, other=0
        ).to(tl.int64)
        slot = page * PAGE_SIZE + key % PAGE_SIZE
        kv_offset = slot[:, None] * slot_stride + kv_head * HEAD_DIM + d[None, :]
        kv_tile = in_context[:, None] & in_head[None, :]
        keys = tl.load(k_pages + kv_offset, mask=kv_tile, other=0.0)
        values = tl.load(v_pages + kv_offset, mask=kv_tile, other=0.0)
        scores = tl.dot(queries, tl.trans(keys), input_precision="ieee") * exponent_scale
        seen = in_context[None, :] & (key[None, :] <= position[:, None])
        if HAS_WINDOW:
            seen = seen & (key[None, :] > position[:, None] - window)
        scores = tl.where(seen, scores, float("-inf"))
        new_largest = tl.maximum(largest, tl.max(scores, axis=1))
        # A tile row may not have seen any key yet: keep exp2(-inf - -inf) out.
        shift = tl.where(new_largest == float("-inf"), 0.0, new_largest)
        weights = tl.exp2(scores - shift[:, None])
        fade = tl.exp2(largest - shift)
        total = total * fade + tl.sum(weights, axis=1)
        acc = acc * fade[:, None] + tl.dot(weights.to(values.dtype), values, input_precision="ieee")
        largest = new_largest

    result = acc / tl.where(total == 0.0, 1.0, total)[:, None]
    out_offset = ((first_token + query) * num_kv_heads * GROUP + head)[:, None] * HEAD_DIM
    tl.store(out + out_offset + d[None, :], result.to(out.dtype.element_ty), mask=tile)


def paged_attention_triton(
    q: torch.Tensor,
    pages: KVPages,
    plan: AttentionPlan,
    blocks: QueryBlocks,
    *,
    scale: float,
) -> torch.Tensor:
    """Shapes as in `paged_attention`; the last dimension of q is contiguous."""
    num_kv_heads, head_dim = pages.num_kv_heads, pages.head_dim
    page_table = plan.page_table.contiguous()
    out = q.new_empty(q.shape)
    _kernel[(len(blocks.rows), num_kv_heads)](
        q,
        pages.k,
        pages.v,
        out,
        page_table,
        blocks.rows,
        blocks.starts,
        blocks.first_tokens,
        blocks.query_lens,
        blocks.context_lens,
        scale * math.log2(math.e),
        page_table.stride(0),
        q.stride(0),
        q.stride(1),
        num_kv_heads * head_dim,
        plan.window or 0,
        HAS_WINDOW=plan.window is not None,
        GROUP=plan.group,
        BLOCK_QUERIES=blocks.block_queries,
        PAGE_SIZE=pages.page_size,
        HEAD_DIM=head_dim,
        BLOCK_M=max(16, triton.next_power_of_2(blocks.block_queries * plan.group)),
        BLOCK_N=_BLOCK_KEYS,
        BLOCK_D=max(16, triton.next_power_of_2(head_dim)),
    )
    return out
