"""The keys and values of all cached tokens, by layer and page. Knows no request, row or tree."""

import math

import numpy as np
import torch

from ..kernels.copy_pages import copy_pages
from ..kernels.kv_pages import KVPages


class KVCache:
    """`layers[number]`: that layer's pages, zeroed.

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
        page_shape = (num_pages, page_size, num_kv_heads, head_dim)

        def pages() -> torch.Tensor:
            if torch.device(device).type != "cpu":
                return torch.zeros(page_shape, dtype=dtype, device=device)
            # Zeroed by the system when first touched: a large pool costs nothing until it is used.
            size = math.prod(page_shape) * dtype.itemsize
            return torch.from_numpy(np.zeros(size, np.uint8)).view(dtype).view(page_shape)

        self.layers = tuple(KVPages(pages(), pages()) for _ in range(num_layers))

    @staticmethod
    def bytes_per_token(
        num_layers: int, num_kv_heads: int, head_dim: int, dtype: torch.dtype
    ) -> int:
        """Bytes of keys and values of one token over all layers, to size the pool."""
        return 2 * num_layers * num_kv_heads * head_dim * dtype.itemsize

    def copy(self, sources: torch.Tensor, targets: torch.Tensor) -> None:
        """Copy whole pages in every layer; int64 [n] each, see `copy_pages` for what is allowed."""
        for pages in self.layers:
            copy_pages(pages, sources, targets)
