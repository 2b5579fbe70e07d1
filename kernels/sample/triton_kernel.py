"""Draws on the GPU, without a sort: one pass over a row without limits, three over one with them.

    scan     each chunk of a row: its largest logit, and the weight of its tokens beside that
    spread   limited rows: how many tokens lie how far below the largest, in 256 bins
    collect  limited rows: weight of what is surely kept, and the few tokens near the limits
    draw     each row: where among those few the limits fall exactly, then the token

Nothing waits for the host, and grids depend on shapes alone.
"""

from typing import Final, NamedTuple, Self

import torch
import triton
import triton.language as tl

from ..token_ranks import LEAST, MAX_VOCAB, ranks
from .triton_philox import uniform
from .triton_rows import (
    BINS_PER_NAT,
    NUM_BINS,
    UNITS,
    bins,
    distances,
    has_rank_limit,
    row_logits,
    units,
)

# Estimates, not measured.
_CHUNK: Final = 2_048  # tokens; 16 for each thread of 4 warps
_ROOM: Final = 4_096  # tokens near the limits that a row's program keeps in registers
_DRAW_WARPS: Final = 8


@triton.jit
def _scan(
    logits, masks, places, temperature, largest, likeliest, mass, spread, totals, vocab, row_stride,
    num_words, num_chunks, CHUNK: tl.constexpr, HAS_MASK: tl.constexpr, LIMITED: tl.constexpr,
):  # fmt: skip
    """One chunk of a row. The first program of a row clears what later passes add up."""
    row = tl.program_id(0).to(tl.int64)
    chunk = tl.program_id(1)
    token = chunk * CHUNK + tl.arange(0, CHUNK)
    place = tl.load(places + row) if HAS_MASK else -1
    x = row_logits(logits, masks, place, row, token, vocab, row_stride, num_words, HAS_MASK)
    top, at = tl.max(x, 0, return_indices=True, return_indices_tie_break_left=True)
    own = row * num_chunks + chunk
    tl.store(largest + own, top)
    tl.store(likeliest + own, chunk * CHUNK + at)
    heat = tl.load(temperature + row)
    if heat > 0:
        weight = tl.exp(-distances(x, top, heat))
        tl.store(mass + own, tl.sum(units(weight), 0))
    if LIMITED:
        if chunk == 0:
            tl.store(spread + row * NUM_BINS + tl.arange(0, NUM_BINS), 0)
            tl.store(totals + row * 3 + tl.arange(0, 4), 0, mask=tl.arange(0, 4) < 3)


@triton.jit
def _largest_of(largest, row, num_chunks, CHUNKS: tl.constexpr):
    chunk = tl.arange(0, CHUNKS)
    inside = chunk < num_chunks
    return tl.max(tl.load(largest + row * num_chunks + chunk, mask=inside, other=float("-inf")), 0)


@triton.jit
def _spread(
    logits, masks, places, temperature, top_k, top_p, largest, spread, totals, vocab, row_stride,
    num_words, num_chunks, CHUNK: tl.constexpr, CHUNKS: tl.constexpr, HAS_MASK: tl.constexpr,
):  # fmt: skip
    """Adds one chunk to its row's counts by bin, and to its total weight."""
    row = tl.program_id(0).to(tl.int64)
    heat = tl.load(temperature + row)
    if not ((heat > 0) & has_rank_limit(tl.load(top_k + row), tl.load(top_p + row), vocab)):
        return
    token = tl.program_id(1) * CHUNK + tl.arange(0, CHUNK)
    place = tl.load(places + row) if HAS_MASK else -1
    x = row_logits(logits, masks, place, row, token, vocab, row_stride, num_words, HAS_MASK)
    top = _largest_of(largest, row, num_chunks, CHUNKS)
    distance = distances(x, top, heat)
    tl.atomic_add(totals + row * 3, tl.sum(units(tl.exp(-distance)), 0))
    counts = tl.histogram(bins(distance), NUM_BINS)
    tl.atomic_add(
        spread + row * NUM_BINS + tl.arange(0, NUM_BINS), counts.to(tl.int32), mask=counts > 0
    )


