"""The angles of a rotation by position, in fp32. Knows no checkpoint and no RoPE variant."""

import numpy as np
import torch
from numpy.typing import NDArray


class RotaryAngles:
    """The cosines and sines of any positions.

    frequencies: radians per position, float32 [D / 2]; `scale`: a factor on both.
    """

    def __init__(
        self,
        frequencies: NDArray[np.float32],
        scale: float = 1.0,
        device: torch.device | str = "cpu",
    ) -> None:
        self._frequencies = torch.from_numpy(frequencies).to(device)
        self._scale = scale

    def at(self, positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """cos and signed sin (see `rotate`), fp32 [T, D], for int64 positions [T].

        Worked out for each step's positions: a table over a long context would take 100 MB and
        more.
        """
        angles = torch.outer(positions.to(torch.float32), self._frequencies)
        cos, sin = angles.cos() * self._scale, angles.sin() * self._scale
        return torch.cat((cos, cos), dim=1), torch.cat((-sin, sin), dim=1)
