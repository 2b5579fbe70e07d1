"""Launches of what comes after the logits, in the vocabularies of Llama-3.1-8B and SmolLM2-135M."""

import torch

from sapwood.kernels.adjust_logits import Adjustments
from sapwood.kernels.adjust_logits.triton_kernel import adjust_logits_triton
from sapwood.kernels.logprobs.triton_kernel import token_logprobs_triton
from sapwood.kernels.sample.triton_kernel import draw_triton


def launch_draw() -> None:
    for vocab in (262_144, 128_256, 49_152):
        columns = [torch.empty(8) for _ in range(3)]
        temperature, top_p, min_p = columns
        top_k, places = (torch.empty(8, dtype=torch.int32) for _ in range(2))
        streams, positions = (torch.empty(8, dtype=torch.int64) for _ in range(2))
        masks = torch.empty(16, vocab // 32, dtype=torch.int32)
        logits = torch.empty(8, vocab)
        limits = (logits, temperature, top_k, top_p, min_p)
        drawn = {"streams": streams, "positions": positions}
        draw_triton(*limits, **drawn, masks=masks, places=places)
        draw_triton(*limits, **drawn, limited=False)


def launch_adjust_logits() -> None:
    for vocab in (128_256, 49_152):
        ints = [torch.empty(n, dtype=torch.int32) for n in (8, 3_000, 3_000, 40, 40)]
        which, owners, tokens, bias_rows, bias_tokens = ints
        repetition, frequency, presence = (torch.empty(2) for _ in range(3))
        adjust_logits_triton(
            torch.empty(8, vocab),
            Adjustments(
                *(which, owners, tokens, 1_000, repetition, frequency, presence),
                *(bias_rows, bias_tokens, torch.empty(40)),
            ),
        )


def launch_logprobs() -> None:
    pair = torch.empty(2, dtype=torch.int64)
    for vocab, top in ((128_256, 5), (128_256, 0), (49_152, 128)):
        token_logprobs_triton(torch.empty(2, vocab), pair, pair, top)
