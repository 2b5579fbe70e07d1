"""Draw tokens from logits, and the uniform numbers that decide the draws.

Owns the op's contract: the order of the limits and the meaning of a uniform. Knows no request.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .numpy_cpu import draw_row
from .philox import uniforms

if TYPE_CHECKING:  # the native sampler beside it runs in processes without torch
    import torch

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
    measured on the whole distribution, as SGLang does: its rank (by logit, then id) is below top_k;
    the probability of the tokens ranked before it is at most top_p; its probability is at least
    min_p times the largest one. The draw is the inverse of the kept tokens' cumulative distribution
    in token-id order. A row without a finite logit takes the first of its largest ones.
    """
    import torch

    from .reference import draw_reference

    for name, values in (
        ("temperature", temperature),
        ("top_k", top_k),
        ("top_p", top_p),
        ("min_p", min_p),
        ("uniforms", uniforms),
    ):
        if values.shape != logits.shape[:1]:
            raise ValueError(
                f"sample: {name} is {tuple(values.shape)} for {logits.shape[0]} rows of logits"
            )
    if logits.dtype is not torch.float32:
        raise TypeError(f"sample: logits must be float32, got {logits.dtype}")

    tokens = logits.argmax(dim=-1)
    drawn = torch.nonzero(temperature > 0).flatten()
    if not len(drawn):
        return tokens
    limits = (temperature[drawn], top_k[drawn], top_p[drawn], min_p[drawn], uniforms[drawn])
    if logits.device.type != "cpu":
        tokens[drawn] = draw_reference(logits[drawn], *limits)
        return tokens
    rows = zip(drawn.tolist(), *(values.tolist() for values in limits), strict=True)
    for row, heat, k, p, floor, uniform in rows:
        tokens[row] = draw_row(logits[row].numpy(), int(tokens[row]), heat, k, p, floor, uniform)
    return tokens
