"""Building blocks of the models: a linear map in the layout that its device multiplies fastest.

Knows no architecture and no checkpoint.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F

# The row count that oneDNN is told to expect. On the CPUs tried, one layout serves 1 to 1,024 rows.
_EXPECTED_ROWS = 32


def _can_pack(weight: torch.Tensor) -> bool:
    """Whether oneDNN multiplies by a reordered copy of this weight.

    Measured on AVX512-BF16: twice as fast as `F.linear` up to 16 rows, equal from 256 on.
    """
    has_onednn = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    if weight.device.type != "cpu" or not has_onednn:
        return False
    if weight.dtype is torch.bfloat16:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return weight.dtype is torch.float32


class Linear:
    """`x @ weight.T + bias` for x [T, inputs]; weight [outputs, inputs], bias [outputs].

    Where oneDNN has a faster layout, only the reordered weight is kept: the caller should drop its
    own. `pack=False` keeps the given tensor itself, for a weight that something else reads too.
    """

    def __init__(
        self, weight: torch.Tensor, bias: torch.Tensor | None = None, *, pack: bool = True
    ) -> None:
        self._bias = bias
        self._packed = pack and _can_pack(weight)
        self._weight = (
            torch.ops.mkldnn._reorder_linear_weight(weight, _EXPECTED_ROWS)
            if self._packed
            else weight
        )

    @property
    def is_copy(self) -> bool:
        """Whether it holds a reordered copy and not the given tensor."""
        return self._packed

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        if self._packed:
            out: torch.Tensor = torch.ops.mkldnn._linear_pointwise(
                x, self._weight, self._bias, "none", [], ""
            )
            return out
        return F.linear(x, self._weight, self._bias)

    def add_to(self, residual: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """`residual + self(x)`, a new tensor, in one pass where the device has it."""
        if self._packed:
            out: torch.Tensor = torch.ops.mkldnn._linear_pointwise.binary(
                x, residual, self._weight, self._bias, "add"
            )
            return out
        return F.linear(x, self._weight, self._bias).add_(residual)


def fuse(parts: Sequence[torch.Tensor]) -> torch.Tensor:
    """Weights or biases that read the same input, stacked along their outputs."""
    return torch.cat(list(parts), dim=0)
