"""apply_mask on the GPU: writes only the forbidden tokens, reads no logits."""

import torch
import triton
import triton.language as tl

_BLOCK = 2_048


@triton.jit
def _apply_mask(logits, masks, places, vocab, mask_stride, row_stride, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    place = row
    if places is not None:
        place = tl.load(places + row)
    token = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = token < vocab
    word = tl.load(masks + place * mask_stride + token // 32, mask=inside, other=-1)
    forbidden = ((word >> (token % 32)) & 1) == 0
    tl.store(logits + row * row_stride + token, float("-inf"), mask=inside & forbidden)


def apply_mask_triton(
    logits: torch.Tensor, masks: torch.Tensor, places: torch.Tensor | None = None
) -> None:
    """Shapes as in `apply_mask`; each row of logits and of masks is contiguous."""
    rows, vocab = logits.shape
    if rows:
        grid = (rows, triton.cdiv(vocab, _BLOCK))
        _apply_mask[grid](
            logits, masks, places, vocab, masks.stride(0), logits.stride(0), BLOCK=_BLOCK
        )
