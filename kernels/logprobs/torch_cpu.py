"""token_logprobs in torch's own ops: a partial selection in place of a sort."""

import torch


def token_logprobs_cpu(
    logits: torch.Tensor, rows: torch.Tensor, tokens: torch.Tensor, top: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Shapes as in `token_logprobs`; top is at most V."""
    wanted = logits[rows]
    norms = torch.logsumexp(wanted, dim=-1, keepdim=True)
    of_tokens = (wanted.gather(1, tokens.unsqueeze(1)) - norms).squeeze(1)
    values, ids = torch.topk(wanted, top, dim=-1)
    return of_tokens, ids, values - norms
