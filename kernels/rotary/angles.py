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
        # Turned backwards in the first half: the cosines are the same, the sines negated.
        signed = np.concatenate((-frequencies, frequencies))
        self._frequencies = torch.from_numpy(signed).to(device)
        self._scale = scale

    def at(self, positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """cos and signed sin (see `rotate`), fp32 [T, D], for int64 positions [T].

        Worked out for each step's positions, in three dispatches: a table over a long context
        would take 100 MB and more. Angles are rounded to fp32 before, as in transformers.
        """
        angles = torch.outer(positions, self._frequencies)
        cos, sin = angles.cos(), angles.sin()
        if self._scale != 1.0:
            cos, sin = cos * self._scale, sin * self._scale
        return cos, sin
