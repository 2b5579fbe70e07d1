"""What a step computes of one request, as a frozen `Span`. Pure translation: writes nothing."""

from array import array
from collections.abc import Collection, Sequence

import numpy as np

from ..constrained import Masking
from .batch import AWAITED, UNDECIDED, Penalties, Sampling, Scoring, Span
from .healing import Healing
from .request import Request
from .speculation import Draft

_TENTATIVE = 1 << 62  # the first position of draws that are not output's


def make_span(
    request: Request, count: int, eos_ids: Collection[int], drafts: Sequence[Draft] = ()
) -> Span:
    """The next `count` tokens of a placed request; with its last known token, a sample after it and
    after each of `drafts`."""
    assert request.slot is not None
    start, end = request.num_launched, request.num_launched + count
    if end > len(request.tokens):
        return _following(request, request.slot)
    samplings: list[Sampling] = []
    if end == len(request.tokens) and request.finish is None:
        samplings = [_sampling(request, drafts[:n], eos_ids) for n in range(len(drafts) + 1)]
    assert samplings or not drafts, "drafts stand after the last known token"
    options = request.wire.logprobs
    return Span(
        request.id,
        request.slot,
        _with_drafts(request.tokens[start:end], drafts),
        start,
        tuple(samplings),
        _probing(request, start, end) if options is None else _scoring(request, start, end),
        options.top if options is not None else 0,
    )


def _following(request: Request, slot: int) -> Span:
    """The token that is being drawn, and a sample after it."""
    options = request.wire.logprobs
    top = options.top if options is not None else 0
    start = len(request.tokens)
    return Span(request.id, slot, array("i", [AWAITED]), start, (UNDECIDED,), None, top)


def decide(request: Request, span: Span, eos_ids: Collection[int]) -> tuple[Sampling, ...]:
    """How to choose the token after a span of AWAITED, now that this one is known; not at all where
    it was the last, or text is forced after it."""
    if request.finish is not None or len(request.tokens) != span.end:
        return ()
    return (_sampling(request, (), eos_ids),)


def _with_drafts(tokens: "array[int]", drafts: Sequence[Draft]) -> "array[int]":
    return tokens + array("i", [draft.token for draft in drafts]) if drafts else tokens


def _sampling(request: Request, drafts: Sequence[Draft], eos_ids: Collection[int]) -> Sampling:
    """How to choose the token after `drafts`, which are taken for output."""
    params = request.sampling
    position = len(request.tokens) + len(drafts) - _prompt_len(request, drafts)
    banned = tuple(request.stop_ids.union(eos_ids)) if position < params.min_tokens else ()
    budget = request.max_tokens - position
    report = request.wire.logprobs is not None
    grammar: Masking | None = drafts[-1].grammar if drafts else request.grammar
    tentative = request.tentative and request.tentative.after(len(drafts))
    if tentative is not None:
        position, banned = _TENTATIVE + _prompt_len(request, drafts), ()
        grammar = Healing(tentative, request.grammar, params.stop)
    return Sampling(
        params.temperature,
        params.top_k,
        params.top_p,
        params.min_p,
        request.wire.stream,
        position,
        params.logit_bias,
        banned,
        _penalties(request, drafts),
        grammar,
        budget,
        report,
    )


def _prompt_len(request: Request, drafts: Sequence[Draft]) -> int:
    """With the tentative tokens among the drafts, which stand before all others."""
    tentative = request.tentative.ids if request.tentative is not None else ()
    return request.prompt_len + min(len(drafts), len(tentative))


def _scoring(request: Request, start: int, end: int) -> Scoring | None:
    """Which of the rows start..end-1 predict known tokens whose log-probabilities are missing."""
    first = max(start, request.next_score - 1)
    last = min(end, len(request.tokens) - 1)
    if first >= last:
        return None
    targets = np.array(request.tokens[first + 1 : last + 1], dtype=np.int32)
    return Scoring(np.arange(first, last, dtype=np.int32), targets)


def _probing(request: Request, start: int, end: int) -> Scoring | None:
    """What the probe asks of the rows start..end-1."""
    probe, first = request.wire.probe, max(start, request.next_probe)
    if probe is None or first >= end:
        return None
    asked = probe.targets[first - probe.start + 1 : end - probe.start + 1]
    rows = np.repeat(np.arange(first, end, dtype=np.int32), [len(targets) for targets in asked])
    return Scoring(rows, np.array([token for targets in asked for token in targets], np.int32))


def _penalties(request: Request, drafts: Sequence[Draft]) -> Penalties | None:
    params = request.sampling
    if not (
        params.frequency_penalty or params.presence_penalty or params.repetition_penalty != 1.0
    ):
        return None
    tokens, start = _with_drafts(request.tokens, drafts), _prompt_len(request, drafts)
    return Penalties(
        output=np.array(tokens[start:], np.int32),
        prompt=np.array(tokens[:start], np.int32),
        frequency=params.frequency_penalty,
        presence=params.presence_penalty,
        repetition=params.repetition_penalty,
    )
