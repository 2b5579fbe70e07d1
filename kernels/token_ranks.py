"""The order of a row's tokens as whole numbers, for Triton: by logit, then the lowest id first.

Owns: how a rank is made, and read. Knows no op.
"""

import triton
import triton.language as tl

ID_BITS = tl.constexpr(18)
MAX_VOCAB = tl.constexpr(2**18)
LEAST = tl.constexpr(-(2**51))  # below every rank; its negative is above


@triton.jit
def ranks(logit, token):
    """int64. No -0.0 and no NaN among the logits: equal ones have equal bits then."""
    bits = logit.to(tl.int32, bitcast=True)
    ordered = bits ^ ((bits >> 31) & 0x7FFFFFFF)
    return (ordered.to(tl.int64) << ID_BITS) + (-token + (MAX_VOCAB - 1)).to(tl.int64)


@triton.jit
def rank_logits(rank):
    ordered = (rank >> ID_BITS).to(tl.int32)
    return (ordered ^ ((ordered >> 31) & 0x7FFFFFFF)).to(tl.float32, bitcast=True)


@triton.jit
def rank_tokens(rank):
    """int64."""
    return -(rank & (MAX_VOCAB - 1)) + (MAX_VOCAB - 1)
