"""Penalties and biases on logits. Owns the op's contract: their order; knows no request."""

from dataclasses import dataclass

import torch

from .. import implementation
from .reference import adjust_logits_reference


@dataclass(frozen=True)
class Adjustments:
    """Of P penalised rows, with N tokens that count, and B biases.

    which: int32 [R], the penalised row that a row of the logits is, -1 for none. owners, tokens:
    int32 [N], a penalised row and a token of it; the first `num_prompt` of them stand in the
    prompt, the others in the output; tokens may repeat. repetition, frequency, presence: fp32 [P].
    bias_rows, bias_tokens: int32 [B], no pair twice; bias_values: fp32 [B].
    """

    which: torch.Tensor
    owners: torch.Tensor
    tokens: torch.Tensor
    num_prompt: int
    repetition: torch.Tensor
    frequency: torch.Tensor
    presence: torch.Tensor
    bias_rows: torch.Tensor
    bias_tokens: torch.Tensor
    bias_values: torch.Tensor


def adjust_logits(logits: torch.Tensor, adjustments: Adjustments) -> torch.Tensor:
    """The logits with penalties, then biases: fp32 [R, V], a new tensor.

    repetition (Keskar et al. 2019; 1: none) divides the positive logits of tokens of the prompt and
    the output, and multiplies the others; then frequency is subtracted for each occurrence in the
    output and presence once. A bias is added.

    logits: fp32 [R, V], not changed. Tokens outside the vocabulary are the caller's mistake.
    """
    if logits.dtype is not torch.float32 or logits.dim() != 2:
        raise TypeError(
            f"adjust_logits: logits must be float32 [R, V], got {logits.dtype} {list(logits.shape)}"
        )
    if adjustments.which.shape != logits.shape[:1]:
        raise ValueError(
            f"adjust_logits: which is {tuple(adjustments.which.shape)} for {len(logits)} rows"
        )
    if adjustments.owners.shape != adjustments.tokens.shape:
        raise ValueError(
            f"adjust_logits: {len(adjustments.owners)} owners of {len(adjustments.tokens)} tokens"
        )
    if implementation.is_triton(logits):
        from .triton_kernel import adjust_logits_triton

        return adjust_logits_triton(logits, adjustments)
    return adjust_logits_reference(logits, adjustments)
