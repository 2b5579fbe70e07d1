"""The uniform numbers of `philox.py` within a Triton kernel, bit for bit."""

import triton
import triton.language as tl


@triton.jit
def uniform(stream, position):
    """stream, position: int64, read as unsigned; float64 in [0, 1)."""
    key = stream.to(tl.uint64)
    counter = position.to(tl.uint64)
    k0, k1 = key & 0xFFFFFFFF, key >> 32
    c0, c1 = counter & 0xFFFFFFFF, counter >> 32
    c2 = counter * 0
    c3 = c2
    for _ in tl.static_range(10):
        first, second = c0 * 0xD2511F53, c2 * 0xCD9E8D57
        c0 = (second >> 32) ^ c1 ^ k0
        c1 = second & 0xFFFFFFFF
        c2 = (first >> 32) ^ c3 ^ k1
        c3 = first & 0xFFFFFFFF
        k0 = (k0 + 0x9E3779B9) & 0xFFFFFFFF
        k1 = (k1 + 0xBB67AE85) & 0xFFFFFFFF
    bits = ((c1 << 32) | c0) >> 11
    return bits.to(tl.int64).to(tl.float64) * 1.1102230246251565e-16  # 2**-53
