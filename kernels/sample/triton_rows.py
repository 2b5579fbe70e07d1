"""What the passes over a row share within Triton kernels: its logits and their weights.

Every pass computes a token's weight by the same operations, so the passes agree to the bit. Weights
are whole numbers of 2**-44 of the largest: their sums do not depend on the order of adding, so
neither grids nor atomics can change a draw.
"""

import triton
import triton.language as tl

NUM_BINS = tl.constexpr(256)
BINS_PER_NAT = tl.constexpr(8)  # the last bin begins at exp(-31.9): weights of 0 units
UNITS = tl.constexpr(17592186044416.0)  # 2**44; a sum over 2**18 tokens stays below 2**63


@triton.jit
def row_logits(
    logits, masks, place, row, token, vocab, row_stride, num_words, HAS_MASK: tl.constexpr
):
    """Logits of the tokens, -inf for forbidden ones, those outside the vocabulary and NaN. place:
    the row of masks, -1 for none."""
    inside = (token >= 0) & (token < vocab)
    x = tl.load(logits + row * row_stride + token, mask=inside, other=float("-inf"))
    if HAS_MASK:
        words = masks + place.to(tl.int64) * num_words
        word = tl.load(words + token // 32, mask=inside & (place >= 0), other=-1)
        x = tl.where(((word >> (token % 32)) & 1) == 0, float("-inf"), x)
    x = tl.where(x == x, x, float("-inf"))
    return tl.where(x == 0, 0.0, x)  # no -0.0: equal logits have equal bits


@triton.jit
def distances(x, largest, heat):
    """How far below the largest, in nats: the larger the less likely. largest may be infinite: then
    0 stands for it, and the row's draw does not ask."""
    largest = tl.where(tl.abs(largest) == float("inf"), 0.0, largest)
    return tl.div_rn(largest - x, tl.maximum(heat, 1e-30))


@triton.jit
def units(weight):
    """A weight as a whole number, int64."""
    return (tl.minimum(weight, 1.0) * UNITS).to(tl.int64)


@triton.jit
def bins(distance):
    return tl.minimum(tl.maximum(distance, 0.0) * BINS_PER_NAT, NUM_BINS - 1.0).to(tl.int32)


@triton.jit
def has_rank_limit(top_k, top_p, vocab):
    return ((top_k > 0) & (top_k < vocab)) | (top_p < 1)
