"""copy_pages on the GPU: all pairs and layers in one launch."""

import torch
import triton
import triton.language as tl

_BLOCK = 1_024  # words of a program: 64 bytes a thread, an estimate, not measured


@triton.jit
def _copy_pages(words, sources, targets, page_words, layer_words, BLOCK: tl.constexpr):
    pair = tl.program_id(0)
    source = tl.load(sources + pair).to(tl.int64)
    target = tl.load(targets + pair).to(tl.int64)
    word = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = (word < page_words) & (target >= 0)
    words += tl.program_id(2).to(tl.int64) * layer_words
    values = tl.load(words + source * page_words + word, mask=inside)
    tl.store(words + target * page_words + word, values, mask=inside)


def copy_pages_triton(words: torch.Tensor, sources: torch.Tensor, targets: torch.Tensor) -> None:
    """words: [L, P, words of a page], contiguous."""
    num_layers, num_pages, page_words = words.shape
    if not len(sources) or not words.numel():
        return
    grid = (len(sources), triton.cdiv(page_words, _BLOCK), num_layers)
    _copy_pages[grid](words, sources, targets, page_words, num_pages * page_words, BLOCK=_BLOCK)