@triton.jit
def _open_bins(spread, total, k, p, row, vocab):
    """The first and the last bin in which the limits may fall, and the number of tokens before
    them: those are all within the limits, and those after them are all beyond.

    By the counts alone for top_k. For top_p the weight up to a bin is bounded by its counts and by
    the total less the counts after it; a little more room covers the roundings.
    """
    index = tl.arange(0, NUM_BINS)
    counts = tl.load(spread + row * NUM_BINS + index)
    limit = tl.where((k > 0) & (k < vocab), k, vocab)
    upto = tl.cumsum(counts, 0)
    first = tl.sum((upto < limit).to(tl.int32), 0)
    last = first
    if p < 1:
        share = p.to(tl.float64) * total.to(tl.float64)
        nearest = index.to(tl.float64) / BINS_PER_NAT
        many = counts.to(tl.float64)
        most = many * tl.exp(-nearest) * (UNITS * (1 + 1e-5))
        least = tl.exp(-(nearest + 1.0 / BINS_PER_NAT)) * (UNITS * (1 - 1e-5)) - 1
        least = many * tl.where(index < NUM_BINS - 1, tl.maximum(least, 0.0), 0.0)
        above = total.to(tl.float64) - tl.cumsum(least, 0, reverse=True) + least  # later bins less
        ceiling = tl.minimum(tl.cumsum(most, 0), above)
        before = total.to(tl.float64) - tl.cumsum(most, 0, reverse=True)
        floor = tl.maximum(tl.cumsum(least, 0) - least, before)
        first = tl.minimum(first, tl.sum((ceiling * (1 + 1e-12) <= share).to(tl.int32), 0))
        last = tl.minimum(last, tl.sum((floor * (1 - 1e-12) <= share).to(tl.int32), 0) - 1)
    return first, last, tl.sum(tl.where(index < first, counts, 0), 0)


@triton.jit
def _collect(
    logits, masks, places, temperature, top_k, top_p, min_p, largest, spread, totals, open_bins,
    mass, near, vocab, row_stride, num_words, num_chunks, CHUNK: tl.constexpr,
    CHUNKS: tl.constexpr, ROOM: tl.constexpr, HAS_MASK: tl.constexpr,
):  # fmt: skip
    """One chunk's weight of tokens that are surely kept; the tokens of the open bins go to
    `near`."""
    row = tl.program_id(0).to(tl.int64)
    chunk = tl.program_id(1)
    heat = tl.load(temperature + row)
    k, p, floor = tl.load(top_k + row), tl.load(top_p + row), tl.load(min_p + row)
    ranked = has_rank_limit(k, p, vocab)
    if not ((heat > 0) & (ranked | (floor > 0))):
        return
    token = chunk * CHUNK + tl.arange(0, CHUNK)
    place = tl.load(places + row) if HAS_MASK else -1
    x = row_logits(logits, masks, place, row, token, vocab, row_stride, num_words, HAS_MASK)
    top = _largest_of(largest, row, num_chunks, CHUNKS)
    distance = distances(x, top, heat)
    weight = tl.exp(-distance)
    ours = units(weight)
    sure = token < vocab
    if ranked:
        first, last, before = _open_bins(spread, tl.load(totals + row * 3), k, p, row, vocab)
        if chunk == 0:
            tl.store(open_bins + row * 3, first)
            tl.store(open_bins + row * 3 + 1, last)
            tl.store(open_bins + row * 3 + 2, before)
        bin = bins(distance)
        sure = sure & (bin < first)
        tl.atomic_add(totals + row * 3 + 1, tl.sum(tl.where(sure, ours, 0), 0))
        is_open = (token < vocab) & (bin >= first) & (bin <= last) & (ours > 0)
        count = tl.sum(is_open.to(tl.int64), 0)
        if count > 0:
            start = tl.atomic_add(totals + row * 3 + 2, count)
            at = start + tl.cumsum(is_open.to(tl.int32), 0) - 1
            tl.store(near + row * ROOM + at, token, mask=is_open & (at < ROOM))
    kept = sure & (weight >= floor)
    tl.store(mass + row * num_chunks + chunk, tl.sum(tl.where(kept, ours, 0), 0))


