"""store_kv on the GPU: one program for some heads of one token.

`put_heads`, in any format of pages, also serves the op that rotates and stores.
"""

from dataclasses import dataclass

import torch
import triton
import triton.language as tl

from ..kv_pages import KVPages
from .quantize import LARGEST
from .quantize import SMALLEST_TOP as _SMALLEST_TOP

SMALLEST_TOP = tl.constexpr(_SMALLEST_TOP)


@triton.jit
def on_e4m3_grid(x):
    """x, at most 448 in magnitude, rounded to the nearest number that e4m3 has, ties to even.

    Its cast is then exact everywhere; Triton's interpreter casts other numbers wrongly where
    rounding reaches the exponent.
    """
    power = (x.to(tl.int32, bitcast=True) & 0x7F800000).to(tl.float32, bitcast=True)
    # Steps of a power's 3 bits, at least those of the smallest normal number, 2^-6: added to 1.5 *
    # 2^23 steps, the rest does not fit.
    shift = tl.maximum(power, 0.015625) * 1572864.0
    return (x + shift) - shift


@triton.jit
def _as_numbers(x, LARGEST: tl.constexpr, NUMBER: tl.constexpr):
    if LARGEST == 448.0:
        return on_e4m3_grid(x).to(NUMBER)
    if LARGEST == 127.0:
        return ((x + 12582912.0) - 12582912.0).to(NUMBER)  # 1.5 * 2^23: the nearest integer
    return x.to(NUMBER)


@triton.jit
def put_heads(
    pages,
    scales,
    slot,
    num_heads,
    head,
    low,
    high,
    inside,
    HALF: tl.constexpr,
    BLOCK: tl.constexpr,
    LARGEST: tl.constexpr,
):
    """Write the two halves low, high (fp32 [HEADS, BLOCK], HALF elements each) of the heads `head`
    [HEADS] to `slot`, int64; where it is negative, nothing. `inside` [HEADS, BLOCK]: which are
    there; the others hold 0.

    LARGEST: what the largest magnitude of a head becomes; 0 where the values are stored as they
    are, and there are no `scales`.
    """
    if LARGEST > 0.0:
        top = tl.maximum(tl.max(tl.abs(low), axis=1), tl.max(tl.abs(high), axis=1))
        top = tl.maximum(top, SMALLEST_TOP)
        inverse = (tl.div_rn(1.0, top) * LARGEST)[:, None]
        low, high = low * inverse, high * inverse
        is_stored = (head < num_heads) & (slot >= 0)
        tl.store(scales + slot * num_heads + head, tl.div_rn(top, LARGEST), mask=is_stored)
    at = pages + (slot * num_heads + head)[:, None] * (2 * HALF) + tl.arange(0, BLOCK)[None, :]
    number = pages.dtype.element_ty
    tl.store(at, _as_numbers(low, LARGEST, number), mask=inside & (slot >= 0))
    tl.store(at + HALF, _as_numbers(high, LARGEST, number), mask=inside & (slot >= 0))


@triton.jit
def _store_half_heads(
    x,
    pages,
    scales,
    slot,
    num_heads,
    head,
    head_stride,
    HALF: tl.constexpr,
    BLOCK: tl.constexpr,
    LARGEST: tl.constexpr,
):
    dim = tl.arange(0, BLOCK)
    inside = (head < num_heads)[:, None] & (dim < HALF)[None, :]
    at = x + head[:, None] * head_stride + dim[None, :]
    low = tl.load(at, mask=inside, other=0.0).to(tl.float32)
    high = tl.load(at + HALF, mask=inside, other=0.0).to(tl.float32)
    put_heads(pages, scales, slot, num_heads, head, low, high, inside, HALF, BLOCK, LARGEST)


@triton.jit
def _store_kv(
    k,
    v,
    k_pages,
    v_pages,
    k_scales,
    v_scales,
    slots,
    k_token_stride,
    k_head_stride,
    v_token_stride,
    v_head_stride,
    num_heads,
    HALF: tl.constexpr,
    LARGEST: tl.constexpr,
    HEADS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    token = tl.program_id(0).to(tl.int64)
    slot = tl.load(slots + token)
    head = tl.program_id(1) * HEADS + tl.arange(0, HEADS)
    k += token * k_token_stride
    v += token * v_token_stride
    _store_half_heads(
        k, k_pages, k_scales, slot, num_heads, head, k_head_stride, HALF, BLOCK, LARGEST
    )
    _store_half_heads(
        v, v_pages, v_scales, slot, num_heads, head, v_head_stride, HALF, BLOCK, LARGEST
    )


@dataclass(frozen=True)
class HeadTiles:
    """How a token's heads are cut into programs: `heads` of one tile, two halves of `block`."""

    heads: int
    block: int
    num_warps: int


def head_tiles(num_heads: int, head_dim: int) -> HeadTiles:
    """8 heads, for enough programs at few tokens, and 8 elements of a half for each thread: 16
    bytes of bfloat16. Estimates, not measured."""
    heads = min(8, triton.next_power_of_2(num_heads))
    block = triton.next_power_of_2(head_dim // 2)
    return HeadTiles(heads, block, max(1, min(4, heads * block // 256)))


def store_kv_triton(k: torch.Tensor, v: torch.Tensor, pages: KVPages, slots: torch.Tensor) -> None:
    """Shapes as in `store_kv`; the last dimension of k and v is contiguous."""
    num_tokens, num_heads, head_dim = k.shape
    tiles = head_tiles(num_heads, head_dim)
    if not num_tokens:
        return
    _store_kv[(num_tokens, triton.cdiv(num_heads, tiles.heads))](
        k,
        v,
        pages.k,
        pages.v,
        pages.k_scales,
        pages.v_scales,
        slots,
        k.stride(0),
        k.stride(1),
        v.stride(0),
        v.stride(1),
        num_heads,
        HALF=head_dim // 2,
        LARGEST=LARGEST.get(pages.k.dtype, 0.0),
        HEADS=tiles.heads,
        BLOCK=tiles.block,
        num_warps=tiles.num_warps,
    )
