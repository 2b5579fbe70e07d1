"""Forbid tokens by a packed bitmask. Owns the op's contract; knows no grammar."""

import torch

from .. import implementation
from .torch_cpu import apply_mask_cpu


def apply_mask(
    logits: torch.Tensor, masks: torch.Tensor, places: torch.Tensor | None = None
) -> None:
    """Set `logits[r, t]` to -inf, in place, where bit `t % 32` of `masks[r, t // 32]` is clear.

    logits: fp32 [R, V]; masks: int32 [R, ceil(V / 32)]. Bits from V on are ignored. places: int64
    [R], where masks is a table: row r's mask is then masks[places[r]].
    """
    if places is not None:
        if places.dtype is not torch.int64 or places.shape != logits.shape[:1]:
            raise ValueError(
                f"apply_mask: places must be int64 [{len(logits)}], got {places.dtype} "
                f"{list(places.shape)}"
            )
    if logits.dtype is not torch.float32 or masks.dtype is not torch.int32:
        raise TypeError(
            f"apply_mask: logits must be float32 and masks int32, got {logits.dtype}, {masks.dtype}"
        )
    rows, vocab = logits.shape
    num_masks = rows if places is None else len(masks)
    if masks.shape != (num_masks, (vocab + 31) // 32):
        raise ValueError(
            f"apply_mask: masks {tuple(masks.shape)} do not fit logits {tuple(logits.shape)}"
        )
    if implementation.is_triton(logits):
        from .triton_kernel import apply_mask_triton

        apply_mask_triton(logits, masks, places)
        return
    apply_mask_cpu(logits, masks if places is None else masks[places])
