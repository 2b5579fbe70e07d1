"""Draw tokens from logits, and the uniform numbers that decide the draws.

Owns the op's contract: the order of the limits and the meaning of a uniform. Knows no request.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .numpy_cpu import draw_row
from .philox import uniforms
from .rows import DrawRows

if TYPE_CHECKING:  # the native sampler beside it runs in processes without torch
    import torch

__all__ = ["DrawRows", "draw", "sample", "uniforms"]


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

    from .. import implementation
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

    if implementation.is_triton(logits):
        from .triton_kernel import draw_triton

        return draw_triton(
            logits, temperature.float(), top_k, top_p.float(), min_p.float(), uniforms=uniforms
        )
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


def draw(logits: torch.Tensor, rows: DrawRows) -> torch.Tensor:
    """One token id for each row, int64 [R]: `sample` of the logits that each row's mask allows, by
    the uniform number of its stream and position.

    logits: fp32 [R, V], not changed. On a GPU nothing waits: what is launched depends on shapes,
    and on which of the masks and the limits there are at all.
    """
    import torch

    from .. import implementation

    if logits.dtype is not torch.float32:
        raise TypeError(f"draw: logits must be float32, got {logits.dtype}")
    for name in ("temperature", "top_k", "top_p", "min_p", "streams", "positions", "places"):
        column = getattr(rows, name)
        if column is not None and column.shape != logits.shape[:1]:
            raise ValueError(
                f"draw: {name} is {tuple(column.shape)} for {logits.shape[0]} rows of logits"
            )
    if (rows.masks is None) != (rows.places is None):
        raise ValueError("draw: masks and places come together")
    if rows.masks is not None and rows.masks.shape[1:] != ((logits.shape[1] + 31) // 32,):
        raise ValueError(
            f"draw: masks {tuple(rows.masks.shape)} do not fit logits {tuple(logits.shape)}"
        )
    if implementation.is_triton(logits):
        from .triton_kernel import draw_triton

        return draw_triton(
            *(logits, rows.temperature, rows.top_k, rows.top_p, rows.min_p),
            streams=rows.streams,
            positions=rows.positions,
            masks=rows.masks,
            places=rows.places,
            limited=rows.is_limited,
        )
    from .reference import draw_rows_reference

    return draw_rows_reference(logits, rows)
