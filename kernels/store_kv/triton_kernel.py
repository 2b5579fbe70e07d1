"""store_kv on the GPU: one program for each token."""

import torch
import triton
import triton.language as tl

from ..kv_pages import KVPages


@triton.jit
def _kernel(
    k,
    v,
    k_pages,
    v_pages,
    slots,
    k_token_stride,
    k_head_stride,
    v_token_stride,
    v_head_stride,
    num_heads,
    HEAD_DIM: tl.constexpr,
    BLOCK: tl.constexpr,
):
    token = tl.program_id(0).to(tl.int64)
    slot = tl.load(slots + token)
    element = tl.arange(0, BLOCK)
    inside = element < num_heads * HEAD_DIM
    head, dim = element // HEAD_DIM, element % HEAD_DIM
    target = slot * num_heads * HEAD_DIM + element
    key = tl.load(k + token * k_token_stride + head * k_head_stride + dim, mask=inside)
    tl.store(k_pages + target, key, mask=inside)
    value = tl.load(v + token * v_token_stride + head * v_head_stride + dim, mask=inside)
    tl.store(v_pages + target, value, mask=inside)


def store_kv_triton(
    k: torch.Tensor,
    v: torch.Tensor,
    pages: KVPages,
    slots: torch.Tensor,
) -> None:
    """Shapes as in `store_kv`; the last dimension of k and v is contiguous."""
    num_tokens, num_heads, head_dim = k.shape
    if num_tokens:
        _kernel[(num_tokens,)](
            k,
            v,
            pages.k,
            pages.v,
            slots,
            k.stride(0),
            k.stride(1),
            v.stride(0),
            v.stride(1),
            num_heads,
            HEAD_DIM=head_dim,
            BLOCK=triton.next_power_of_2(num_heads * head_dim),
        )
