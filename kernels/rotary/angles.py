"""Frequencies of every RoPE variant and their angles by position, in fp32. Knows no checkpoint
format.
"""

import math
from typing import Literal, assert_never

import torch


class RotaryAngles:
    """The frequencies of one checkpoint's rotation, and the cosines and sines of any positions.

    kind: `default`; `linear` (all frequencies divided by `factor`); `llama3` (long wavelengths
    divided by `factor`, short ones kept, a linear blend between); `yarn` (by-part interpolation
    over `beta_slow` .. `beta_fast` turns, cos and sin multiplied by `attention_factor`).
    `freq_factors`: D / 2 divisors of the frequencies, applied last.
    """

    def __init__(
        self,
        head_dim: int,
        *,
        theta: float = 10_000.0,
        kind: Literal["default", "linear", "llama3", "yarn"] = "default",
        factor: float = 1.0,
        low_freq_factor: float = 1.0,
        high_freq_factor: float = 4.0,
        original_context: int = 8_192,
        beta_fast: float = 32.0,
        beta_slow: float = 1.0,
        attention_factor: float = 1.0,
        freq_factors: tuple[float, ...] | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        plain = 1.0 / theta ** (torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim)
        self._scale = 1.0
        match kind:
            case "default":
                frequencies = plain
            case "linear":
                frequencies = plain / factor
            case "llama3":
                frequencies = _llama3(
                    plain, factor, low_freq_factor, high_freq_factor, original_context
                )
            case "yarn":
                frequencies = _yarn(
                    plain, head_dim, theta, factor, beta_fast, beta_slow, original_context
                )
                self._scale = attention_factor
            case other:
                assert_never(other)
        if freq_factors is not None:
            frequencies = frequencies / torch.tensor(freq_factors, dtype=torch.float32)
        self.frequencies = frequencies.to(device)  # radians per position, fp32 [D / 2]

    def at(self, positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """cos and signed sin (see `rotate`), fp32 [T, D], for int64 positions [T].

        Worked out for each step's positions: a table over a long context would take 100 MB and
        more.
        """
        angles = torch.outer(positions.to(torch.float32), self.frequencies)
        cos, sin = angles.cos() * self._scale, angles.sin() * self._scale
        return torch.cat((cos, cos), dim=1), torch.cat((-sin, sin), dim=1)


def _llama3(
    frequencies: torch.Tensor, factor: float, low: float, high: float, context: int
) -> torch.Tensor:
    """Keep frequencies that turn more than `high` times in `context`, divide those below `low`
    turns, blend between.
    """
    turns = context * frequencies / (2 * math.pi)
    kept = ((turns - low) / (high - low)).clamp(0, 1)
    return kept * frequencies + (1 - kept) * frequencies / factor


def _yarn(
    frequencies: torch.Tensor,
    head_dim: int,
    theta: float,
    factor: float,
    beta_fast: float,
    beta_slow: float,
    context: int,
) -> torch.Tensor:
    """Interpolate the dimensions that turn less than `beta_slow` times, keep those above
    `beta_fast`, ramp between.
    """

    def dimension(turns: float) -> float:
        return head_dim * math.log(context / (turns * 2 * math.pi)) / (2 * math.log(theta))

    first = max(math.floor(dimension(beta_fast)), 0)
    last = min(math.ceil(dimension(beta_slow)), head_dim - 1)
    span = max(last - first, 0.001)  # equal bounds would divide by zero
    index = torch.arange(len(frequencies), dtype=torch.float32)
    divided = ((index - first) / span).clamp(0, 1)
    return divided * frequencies / factor + (1 - divided) * frequencies
