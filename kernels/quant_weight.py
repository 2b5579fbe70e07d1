"""A matrix of small integers in groups that share a scale, and the ways to one.

Owns: the layout that the kernels read, and the rounding of weights to it. Knows no file and no
product.
"""

from dataclasses import dataclass
from typing import Final, Literal

import torch

GROUP: Final = 32  # inputs of one output that share a scale
Bits = Literal[4, 8]
# Bytes of one group's scales in a checkpoint's block, in front of its numbers.
_HEADS: Final = {"Q8_0": 2, "Q4_0": 2, "Q4_1": 4}


@dataclass(frozen=True)
class QuantWeight:
    """A matrix [outputs, inputs]: `scale * number + minimum` by groups of 32 inputs.

    numbers: int32 [outputs, inputs * bits / 32], the inputs of a row in order from the lowest bits
    of the first word on. 8 bits: number + 128. 4 bits: 0..15. So a row is contiguous, a group of it
    one or two 16-byte loads, and a warp reads 512 bytes side by side.
    scales: float16 [outputs, inputs / 32]. minima: the same, or None: 0 for 8 bits, -8 scales for
    4. GGUF's Q8_0, Q4_0 and Q4_1 are this without loss.
    """

    numbers: torch.Tensor
    scales: torch.Tensor
    minima: torch.Tensor | None
    bits: Bits

    def __post_init__(self) -> None:
        outputs, groups = self.scales.shape
        if self.numbers.shape != (outputs, groups * self.bits) or not groups:
            raise ValueError(
                f"QuantWeight: numbers {tuple(self.numbers.shape)} do not fit scales "
                f"{tuple(self.scales.shape)} of {self.bits} bits"
            )
        if self.minima is not None and self.minima.shape != self.scales.shape:
            raise ValueError(
                f"QuantWeight: minima {tuple(self.minima.shape)} do not fit scales "
                f"{tuple(self.scales.shape)}"
            )

    @property
    def outputs(self) -> int:
        return self.scales.shape[0]

    @property
    def inputs(self) -> int:
        return self.scales.shape[1] * GROUP

    @property
    def nbytes(self) -> int:
        minima = self.minima.nbytes if self.minima is not None else 0
        return self.numbers.nbytes + self.scales.nbytes + minima


def from_blocks(rows: torch.Tensor, block_format: str) -> QuantWeight:
    """A checkpoint's own blocks, without loss. rows: uint8 [outputs, row_bytes]; the format is
    Q8_0, Q4_0 or Q4_1."""
    head, bits = _HEADS[block_format], 8 if block_format == "Q8_0" else 4
    blocks = rows.view(len(rows), -1, head + GROUP * bits // 8)
    heads = blocks[..., :head].contiguous().view(torch.float16)
    packed = blocks[..., head:]
    if bits == 8:
        return _pack(packed ^ 128, heads[..., 0], None, 8)  # from two's complement
    numbers = torch.cat((packed & 15, packed >> 4), dim=-1)  # the second half lies above the first
    return _pack(numbers, heads[..., 0], heads[..., 1] if head == 4 else None, 4)


def quantize(values: torch.Tensor, bits: Bits) -> QuantWeight:
    """Round a matrix of floats [outputs, inputs], as the native CPU step does: 8 bits symmetric,
    the largest magnitude being 127; 4 bits from a group's smallest value to its largest."""
    groups = values.float().view(len(values), -1, GROUP)
    if bits == 8:
        scales = (groups.abs().amax(dim=-1) / 127).half()
        numbers = _round(groups, scales, -127, 127) + 128
        return _pack(numbers.to(torch.uint8), scales, None, 8)
    low, high = groups.amin(dim=-1), groups.amax(dim=-1)
    scales, minima = ((high - low) / 15).half(), low.half()
    numbers = _round(groups - minima.float().unsqueeze(-1), scales, 0, 15)
    return _pack(numbers.to(torch.uint8), scales, minima, 4)


def stack(parts: list[QuantWeight]) -> QuantWeight:
    """Matrices of equal inputs and bits, one's outputs below the other's."""
    if len(parts) == 1:
        return parts[0]
    minima = None
    if any(part.minima is not None for part in parts):
        # -8 scales are exact in float16, but for scales that no weights have.
        minima = torch.cat([_minima(part) for part in parts])
    return QuantWeight(
        torch.cat([part.numbers for part in parts]),
        torch.cat([part.scales for part in parts]),
        minima,
        parts[0].bits,
    )


def _minima(weight: QuantWeight) -> torch.Tensor:
    return -8 * weight.scales if weight.minima is None else weight.minima


def _round(groups: torch.Tensor, scales: torch.Tensor, low: int, high: int) -> torch.Tensor:
    """To the nearest number, ties to even; 0 where the scale is none."""
    wide = scales.float().unsqueeze(-1)
    numbers = torch.where(wide > 0, groups / wide, 0)
    return numbers.round_().clamp_(low, high)


def _pack(
    numbers: torch.Tensor, scales: torch.Tensor, minima: torch.Tensor | None, bits: Bits
) -> QuantWeight:
    """numbers: uint8 [outputs, groups, 32]."""
    if bits == 4:
        numbers = numbers[..., ::2] | numbers[..., 1::2] << 4
    words = numbers.reshape(len(numbers), -1).contiguous().view(torch.int32)
    return QuantWeight(
        words, scales.contiguous(), None if minima is None else minima.contiguous(), bits
    )
