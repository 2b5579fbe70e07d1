"""The keys and values of all cached tokens, by layer and page. Knows no request, row or tree."""

import math
from typing import Final

import numpy as np
import torch

from ...kernels.copy_pages import copy_pages
from ...kernels.kv_pages import QUANTIZED, KVPages

_SCALE: Final = torch.float32


class KVCache:
    """`layers[number]`: that layer's pages, zeroed. `dtype`: any that `KVPages` may have; the
    quantised ones bring their scales.

    Written only by the runner, on its thread.
    """

    def __init__(
        self,
        num_layers: int,
        num_pages: int,
        page_size: int,
        num_kv_heads: int,
        head_dim: int,
        dtype: torch.dtype,
        device: torch.device | str = "cpu",
    ) -> None:
        if num_pages < 1 or page_size < 1:
            raise ValueError(f"KVCache: {num_pages} pages of {page_size} tokens")
        self.num_pages = num_pages
        self.page_size = page_size
        self.dtype = dtype
        heads = (num_layers, num_pages, page_size, num_kv_heads)
        # Keys, values, and their scales; all layers in one tensor each, so that a page is copied in
        # all of them at once.
        self._stacks = [_zeros((*heads, head_dim), dtype, device) for _ in range(2)]
        if dtype in QUANTIZED:
            self._stacks += [_zeros(heads, _SCALE, device) for _ in range(2)]
        self.layers = tuple(
            KVPages(*(stack[number] for stack in self._stacks)) for number in range(num_layers)
        )

    @staticmethod
    def bytes_per_token(
        num_layers: int, num_kv_heads: int, head_dim: int, dtype: torch.dtype
    ) -> int:
        """Bytes of keys and values of one token over all layers, to size the pool."""
        scale = _SCALE.itemsize if dtype in QUANTIZED else 0
        return 2 * num_layers * num_kv_heads * (head_dim * dtype.itemsize + scale)

    def copy(self, sources: torch.Tensor, targets: torch.Tensor) -> None:
        """Copy whole pages in every layer; int64 [n] each, see `copy_pages` for what is allowed."""
        for stack in self._stacks:
            copy_pages(stack, sources, targets)


def _zeros(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device | str) -> torch.Tensor:
    size = math.prod(shape) * dtype.itemsize
    if torch.device(device).type != "cpu":
        zeros = torch.zeros(size, dtype=torch.uint8, device=device)
    else:
        # Zeroed by the system when first touched: a large pool costs nothing until it is used.
        zeros = torch.from_numpy(np.zeros(size, np.uint8))
    return zeros.view(dtype).view(shape)
