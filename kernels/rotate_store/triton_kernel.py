"""rotate_and_store on the GPU, in one launch: a program computes some heads of q of one token, or
some heads of k and v.
"""

import torch
import triton
import triton.language as tl

from ..kv_pages import KVPages
from ..store_kv.quantize import LARGEST
from ..store_kv.triton_kernel import head_tiles, put_heads
from .norms import HeadNorms


@triton.jit
def _load_halves(x, head, inside, HALF: tl.constexpr, BLOCK: tl.constexpr):
    at = x + head[:, None] * (2 * HALF) + tl.arange(0, BLOCK)[None, :]
    low = tl.load(at, mask=inside, other=0.0).to(tl.float32)
    high = tl.load(at + HALF, mask=inside, other=0.0).to(tl.float32)
    return low, high


@triton.jit
def _turn(
    low,
    high,
    cos,
    sin,
    weight,
    eps,
    HAS_NORM: tl.constexpr,
    HALF: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """cos, sin: this token's rows, of which sin's second half is not negated."""
    dim = tl.arange(0, BLOCK)
    in_half = dim < HALF
    if HAS_NORM:
        squares = tl.sum(low * low, axis=1) + tl.sum(high * high, axis=1)
        scale = tl.rsqrt(squares / (2 * HALF) + eps)[:, None]
        low *= scale * tl.load(weight + dim, mask=in_half, other=0.0).to(tl.float32)[None, :]
        high *= (
            scale * tl.load(weight + HALF + dim, mask=in_half, other=0.0).to(tl.float32)[None, :]
        )
    c = tl.load(cos + dim, mask=in_half, other=0.0)[None, :]
    s = tl.load(sin + HALF + dim, mask=in_half, other=0.0)[None, :]
    return low * c - high * s, high * c + low * s


@triton.jit
def _rotate_and_store(
    qkv,
    q_out,
    k_pages,
    v_pages,
    k_scales,
    v_scales,
    slots,
    cos,
    sin,
    q_norm,
    k_norm,
    eps,
    token_stride,
    num_heads,
    num_kv_heads,
    q_programs,
    HAS_NORM: tl.constexpr,
    HALF: tl.constexpr,
    LARGEST: tl.constexpr,
    HEADS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    token = tl.program_id(0).to(tl.int64)
    program = tl.program_id(1)
    dim = tl.arange(0, BLOCK)
    qkv += token * token_stride
    cos += token * (2 * HALF)
    sin += token * (2 * HALF)
    if program < q_programs:
        head = program * HEADS + tl.arange(0, HEADS)
        inside = (head < num_heads)[:, None] & (dim < HALF)[None, :]
        low, high = _load_halves(qkv, head, inside, HALF, BLOCK)
        low, high = _turn(low, high, cos, sin, q_norm, eps, HAS_NORM, HALF, BLOCK)
        at = q_out + (token * num_heads + head)[:, None] * (2 * HALF) + dim[None, :]
        tl.store(at, low.to(q_out.dtype.element_ty), mask=inside)
        tl.store(at + HALF, high.to(q_out.dtype.element_ty), mask=inside)
    else:
        slot = tl.load(slots + token)
        head = (program - q_programs) * HEADS + tl.arange(0, HEADS)
        inside = (head < num_kv_heads)[:, None] & (dim < HALF)[None, :]
        key_low, key_high = _load_halves(qkv, num_heads + head, inside, HALF, BLOCK)
        low, high = _load_halves(qkv, num_heads + num_kv_heads + head, inside, HALF, BLOCK)
        key_low, key_high = _turn(key_low, key_high, cos, sin, k_norm, eps, HAS_NORM, HALF, BLOCK)
        put_heads(
            k_pages,
            k_scales,
            slot,
            num_kv_heads,
            head,
            key_low,
            key_high,
            inside,
            HALF,
            BLOCK,
            LARGEST,
        )
        put_heads(
            v_pages, v_scales, slot, num_kv_heads, head, low, high, inside, HALF, BLOCK, LARGEST
        )


def rotate_and_store_triton(
    qkv: torch.Tensor,
    cos: torch.Tensor,
    sin: torch.Tensor,
    pages: KVPages,
    slots: torch.Tensor,
    norms: HeadNorms | None,
) -> torch.Tensor:
    """Shapes as in `rotate_and_store`."""
    num_tokens, _, head_dim = qkv.shape
    num_kv_heads = pages.num_kv_heads
    num_heads = qkv.shape[1] - 2 * num_kv_heads
    q = qkv.new_empty((num_tokens, num_heads, head_dim))
    if not num_tokens:
        return q
    tiles = head_tiles(num_heads, head_dim)
    q_programs = triton.cdiv(num_heads, tiles.heads)
    _rotate_and_store[(num_tokens, q_programs + triton.cdiv(num_kv_heads, tiles.heads))](
        qkv,
        q,
        pages.k,
        pages.v,
        pages.k_scales,
        pages.v_scales,
        slots,
        cos,
        sin,
        None if norms is None else norms.q,
        None if norms is None else norms.k,
        0.0 if norms is None else norms.eps,
        qkv.stride(0),
        num_heads,
        num_kv_heads,
        q_programs,
        HAS_NORM=norms is not None,
        HALF=head_dim // 2,
        LARGEST=LARGEST.get(pages.k.dtype, 0.0),
        HEADS=tiles.heads,
        BLOCK=tiles.block,
        num_warps=tiles.num_warps,
    )
    return q
