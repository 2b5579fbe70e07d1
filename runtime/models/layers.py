"""Building blocks of the models: embeddings, and linear maps in the layout that their device
multiplies fastest.

Knows no architecture and no checkpoint.
"""

from collections.abc import Callable, Sequence
from functools import partial

import torch
import torch.nn.functional as F

from ...kernels.fp8_linear import Fp8Weight, fp8_linear
from ...kernels.quant_linear import quant_linear
from ...kernels.quant_rows import quant_rows
from ...kernels.quant_weight import QuantWeight
from .matrices import Matrix

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


Product = Callable[[torch.Tensor], torch.Tensor]


def _dense(weight: torch.Tensor, bias: torch.Tensor | None, *, pack: bool) -> Product:
    if not (pack and _can_pack(weight)):
        return partial(F.linear, weight=weight, bias=bias)
    packed = torch.ops.mkldnn._reorder_linear_weight(weight, _EXPECTED_ROWS)
    multiply = torch.ops.mkldnn._linear_pointwise

    def product(x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = multiply(x, packed, bias, "none", [], "")
        return out

    return product


class Linear:
    """`x @ weight.T + bias` for x [T, inputs]; weight [outputs, inputs] in any form, bias
    [outputs].

    Where oneDNN has a faster layout, only the reordered weight is kept: the caller should drop its
    own. `pack=False` keeps the given tensor itself, for a weight that something else reads too.
    """

    def __init__(
        self, weight: Matrix, bias: torch.Tensor | None = None, *, pack: bool = True
    ) -> None:
        self.nbytes = weight.nbytes
        self._product: Product
        if isinstance(weight, QuantWeight):
            self._product = partial(quant_linear, weight=weight, bias=bias)
        elif isinstance(weight, Fp8Weight):
            self._product = partial(fp8_linear, weight=weight, bias=bias)
        else:
            self._product = _dense(weight, bias, pack=pack)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return self._product(x)


class Embedding:
    """Rows of a matrix [vocab, hidden], in fp32: [T, hidden] for token ids [T]."""

    def __init__(self, weight: Matrix) -> None:
        if isinstance(weight, Fp8Weight):
            raise TypeError("Embedding: e4m3 has too few digits for it")
        self.nbytes = weight.nbytes
        self._weight = weight

    def __call__(self, ids: torch.Tensor) -> torch.Tensor:
        if isinstance(self._weight, QuantWeight):
            return quant_rows(self._weight, ids, torch.float32)
        return F.embedding(ids, self._weight).float()


class Head:
    """Logits fp32 [R, vocab] of hidden states [R, hidden]; weight [vocab, hidden].

    In bfloat16 the product is rounded to 8 bits, 0.125 for a logit of 20: half of the whole
    arithmetic's error. So the reordered copy holds the weight less a typical row, and what was
    taken off every logit of a row is added back in float32: the logits that matter then lie near
    zero. Measured on SmolLM2-135M: mean KL to float32 5.3e-4 instead of 9.4e-4, at no cost.
    """

    def __init__(self, weight: Matrix, *, pack: bool = True) -> None:
        self.nbytes = weight.nbytes
        self.is_copy = isinstance(weight, torch.Tensor) and pack and _can_pack(weight)
        self._typical: torch.Tensor | None = None
        if isinstance(weight, QuantWeight):
            self._linear: Product = partial(quant_linear, weight=weight, dtype=torch.float32)
            return
        if isinstance(weight, torch.Tensor) and self.is_copy and weight.dtype is torch.bfloat16:
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
