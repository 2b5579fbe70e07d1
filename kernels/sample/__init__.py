"""Draw tokens from logits, and the uniform numbers that decide the draws.

Owns the op's contract: the order of the limits and the meaning of a uniform. Knows no request.
"""

import torch

from .kept import drop_unkept
from .philox import uniforms

__all__ = ["sample", "uniforms"]


def sample(
    logits: torch.Tensor,
    temperature: torch.Tensor,
    top_k: torch.Tensor,
    top_p: torch.Tensor,
    min_p: torch.Tensor,
    uniforms: torch.Tensor,
) -> torch.Tensor:
    """One token id for each row, int64 [R]; rows do not influence one another.

    logits: fp32 [R, V], not changed; temperature, top_p, min_p: float [R]; top_k: int64 [R], -1
    keeps all; uniforms: float64 [R] in [0, 1).

    Temperature 0 takes the largest logit (the lowest id where several are equal). Otherwise logits
    are divided by the temperature, and a token is kept if it satisfies all three limits, each
    measured on the whole distribution: its rank (by logit, then id) is below top_k; the
    probability of the tokens ranked before it is at most top_p; its probability is at least min_p
    times the largest one. The draw is the inverse of the kept tokens' cumulative distribution in
    token-id order. A row without a finite logit takes the first of its largest ones.
    """
    rows, vocab = logits.shape
    for name, values in (
        ("temperature", temperature),
        ("top_k", top_k),
        ("top_p", top_p),
        ("min_p", min_p),
        ("uniforms", uniforms),
    ):
        if values.shape != (rows,):
            raise ValueError(f"sample: {name} is {tuple(values.shape)} for {rows} rows of logits")
    if logits.dtype is not torch.float32:
        raise TypeError(f"sample: logits must be float32, got {logits.dtype}")

    tokens = logits.argmax(dim=-1)
    drawn = torch.nonzero(temperature > 0).flatten()
    if not len(drawn):
        return tokens
    chosen = logits[drawn]
    heat = temperature[drawn].unsqueeze(1)
    largest = chosen.gather(1, tokens[drawn].unsqueeze(1))
    weights = torch.exp((chosen - largest) / heat)  # the largest is 1
    drop_unkept(weights, chosen, top_k[drawn], top_p[drawn], min_p[drawn])
    cumulative = weights.cumsum(dim=1, dtype=torch.float64)
    targets = uniforms[drawn].unsqueeze(1) * cumulative[:, -1:]
    picks = torch.searchsorted(cumulative, targets, right=True).squeeze(1)
    # Past the end only where nothing was finite.
    tokens[drawn] = torch.where(picks < vocab, picks, tokens[drawn])
    return tokens