@triton.jit
def _settle(
    logits, masks, place, near, mass, row, heat, top, count, first, last, before, above, k, share,
    floor, vocab, row_stride, num_words, num_chunks, CHUNK: tl.constexpr, ROOM: tl.constexpr,
    HAS_MASK: tl.constexpr,
):  # fmt: skip
    """The least rank that is within the limits, found by halving; what of the open bins is kept is
    added to `mass`.

    A rank is within them if fewer than k tokens rank above it, and these weigh at most `share`.
    count: of tokens in the open bins; before, above: how many tokens there are before those bins,
    and their weight. Where they are too many for `near` the whole row is read at each step: so it
    is for thousands of tokens of nearly the same weight, and for nothing else.
    """
    slot = tl.arange(0, ROOM)
    is_listed = count <= ROOM
    token = tl.load(near + row * ROOM + slot, mask=is_listed & (slot < count), other=-1)
    x = row_logits(logits, masks, place, row, token, vocab, row_stride, num_words, HAS_MASK)
    rank = tl.where(token >= 0, ranks(x, token), LEAST)
    weight = tl.exp(-distances(x, top, heat))
    ours = tl.where(token >= 0, units(weight), 0)
    # Beyond the limits, as all below, and within, as all above: at first by the open bins, with one
    # to spare.
    slack = tl.abs(top) * 1e-6
    num_low = count  # tokens above low
    num_high = count * 0  # tokens from high on
    low = ranks(top - heat * ((last + 2.0) / BINS_PER_NAT) - slack, num_high)
    high = ranks(top - heat * ((first - 1.0) / BINS_PER_NAT) + slack, num_high)
    if is_listed:
        low = tl.min(tl.where(token >= 0, rank, -LEAST), 0) - 1
        high = tl.max(rank, 0) + 1
    while num_low > num_high:
        middle = low + ((high - low) >> 1)
        both = num_high * 0  # how many tokens from middle on, and in the low half those above it
        heavy = num_high * 0
        if is_listed:
            both = tl.sum((rank > middle).to(tl.int64) + ((rank >= middle).to(tl.int64) << 32), 0)
            heavy = tl.sum(tl.where(rank > middle, ours, 0), 0)
        else:
            for chunk in range(num_chunks):
                one = chunk * CHUNK + tl.arange(0, CHUNK)
                y = row_logits(
                    logits, masks, place, row, one, vocab, row_stride, num_words, HAS_MASK
                )
                distance = distances(y, top, heat)
                mine = units(tl.exp(-distance))
                bin = bins(distance)
                is_open = (bin >= first) & (bin <= last) & (mine > 0)
                is_above = is_open & (ranks(y, one) > middle)
                is_from = is_open & (ranks(y, one) >= middle)
                both += tl.sum(is_above.to(tl.int64) + (is_from.to(tl.int64) << 32), 0)
                heavy += tl.sum(tl.where(is_above, mine, 0), 0)
        more = both & 0xFFFFFFFF
        if (before + more < k) & ((above + heavy).to(tl.float64) <= share):
            high = middle
            num_high = both >> 32
        else:
            low = middle
            num_low = more
    if is_listed:
        kept = (rank >= high) & (weight >= floor) & (ours > 0)
        tl.atomic_add(mass + row * num_chunks + token // CHUNK, ours, mask=kept)
    else:
        for chunk in range(num_chunks):
            one = chunk * CHUNK + tl.arange(0, CHUNK)
            y = row_logits(logits, masks, place, row, one, vocab, row_stride, num_words, HAS_MASK)
            light = tl.exp(-distances(y, top, heat))
            is_kept = (ranks(y, one) >= high) & (light >= floor)
            tl.store(mass + row * num_chunks + chunk, tl.sum(tl.where(is_kept, units(light), 0), 0))
    return high


@triton.jit
def _draw(
    logits, masks, places, temperature, top_k, top_p, min_p, uniforms, streams, positions, largest,
    likeliest, mass, totals, open_bins, near, tokens, vocab, row_stride, num_words, num_chunks,
    CHUNK: tl.constexpr, CHUNKS: tl.constexpr, ROOM: tl.constexpr, HAS_MASK: tl.constexpr,
    LIMITED: tl.constexpr, HAS_UNIFORMS: tl.constexpr,
):  # fmt: skip
    """The token of a row, by the inverse of its kept tokens' cumulative weight."""
    row = tl.program_id(0).to(tl.int64)
    chunk = tl.arange(0, CHUNKS)
    inside = chunk < num_chunks
    maxima = tl.load(largest + row * num_chunks + chunk, mask=inside, other=float("-inf"))
    top, best = tl.max(maxima, 0, return_indices=True, return_indices_tie_break_left=True)
    greedy = tl.load(likeliest + row * num_chunks + best)
    heat = tl.load(temperature + row)
    if (heat <= 0) | (tl.abs(top) == float("inf")):
        tl.store(tokens + row, greedy.to(tl.int64))
        return
    place = tl.load(places + row) if HAS_MASK else -1
    least = tl.full((), LEAST, tl.int64)
    floor = heat * 0
    is_limited = heat < 0
    if LIMITED:
        k, p, floor = tl.load(top_k + row).to(tl.int64), tl.load(top_p + row), tl.load(min_p + row)
        is_ranked = has_rank_limit(k, p, vocab)
        is_limited = is_ranked | (floor > 0)
        if is_ranked:
            total = tl.load(totals + row * 3).to(tl.float64)
            least = _settle(
                logits, masks, place, near, mass, row, heat, top,
                tl.load(totals + row * 3 + 2), tl.load(open_bins + row * 3),
                tl.load(open_bins + row * 3 + 1), tl.load(open_bins + row * 3 + 2),
                tl.load(totals + row * 3 + 1), tl.where((k > 0) & (k < vocab), k, vocab),
                tl.where(p < 1, p.to(tl.float64) * total, float("inf")), floor, vocab, row_stride,
                num_words, num_chunks, CHUNK, ROOM, HAS_MASK,
            )  # fmt: skip
            tl.debug_barrier()  # before other threads read what these have added
    # From the second-level cache, where the atomics were done.
    share = tl.load(mass + row * num_chunks + chunk, mask=inside, other=0, cache_modifier=".cg")
    weight = share
    if not is_limited:  # each chunk is weighed beside its own largest
        factor = tl.exp(-distances(maxima, top, heat).to(tl.float64))
        weight = (share.to(tl.float64) * factor).to(tl.int64)
    if HAS_UNIFORMS:
        number = tl.load(uniforms + row)
    else:
        number = uniform(tl.load(streams + row), tl.load(positions + row))
    total_weight = tl.sum(weight, 0)
    target = tl.minimum((number * total_weight.to(tl.float64)).to(tl.int64), total_weight - 1)
    which = tl.sum((tl.cumsum(weight, 0) <= target).to(tl.int32), 0)
    rest = target - tl.sum(tl.where(chunk < which, weight, 0), 0)
    base = top
    if not is_limited:
        own = tl.sum(tl.where(chunk == which, share, 0), 0)
        scaled = tl.sum(tl.where(chunk == which, weight, 0), 0)
        part = rest.to(tl.float64) / scaled.to(tl.float64)
        rest = tl.minimum((part * own.to(tl.float64)).to(tl.int64), own - 1)
        base = tl.max(tl.where(chunk == which, maxima, float("-inf")), 0)
    token = which * CHUNK + tl.arange(0, CHUNK)
    x = row_logits(logits, masks, place, row, token, vocab, row_stride, num_words, HAS_MASK)
    light = tl.exp(-distances(x, base, heat))
    kept = (ranks(x, token) >= least) & (light >= floor)
    upto = tl.cumsum(tl.where(kept, units(light), 0), 0)
    tl.store(tokens + row, (which * CHUNK + tl.sum((upto <= rest).to(tl.int32), 0)).to(tl.int64))


class _Scratch(NamedTuple):
    """What the passes tell one another, for R rows of C chunks."""

    largest: torch.Tensor  # fp32 [R, C]
    likeliest: torch.Tensor  # int32 [R, C]: the first token of the largest logit
    mass: torch.Tensor  # int64 [R, C]: weight in units
    spread: torch.Tensor  # int32 [R, bins]: tokens by bin
    totals: torch.Tensor  # int64 [R, 3]: weight; weight before the open bins; tokens in them
    open_bins: torch.Tensor  # int32 [R, 3]: first, last, number of tokens before
    near: torch.Tensor  # int32 [R, ROOM]: tokens of the open bins, in any order

    @classmethod
    def of(cls, rows: int, chunks: int, device: torch.device, limited: bool) -> Self:
        def empty(width: int, dtype: torch.dtype) -> torch.Tensor:
            return torch.empty((rows, width), dtype=dtype, device=device)

        room = _ROOM if limited else 0
        return cls(
            empty(chunks, torch.float32),
            empty(chunks, torch.int32),
            empty(chunks, torch.int64),
            empty(NUM_BINS.value if limited else 0, torch.int32),
            empty(3, torch.int64),
            empty(3, torch.int32),
            empty(room, torch.int32),
        )


def draw_triton(
    logits: torch.Tensor,
    temperature: torch.Tensor,
    top_k: torch.Tensor,
    top_p: torch.Tensor,
    min_p: torch.Tensor,
    *,
    uniforms: torch.Tensor | None = None,
    streams: torch.Tensor | None = None,
    positions: torch.Tensor | None = None,
    masks: torch.Tensor | None = None,
    places: torch.Tensor | None = None,
    limited: bool = True,
) -> torch.Tensor:
    """int64 [R]. Shapes as in `sample` and `draw`; either uniforms, or streams and positions.
    limited: whether any row may have a limit."""
    rows, vocab = logits.shape
    if vocab > MAX_VOCAB.value:
        raise ValueError(f"sample: a vocabulary of {vocab}, and {MAX_VOCAB.value} is the most")
    tokens = torch.empty(rows, dtype=torch.int64, device=logits.device)
    if not rows:
        return tokens
    chunks = triton.cdiv(vocab, _CHUNK)
    scratch = _Scratch.of(rows, chunks, logits.device, limited)
    words = 0 if masks is None else masks.stride(0)
    sizes = (vocab, logits.stride(0), words, chunks)
    chosen = {"CHUNK": _CHUNK, "HAS_MASK": masks is not None}
    padded = triton.next_power_of_2(chunks)
    grid = (rows, chunks)
    _scan[grid](logits, masks, places, temperature, *scratch[:5], *sizes, LIMITED=limited, **chosen)
    if limited:
        _spread[grid](
            *(logits, masks, places, temperature, top_k, top_p, scratch.largest, scratch.spread),
            *(scratch.totals, *sizes),
            CHUNKS=padded,
            **chosen,
        )
        _collect[grid](
            *(logits, masks, places, temperature, top_k, top_p, min_p, scratch.largest),
            *(scratch.spread, scratch.totals, scratch.open_bins, scratch.mass, scratch.near),
            *sizes,
            CHUNKS=padded,
            ROOM=_ROOM,
            **chosen,
        )
    _draw[(rows,)](
        *(logits, masks, places, temperature, top_k, top_p, min_p, uniforms, streams, positions),
        *(scratch.largest, scratch.likeliest, scratch.mass, scratch.totals, scratch.open_bins),
        *(scratch.near, tokens, *sizes),
        CHUNKS=padded,
        ROOM=_ROOM,
        LIMITED=limited,
        HAS_UNIFORMS=uniforms is not None,
        num_warps=_DRAW_WARPS,
        **chosen,
    )
    return tokens
