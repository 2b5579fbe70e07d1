"""adjust_logits on the GPU: tokens counted by whole-number atomics, one pass over the logits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import torch
import triton
import triton.language as tl

if TYPE_CHECKING:
    from . import Adjustments

_BLOCK: Final = 2_048  # tokens of a row; an estimate, not measured
_ITEMS: Final = 256  # counted tokens, or biases


@triton.jit(do_not_specialize=["num_prompt", "num_tokens"])
def _count(owners, tokens, num_prompt, num_tokens, counts, vocab, BLOCK: tl.constexpr):
    """Into counts: 1 for a token of the prompt, 2 for each occurrence in the output."""
    item = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = item < num_tokens
    owner = tl.load(owners + item, mask=inside, other=0).to(tl.int64)
    token = tl.load(tokens + item, mask=inside, other=0)
    place = counts + owner * vocab + token
    tl.atomic_or(place, 1, mask=item < num_prompt)
    tl.atomic_add(place, 2, mask=inside & (item >= num_prompt))


@triton.jit
def _penalize(
    logits, adjusted, which, counts, repetition, frequency, presence, vocab, row_stride,
    BLOCK: tl.constexpr, HAS_PENALTIES: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    token = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = token < vocab
    x = tl.load(logits + row * row_stride + token, mask=inside)
    if HAS_PENALTIES:
        number = tl.load(which + row).to(tl.int64)
        if number >= 0:
            count = tl.load(counts + number * vocab + token, mask=inside, other=0)
            factor = tl.load(repetition + number)
            scaled = tl.where(x > 0, tl.div_rn(x, factor), x * factor)
            x = tl.where(count > 0, scaled, x)
            occurrences = (count >> 1).to(tl.float32)
            amount = occurrences * tl.load(frequency + number) + tl.load(presence + number)
            x = tl.where(count > 1, x - amount, x)
    tl.store(adjusted + row * vocab + token, x, mask=inside)


@triton.jit(do_not_specialize=["num_biases"])
def _bias(adjusted, rows, tokens, values, num_biases, vocab, BLOCK: tl.constexpr):
    item = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = item < num_biases
    row = tl.load(rows + item, mask=inside, other=0).to(tl.int64)
    place = adjusted + row * vocab + tl.load(tokens + item, mask=inside, other=0)
    value = tl.load(values + item, mask=inside, other=0.0)
    tl.store(place, tl.load(place, mask=inside, other=0.0) + value, mask=inside)


def adjust_logits_triton(logits: torch.Tensor, adjustments: Adjustments) -> torch.Tensor:
    """Shapes as in `adjust_logits`; each row of logits is contiguous."""
    rows, vocab = logits.shape
    a = adjustments
    adjusted = torch.empty((rows, vocab), dtype=torch.float32, device=logits.device)
    if not rows:
        return adjusted
    counts = None
    num_tokens, num_biases = len(a.tokens), len(a.bias_tokens)
    if len(a.repetition):
        counts = torch.zeros((len(a.repetition), vocab), dtype=torch.int32, device=logits.device)
    if counts is not None and num_tokens:
        _count[(triton.cdiv(num_tokens, _ITEMS),)](
            a.owners, a.tokens, a.num_prompt, num_tokens, counts, vocab, BLOCK=_ITEMS
        )
    # Products and sums are rounded one by one, as on the CPU.
    _penalize[(rows, triton.cdiv(vocab, _BLOCK))](
        *(logits, adjusted, a.which, counts, a.repetition, a.frequency, a.presence),
        *(vocab, logits.stride(0)),
        BLOCK=_BLOCK,
        HAS_PENALTIES=counts is not None,
        enable_fp_fusion=False,
    )
    if num_biases:
        _bias[(triton.cdiv(num_biases, _ITEMS),)](
            *(adjusted, a.bias_rows, a.bias_tokens, a.bias_values, num_biases, vocab), BLOCK=_ITEMS
        )
    return adjusted
