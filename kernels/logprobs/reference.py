"""The definition of token_logprobs in plain torch, in float64."""

import torch


def token_logprobs_reference(
    logits: torch.Tensor, rows: torch.Tensor, tokens: torch.Tensor, top: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Shapes as in `token_logprobs`; of equal logits the lowest id comes first."""
    logprobs = torch.log_softmax(logits[rows].double(), dim=-1)
    of_tokens = logprobs.gather(1, tokens.unsqueeze(1)).squeeze(1)
    values, ids = torch.sort(logprobs, dim=-1, descending=True, stable=True)
    return of_tokens.float(), ids[:, :top], values[:, :top].float()
