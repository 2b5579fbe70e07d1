"""Which tokens top-k, top-p and min-p keep, sorting the vocabulary only at need.

Ranks are by logit, then by token id, so that equal logits at a limit are cut in id order.
"""

import torch

# Ranks looked at first for top-p; a row whose probability is spread wider is sorted in full.
_CANDIDATES = 1_024


def drop_unkept(
    weights: torch.Tensor,
    logits: torch.Tensor,
    top_k: torch.Tensor,
    top_p: torch.Tensor,
    min_p: torch.Tensor,
) -> None:
    """Set the weights of tokens outside the limits of `sample` to zero, in place.

    weights: [R, V], proportional to probability, the largest 1; logits: [R, V]; the rest [R].
    """
    vocab = logits.shape[1]
    # Before min_p lowers the sum that top_p is measured against.
    ranked = torch.nonzero(((top_k > 0) & (top_k < vocab)) | (top_p < 1)).flatten()
    if len(ranked):
        ranks = torch.where(top_k > 0, top_k, vocab).clamp(max=vocab)
        kept = _keep_ranked(weights[ranked], logits[ranked], ranks[ranked], top_p[ranked])
        weights[ranked] = weights[ranked].masked_fill_(~kept, 0.0)
    if (min_p > 0).any():
        weights.masked_fill_(weights < min_p.unsqueeze(1), 0.0)


def _keep_ranked(
    weights: torch.Tensor, logits: torch.Tensor, ranks: torch.Tensor, top_p: torch.Tensor
) -> torch.Tensor:
    """bool [R, V]: ranked below `ranks`, with at most `top_p` of the probability ranked before."""
    rows, vocab = logits.shape
    mass = weights.sum(dim=1, dtype=torch.float64) * top_p
    by_rank_only = top_p >= 1
    # int64 [R], how many ranks are kept; at least one. 0: not yet known.
    counts = torch.where(by_rank_only, ranks, 0)
    width = min(vocab, _CANDIDATES)
    open_rows = torch.nonzero(~by_rank_only).flatten()
    while len(open_rows):
        largest = torch.topk(weights[open_rows], width, dim=1).values.double()
        before = largest.cumsum(dim=1) - largest
        inside = (before <= mass[open_rows].unsqueeze(1)).sum(dim=1)
        known = (inside < width) | (ranks[open_rows] <= width) | (width == vocab)
        found = torch.minimum(inside, ranks[open_rows])
        counts[open_rows[known]] = found[known]
        open_rows = open_rows[~known]
        width = vocab
    return _first_ranks(logits, counts.clamp(min=1))


def _first_ranks(logits: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
    """bool [R, V]: the `counts[r]` largest logits of each row, the lower id first among equals."""
    sorted_values = torch.topk(logits, int(counts.max()), dim=1).values
    limit = sorted_values.gather(1, counts.unsqueeze(1) - 1)
    kept = logits >= limit
    surplus = kept.sum(dim=1) - counts
    tied = torch.nonzero(surplus > 0).flatten()
    if len(tied):
        at_limit = logits[tied] == limit[tied]
        room = at_limit.sum(dim=1) - surplus[tied]
        kept[tied] &= ~at_limit | (at_limit.cumsum(dim=1) <= room.unsqueeze(1))
    return kept
