"""token_logprobs on the GPU: one pass over the logits and a merge of its chunks, no sort.

The pass leaves each chunk's sum and its likeliest tokens. These are taken one by one: few are asked
for, and a sort would order thousands.
"""

from typing import Final

import torch
import triton
import triton.language as tl

from ..token_ranks import LEAST, MAX_VOCAB, rank_logits, rank_tokens, ranks

_CHUNK: Final = 2_048  # tokens; an estimate, not measured
_MOST_LIKELIEST: Final = 2**24  # ranks that chunks leave at once: 128 MiB


@triton.jit(do_not_specialize=["top"])
def _chunks(
    logits, rows, largest, sums, likeliest, vocab, row_stride, num_chunks, top, CHUNK: tl.constexpr
):
    entry = tl.program_id(0).to(tl.int64)
    chunk = tl.program_id(1)
    token = chunk * CHUNK + tl.arange(0, CHUNK)
    inside = token < vocab
    row = tl.load(rows + entry)
    x = tl.load(logits + row * row_stride + token, mask=inside, other=float("-inf"))
    own = entry * num_chunks + chunk
    most = tl.max(x, 0)
    tl.store(largest + own, most)
    base = tl.where(tl.abs(most) == float("inf"), 0.0, most)
    tl.store(sums + own, tl.sum(tl.exp(x - base), 0))
    order = tl.where(inside, ranks(tl.where(x == 0, 0.0, x), token), LEAST)
    last = tl.full((), -LEAST, tl.int64)
    for number in range(top):
        last = tl.max(tl.where(order < last, order, LEAST), 0)
        tl.store(likeliest + own * top + number, last)


@triton.jit(do_not_specialize=["top"])
def _merge(
    logits, rows, tokens, largest, sums, likeliest, of_tokens, top_ids, top_values, row_stride,
    num_chunks, top, CHUNKS: tl.constexpr,
):  # fmt: skip
    entry = tl.program_id(0).to(tl.int64)
    chunk = tl.arange(0, CHUNKS)
    inside = chunk < num_chunks
    own = entry * num_chunks + chunk
    maxima = tl.load(largest + own, mask=inside, other=float("-inf"))
    most = tl.max(maxima, 0)
    base = tl.where(tl.abs(most) == float("inf"), 0.0, most)
    bases = tl.where(tl.abs(maxima) == float("inf"), 0.0, maxima)  # what the sums stand beside
    parts = tl.load(sums + own, mask=inside, other=0.0)
    parts = tl.where(parts > 0, parts * tl.exp(bases - base), 0.0)
    norm = base + tl.log(tl.sum(parts, 0))
    row = tl.load(rows + entry)
    x = tl.load(logits + row * row_stride + tl.load(tokens + entry))
    tl.store(of_tokens + entry, x - norm)
    taken = tl.zeros((CHUNKS,), tl.int32)
    for number in range(top):
        heads = tl.load(likeliest + own * top + taken, mask=inside & (taken < top), other=LEAST)
        best = tl.max(heads, 0)
        taken += (heads == best).to(tl.int32)
        tl.store(top_ids + entry * top + number, rank_tokens(best))
        tl.store(top_values + entry * top + number, rank_logits(best) - norm)


def token_logprobs_triton(
    logits: torch.Tensor, rows: torch.Tensor, tokens: torch.Tensor, top: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Shapes as in `token_logprobs`; top is at most V. Each row of logits is contiguous."""
    entries, vocab, device = len(rows), logits.shape[1], logits.device
    if vocab > MAX_VOCAB.value:
        raise ValueError(
            f"token_logprobs: a vocabulary of {vocab}, and {MAX_VOCAB.value} is the most"
        )
    of_tokens = torch.empty(entries, device=device)
    top_ids = torch.empty((entries, top), dtype=torch.int64, device=device)
    top_values = torch.empty((entries, top), device=device)
    found = (of_tokens, top_ids, top_values)
    together = max(_MOST_LIKELIEST // (triton.cdiv(vocab, _CHUNK) * max(top, 1)), 1)
    for begin in range(0, entries, together):
        some = slice(begin, begin + together)
        _measure(logits, rows[some], tokens[some], top, *(one[some] for one in found))
    return found


def _measure(
    logits: torch.Tensor,
    rows: torch.Tensor,
    tokens: torch.Tensor,
    top: int,
    of_tokens: torch.Tensor,
    top_ids: torch.Tensor,
    top_values: torch.Tensor,
) -> None:
    (entries,), vocab = rows.shape, logits.shape[1]
    chunks = triton.cdiv(vocab, _CHUNK)
    # Two tensors: of one, the second half's alignment would depend on the entries.
    largest, sums = (torch.empty((entries, chunks), device=logits.device) for _ in range(2))
    likeliest = torch.empty((entries, chunks, top), dtype=torch.int64, device=logits.device)
    _chunks[(entries, chunks)](
        *(logits, rows, largest, sums, likeliest, vocab, logits.stride(0), chunks, top),
        CHUNK=_CHUNK,
    )
    _merge[(entries,)](
        *(logits, rows, tokens, largest, sums, likeliest, of_tokens, top_ids, top_values),
        *(logits.stride(0), chunks, top),
        CHUNKS=triton.next_power_of_2(chunks),
        num_warps=1,
    )
