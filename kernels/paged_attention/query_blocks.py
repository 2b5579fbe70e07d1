"""The Triton kernel's plan: which queries each program computes. Knows lengths only."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray


@dataclass(frozen=True)
class QueryBlocks:
    """Program i computes up to `block_queries` queries of row `rows[i]`, from its `starts[i]`-th
    on.

    All tensors int32 on the device; the last three are by row.
    """

    block_queries: int
    rows: torch.Tensor  # [N]
    starts: torch.Tensor  # [N]
    first_tokens: torch.Tensor  # [B]
    query_lens: torch.Tensor  # [B]
    context_lens: torch.Tensor  # [B]


def plan_query_blocks(
    queries: NDArray[np.int64],
    contexts: NDArray[np.int64],
    group: int,
    device: torch.device | str,
) -> QueryBlocks:
    """Cut every row into blocks of queries that, times the group, fill one matrix tile."""
    tile = 16 if queries.max() == 1 else 64  # rows of the tile; 16 is the tensor cores' least
    block_queries = max(1, tile // group)
    counts = -(-queries // block_queries)
    rows = np.repeat(np.arange(len(queries)), counts)
    starts = (np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)) * block_queries

    def on_device(values: NDArray[np.int64]) -> torch.Tensor:
        return torch.from_numpy(values.astype(np.int32)).to(device)

    return QueryBlocks(
        block_queries=block_queries,
        rows=on_device(rows),
        starts=on_device(starts),
        first_tokens=on_device(np.cumsum(queries) - queries),
        query_lens=on_device(queries),
        context_lens=on_device(contexts),
    )
