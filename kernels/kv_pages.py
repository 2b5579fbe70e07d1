"""One layer's keys and values in pages, in any of the formats that a KV cache may have.

Owns: that layout and its checks. Knows no request and no page table.
"""

from dataclasses import dataclass

import torch

QUANTIZED = (torch.int8, torch.float8_e4m3fn)


@dataclass(frozen=True)
class KVPages:
    """k, v: [P, page_size, Hkv, D], contiguous, of one dtype: float32, float16, bfloat16, or, with
    scales, int8 or float8_e4m3fn.

    k_scales, v_scales: float32 [P, page_size, Hkv], contiguous: a value is the stored number times
    its token's and head's scale. None where the numbers are the values.
    """

    k: torch.Tensor
    v: torch.Tensor
    k_scales: torch.Tensor | None = None
    v_scales: torch.Tensor | None = None

    def __post_init__(self) -> None:
        if self.k.dim() != 4 or self.k.shape != self.v.shape or self.k.dtype is not self.v.dtype:
            raise ValueError(
                f"KVPages: k {tuple(self.k.shape)} {self.k.dtype} and v {tuple(self.v.shape)} "
                f"{self.v.dtype} differ"
            )
        is_quantized = self.k.dtype in QUANTIZED
        for name, scales in (("k_scales", self.k_scales), ("v_scales", self.v_scales)):
            if (scales is not None) != is_quantized:
                raise ValueError(f"KVPages: {name} go with pages of int8 and float8, and with them")
            if scales is not None and (
                scales.shape != self.k.shape[:3] or scales.dtype is not torch.float32
            ):
                raise ValueError(
                    f"KVPages: {name} {tuple(scales.shape)} {scales.dtype} do not fit pages "
                    f"{tuple(self.k.shape)}"
                )

    @property
    def page_size(self) -> int:
        return self.k.shape[1]

    @property
    def num_kv_heads(self) -> int:
        return self.k.shape[2]

    @property
    def head_dim(self) -> int:
        return self.k.shape[3]

    def tensors(self) -> tuple[torch.Tensor, ...]:
        """All that there is, each with the pages as first dimension."""
        return tuple(t for t in (self.k, self.v, self.k_scales, self.v_scales) if t is not None)
