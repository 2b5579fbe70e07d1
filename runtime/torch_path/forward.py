"""What one forward pass reads besides the weights and the KV cache. Made by the runner."""

from dataclasses import dataclass

import torch

from ...kernels.paged_attention import AttentionPlan


@dataclass(frozen=True)
class ForwardInputs:
    """The new tokens of all rows, one row after the other. T tokens, R rows of logits wanted."""

    token_ids: torch.Tensor  # int64 [T]
    positions: torch.Tensor  # int64 [T], each token's position in its own row
    slots: torch.Tensor  # int64 [T], where each token's key and value go: page * page_size + offset
    attention: AttentionPlan
    logit_rows: torch.Tensor  # int64 [R], indices into the T tokens
