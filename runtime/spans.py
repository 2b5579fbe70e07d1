"""What a step computes of one request, as a frozen `Span`. Pure translation: writes nothing."""

from collections.abc import Collection

import numpy as np

from .batch import Penalties, Sampling, Scoring, Span
from .request import Request


def make_span(request: Request, count: int, eos_ids: Collection[int]) -> Span:
    """The next `count` tokens of a placed request; with its last known token, a sample after it."""
    assert request.slot is not None
    start, end = request.num_computed, request.num_computed + count
    is_last = end == len(request.tokens) and request.finish is None
    options = request.wire.logprobs
    return Span(
        request_id=request.id,
        slot=request.slot,
        token_ids=np.array(request.tokens[start:end], dtype=np.int32),
        start=start,
        sampling=_sampling(request, eos_ids) if is_last else None,
        scoring=_scoring(request, start, end),
        top_logprobs=options.top if options is not None else 0,
    )


def _sampling(request: Request, eos_ids: Collection[int]) -> Sampling:
    params = request.sampling
    early = request.num_output < params.min_tokens
    return Sampling(
        temperature=params.temperature,
        top_k=params.top_k,
        top_p=params.top_p,
        min_p=params.min_p,
        stream=request.wire.stream,
        position=request.num_output,
        logit_bias=params.logit_bias,
        banned=tuple(request.stop_ids.union(eos_ids)) if early else (),
        penalties=_penalties(request),
        grammar=request.grammar,
        budget=request.max_tokens - request.num_output,
        report=request.wire.logprobs is not None,
    )


def _scoring(request: Request, start: int, end: int) -> Scoring | None:
    """The rows start..end-1 that predict known tokens whose log-probabilities are wanted."""
    first = max(start, request.next_score - 1)
    last = min(end, len(request.tokens) - 1)
    if request.wire.logprobs is None or first >= last:
        return None
    return Scoring(first, np.array(request.tokens[first + 1 : last + 1], dtype=np.int32))


def _penalties(request: Request) -> Penalties | None:
    params = request.sampling
    if not (
        params.frequency_penalty or params.presence_penalty or params.repetition_penalty != 1.0
    ):
        return None
    return Penalties(
        output=np.array(request.tokens[request.prompt_len :], dtype=np.int32),
        prompt=np.array(request.tokens[: request.prompt_len], dtype=np.int32),
        frequency=params.frequency_penalty,
        presence=params.presence_penalty,
        repetition=params.repetition_penalty,
    )
