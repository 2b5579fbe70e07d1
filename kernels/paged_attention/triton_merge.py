"""Merges the parts of tokens that were reduced in several: in order, by log-sum-exp."""

import torch
import triton
import triton.language as tl

from .packed_work import FIRST_PART_AT, MERGES_AT, NUM_MERGES, Work

_NUM_MERGES = tl.constexpr(NUM_MERGES)
_FIRST_PART_AT, _MERGES_AT = tl.constexpr(FIRST_PART_AT), tl.constexpr(MERGES_AT)
# Parts that a program has under way at a time.
_BLOCK_PARTS = 16


@triton.jit
def _merge_parts(
    out,
    part_out,
    part_lse,
    work,
    HEAD_DIM: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_PARTS: tl.constexpr,
):
    """One token and query head; a token without parts gets zeros."""
    index = tl.program_id(0)
    if index < tl.load(work + _NUM_MERGES):
        head, num_heads = tl.program_id(1), tl.num_programs(1)
        token = tl.load(work + tl.load(work + _MERGES_AT) + index).to(tl.int64)
        first_part = work + tl.load(work + _FIRST_PART_AT) + token
        first = tl.load(first_part)
        last = tl.load(first_part + 1)
        offset = tl.arange(0, BLOCK_PARTS)
        d = tl.arange(0, BLOCK_D)

        largest = tl.full((BLOCK_PARTS,), float("-inf"), dtype=tl.float32)
        for block in range(first, last, BLOCK_PARTS):
            part = (block + offset).to(tl.int64)
            lse = tl.load(part_lse + part * num_heads + head, mask=part < last, other=float("-inf"))
            largest = tl.maximum(largest, lse)
        shift = tl.max(largest, axis=0)
        total = 0.0
        result = tl.zeros((BLOCK_D,), dtype=tl.float32)
        for block in range(first, last, BLOCK_PARTS):
            part = (block + offset).to(tl.int64)
            exists = part < last
            place = part * num_heads + head
            lse = tl.load(part_lse + place, mask=exists, other=float("-inf"))
            values = tl.load(
                part_out + place[:, None] * HEAD_DIM + d[None, :],
                mask=exists[:, None] & (d[None, :] < HEAD_DIM),
                other=0.0,
            )
            share = tl.exp2(lse - shift)
            total += tl.sum(share, axis=0)
            result += tl.sum(values * share[:, None], axis=0)
        if last > first:
            result = result / total
        tl.store(
            out + (token * num_heads + head) * HEAD_DIM + d,
            result.to(out.dtype.element_ty),
            mask=d < HEAD_DIM,
        )


def merge_parts(
    out: torch.Tensor, part_out: torch.Tensor, part_lse: torch.Tensor, work: Work
) -> None:
    """Write the result of every token among the work's merges into `out` [T, Hq, D].

    part_out: fp32 [num_parts, Hq, D], each part's result; part_lse: fp32 [num_parts, Hq], the
    base-2 logarithm of its sum of exponentials (-inf: it saw no key).
    """
    _, num_heads, head_dim = out.shape
    _merge_parts[(work.num_merges, num_heads)](
        out,
        part_out,
        part_lse,
        work.buffer,
        HEAD_DIM=head_dim,
        BLOCK_D=triton.next_power_of_2(head_dim),
        BLOCK_PARTS=_BLOCK_PARTS,
        # With four warps ptxas holds heads of 80 and 96 to 32 registers on sm_80, and spills two.
        num_warps=4 if head_dim > 128 else 2,
    )
