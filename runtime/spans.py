"""What a step computes of one request, as a frozen `Span`. Pure translation: writes nothing."""

from array import array
from collections.abc import Collection, Sequence

import numpy as np

from .batch import Int32Array, Penalties, Sampling, Scoring, Span
from .request import Request
from .speculation import Draft


def make_span(
    request: Request, count: int, eos_ids: Collection[int], drafts: Sequence[Draft] = ()
) -> Span:
    """The next `count` tokens of a placed request; with its last known token, a sample after it and
    after each of `drafts`."""
    assert request.slot is not None
    start, end = request.num_computed, request.num_computed + count
    is_last = end == len(request.tokens) and request.finish is None
    assert is_last or not drafts, "drafts stand after the last known token"
    options = request.wire.logprobs
    samplings = [_sampling(request, drafts[:n], eos_ids) for n in range(len(drafts) + 1)]
    return Span(
        request_id=request.id,
        slot=request.slot,
        token_ids=_ids(request.tokens[start:end], drafts),
        start=start,
        samplings=tuple(samplings) if is_last else (),
        scoring=_scoring(request, start, end),
        top_logprobs=options.top if options is not None else 0,
    )


def _ids(tokens: "array[int]", drafts: Sequence[Draft]) -> Int32Array:
    return np.array(tokens + array("i", [draft.token for draft in drafts]), dtype=np.int32)


def _sampling(request: Request, drafts: Sequence[Draft], eos_ids: Collection[int]) -> Sampling:
    """How to choose the token after `drafts`, which are taken for output."""
    params = request.sampling
    position = request.num_output + len(drafts)
    return Sampling(
        temperature=params.temperature,
        top_k=params.top_k,
        top_p=params.top_p,
        min_p=params.min_p,
        stream=request.wire.stream,
        position=position,
        logit_bias=params.logit_bias,
        banned=tuple(request.stop_ids.union(eos_ids)) if position < params.min_tokens else (),
        penalties=_penalties(request, drafts),
        grammar=drafts[-1].grammar if drafts else request.grammar,
        budget=request.max_tokens - position,
        report=request.wire.logprobs is not None,
    )


def _scoring(request: Request, start: int, end: int) -> Scoring | None:
    """The rows start..end-1 that predict known tokens whose log-probabilities are wanted."""
    first = max(start, request.next_score - 1)
    last = min(end, len(request.tokens) - 1)
    if request.wire.logprobs is None or first >= last:
        return None
    return Scoring(first, np.array(request.tokens[first + 1 : last + 1], dtype=np.int32))


def _penalties(request: Request, drafts: Sequence[Draft]) -> Penalties | None:
    params = request.sampling
    if not (
        params.frequency_penalty or params.presence_penalty or params.repetition_penalty != 1.0
    ):
        return None
    return Penalties(
        output=_ids(request.tokens[request.prompt_len :], drafts),
        prompt=np.array(request.tokens[: request.prompt_len], dtype=np.int32),
        frequency=params.frequency_penalty,
        presence=params.presence_penalty,
        repetition=params.repetition_penalty,
    )
