"""Log-probabilities of chosen tokens and of the likeliest ones. Owns the op's contract; knows no
sampling.
"""

from typing import NamedTuple

import torch

from .. import implementation
from .torch_cpu import token_logprobs_cpu


class Logprobs(NamedTuple):
    """of_tokens: fp32 [E]; top_ids: int64 [E, K] and top_values: fp32 [E, K], the likeliest tokens,
    best first; on a GPU the lowest id of equals first."""

    of_tokens: torch.Tensor
    top_ids: torch.Tensor
    top_values: torch.Tensor


def token_logprobs(
    logits: torch.Tensor, rows: torch.Tensor, tokens: torch.Tensor, top: int
) -> Logprobs:
    """Log-probabilities of `tokens[e]` under row `rows[e]` of the logits, and of that row's `top`
    likeliest tokens: K is `top`, or V where that is less.

    logits: fp32 [R, V], not changed; rows, tokens: int64 [E], in any order.
    """
    if logits.dtype is not torch.float32:
        raise TypeError(f"token_logprobs: logits must be float32, got {logits.dtype}")
    if rows.shape != tokens.shape or rows.dim() != 1:
        raise ValueError(
            f"token_logprobs: rows are {tuple(rows.shape)} for tokens {tuple(tokens.shape)}"
        )
    top = min(top, logits.shape[1])
    if implementation.is_triton(logits):
        from .triton_kernel import token_logprobs_triton

        return Logprobs(*token_logprobs_triton(logits, rows, tokens, top))
    return Logprobs(*token_logprobs_cpu(logits, rows, tokens, top))
