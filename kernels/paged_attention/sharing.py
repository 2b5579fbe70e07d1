"""Which splits of a step's short rows are computed together, where rows share leading pages.

Owns: who may share, on a GPU. A row's parts are what they would be without sharing; the pass that
computes them is `shared_prefix_attention`'s. Plain numpy.
"""

import numpy as np
from numpy.typing import NDArray

from ..shared_prefix_attention.plan import MIN_SAVED_TOKENS, SharedWork, plan_shared_work
from .work_list import Cut, Int64s

# Blocks of one tile of the shared pass: with a second one keys are loaded for half as much, and
# both still fit in registers up to heads of 256 (four don't, from 128 on).
NUM_BLOCKS = 2


def share(
    queries: Int64s,
    contexts: Int64s,
    page_table: NDArray[np.int32],
    page_size: int,
    cut: Cut,
) -> SharedWork | None:
    """None where too little is shared for a pass of its own.

    Short rows that see position 0 from all of their tokens may share: all splits before their first
    new token, and so always have a split that is their own.
    """
    if cut.split % page_size or len(queries) < 2:
        return None
    block_tokens = cut.short_tile // cut.group
    may = (queries > 0) & (queries <= block_tokens)
    if cut.window is not None:
        may &= contexts <= cut.window
    limits = np.where(may, (contexts - queries) // cut.split, 0)
    least = -(-MIN_SAVED_TOKENS // cut.split)
    if int(limits.sum() - limits.max()) < least:
        return None
    return plan_shared_work(
        queries,
        limits,
        page_table,
        pages_per_split=cut.split // page_size,
        tile_tokens=NUM_BLOCKS * block_tokens,
        min_saved_splits=least,
    )
