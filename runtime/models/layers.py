"""Building blocks of the models: linear maps in the layout that their device multiplies fastest.

Knows no architecture and no checkpoint.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F

# The row count that oneDNN is told to expect. On the CPUs tried, one layout serves 1 to 1,024 rows.
_EXPECTED_ROWS = 32
_FREQUENT_TOKENS = 2_048


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

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        if self._packed:
            out: torch.Tensor = torch.ops.mkldnn._linear_pointwise(
                x, self._weight, self._bias, "none", [], ""
            )
            return out
        return F.linear(x, self._weight, self._bias)


class Head:
    """Logits fp32 [R, vocab] of hidden states [R, hidden]; weight [vocab, hidden].

    In bfloat16 the product is rounded to 8 bits, 0.125 for a logit of 20: half of the whole
    arithmetic's error. So the reordered copy holds the weight less a typical row, and what was
    taken off every logit of a row is added back in float32: the logits that matter then lie near
    zero. Measured on SmolLM2-135M: mean KL to float32 5.3e-4 instead of 9.4e-4, at no cost.
    """

    def __init__(self, weight: torch.Tensor, *, pack: bool = True) -> None:
        self.is_copy = pack and _can_pack(weight)
        self._typical: torch.Tensor | None = None
        if self.is_copy and weight.dtype is torch.bfloat16:
            # Low ids are the frequent tokens, the ones with large logits, in BPE vocabularies.
            self._typical = weight[:_FREQUENT_TOKENS].float().mean(dim=0)
            chunks = torch.split(weight, 8_192)  # never the whole matrix in fp32
            weight = torch.cat([(rows.float() - self._typical).bfloat16() for rows in chunks])
        self._linear = Linear(weight, pack=pack)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        logits = self._linear(x)
        if self._typical is None:
            return logits.float()
        return torch.add(logits, (x.float() @ self._typical).unsqueeze(1))


def fuse(parts: Sequence[torch.Tensor]) -> torch.Tensor:
    """Weights or biases that read the same input, stacked along their outputs."""
    return parts[0] if len(parts) == 1 else torch.cat(list(parts), dim=0)
