"""Token ids as bytes: the form in which the tree compares, hashes and sorts them.

Four bytes a token, in the machine's own order. Bytes compare with one memcmp and hash in one
call, where a list of integers would cost an object per token. Their order is not the order of the
token ids, and need not be: any fixed order puts the strings with the longest common prefix next
to each other, and a common prefix of whole tokens is the common prefix of bytes, rounded down.
"""

from array import array
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

TOKEN_BYTES: Final = 4

# Fast as an int32 NumPy array or an array("i"); any other sequence of integers is converted, once
# per call.
TokenIds = Sequence[int] | NDArray[np.integer[Any]]


def encode(tokens: TokenIds) -> bytes:
    """The key of a one-dimensional run of token ids: 4 bytes each. Ids must fit 32 signed bits."""
    if isinstance(tokens, np.ndarray):
        return _encode_numpy(tokens)
    if isinstance(tokens, array) and tokens.typecode == "i":
        return tokens.tobytes()
    # array("i", b"...") would read raw memory instead of one integer per byte.
    assert not isinstance(tokens, (bytes, bytearray, str)), f"token ids expected, got {tokens!r}"
    return array("i", tokens).tobytes()


def _encode_numpy(tokens: NDArray[np.integer[Any]]) -> bytes:
    assert tokens.ndim == 1, f"token ids are one-dimensional, got shape {tokens.shape}"
    assert tokens.dtype.kind in "iu", f"token ids are integers, got {tokens.dtype}"
    ids = tokens.astype(np.int32, copy=False)
    assert ids is tokens or bool((ids == tokens).all()), "a token id does not fit 32 signed bits"
    return ids.tobytes()


def common_bytes(a: bytes, b: bytes) -> int:
    """Length of the common prefix of two keys, in bytes: halving, so that memcmp does the work."""
    low, high = 0, min(len(a), len(b))
    while low < high:
        middle = (low + high + 1) // 2
        if a[low:middle] == b[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low
