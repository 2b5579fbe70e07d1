"""The rotation on the GPU: one program for each token, all heads."""

import torch
import triton
import triton.language as tl


@triton.jit
def _kernel(
    x,
    cos,
    sin,
    out,
    token_stride,
    head_stride,
    num_heads,
    HEAD_DIM: tl.constexpr,
    BLOCK: tl.constexpr,
):
    token = tl.program_id(0).to(tl.int64)
    element = tl.arange(0, BLOCK)
    inside = element < num_heads * HEAD_DIM
    head, dim = element // HEAD_DIM, element % HEAD_DIM
    partner = (dim + HEAD_DIM // 2) % HEAD_DIM
    base = x + token * token_stride + head * head_stride
    own = tl.load(base + dim, mask=inside, other=0.0).to(tl.float32)
    other = tl.load(base + partner, mask=inside, other=0.0).to(tl.float32)
    c = tl.load(cos + token * HEAD_DIM + dim)
    s = tl.load(sin + token * HEAD_DIM + dim)
    result = (own * c + other * s).to(out.dtype.element_ty)
    tl.store(out + token * num_heads * HEAD_DIM + element, result, mask=inside)


def rotate_triton(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Shapes as in `rotate`; the last dimension of x is contiguous."""
    num_tokens, num_heads, head_dim = x.shape
    out = x.new_empty(x.shape)
    if num_tokens:
        _kernel[(num_tokens,)](
            x,
            cos,
            sin,
            out,
            x.stride(0),
            x.stride(1),
            num_heads,
            HEAD_DIM=head_dim,
            BLOCK=triton.next_power_of_2(num_heads * head_dim),
        )
    return out
