"""A ScoreRequest as wire requests, and their answers as Scores.

Owns: where the prompt ends and the options begin (boundary healing). Knows no transport, and no
formula that compares options: that is the language's.
"""

from collections.abc import Callable, Sequence
from os.path import commonprefix

from .errors import EngineError, InvalidRequest
from .protocol import (
    LogprobOptions,
    OptionScore,
    SamplingParams,
    ScoreRequest,
    Scores,
    Text,
    TokenLogprob,
    Usage,
)
from .text import TextCodec
from .wire import TokenChunk, TokenRequest

_PREFILL = SamplingParams(max_tokens=0, temperature=0.0)


class ScorePlan:
    """The requests of one ScoreRequest, all to be submitted together.

    The prompt and each option are tokenized as one text, since the option's begin may merge with
    the prompt's last token. The boundary is where these tokenizations and the prompt's own still
    all agree; what follows it are the option's tokens. Where they agree on nothing (an empty
    prompt, a single token that merges), BOS, or else an end token, stands before them as their
    context; it is not part of the answer's ids.

    Every wire request takes an id of its own from `new_id`.
    """

    def __init__(self, codec: TextCodec, request: ScoreRequest, new_id: Callable[[], str]) -> None:
        prompt_ids = codec.encode_prefix(request.prompt)
        joint = [codec.encode((*request.prompt, Text(option))) for option in request.options]
        # An option keeps at least one token, also where a normalizer swallowed its text.
        boundary = min(len(commonprefix([prompt_ids, *joint])), *(len(ids) - 1 for ids in joint))
        context: tuple[int, ...] = ()
        if boundary == 0:
            if codec.context_id is None:
                raise InvalidRequest(
                    "prompt: nothing stands before the choices, and the tokenizer has neither BOS "
                    "nor an end token to stand there",
                    field="prompt",
                )
            context = (codec.context_id,)
        self._request_id = request.request_id  # for reporting only
        self._prompt_ids = prompt_ids[:boundary]
        self._options = [ids[boundary:] for ids in joint]
        start = len(context) + boundary
        self._ids = [(new_id(), context + ids, start) for ids in joint]
        if request.unconditional:
            self._ids += [(new_id(), ids, 0) for ids in self._options]
        self.requests = [
            TokenRequest(
                id=id,
                prompt_ids=ids,
                sampling=_PREFILL,
                stream=0,  # nothing is sampled
                logprobs=LogprobOptions(start=start),
                namespace=request.namespace,
            )
            for id, ids, start in self._ids
        ]
        self._chunks: dict[str, TokenChunk] = {}
        self._num_open = len(self.requests)

    def add(self, chunk: TokenChunk) -> bool:
        """Take an answer; True when all are here."""
        if chunk.prompt_logprobs is not None or chunk.id not in self._chunks:
            self._chunks[chunk.id] = chunk
        if chunk.finish is not None:
            self._num_open -= 1
        return self._num_open == 0

    def scores(self) -> Scores:
        """Once all answers are here."""
        entries = [self._scored(id, ids[start:]) for id, ids, start in self._ids]
        num_options = len(self._options)
        alone = entries[num_options:] or [()] * num_options
        options = tuple(
            OptionScore(
                token_ids=ids,
                logprobs=tuple(_known(entry) for entry in scored),
                unconditional=tuple(entry.logprob for entry in unconditional),
            )
            for ids, scored, unconditional in zip(
                self._options, entries[:num_options], alone, strict=True
            )
        )
        usages = [chunk.usage for chunk in self._chunks.values()]
        return Scores(self._prompt_ids, options, _total(usages))

    def _scored(self, id: str, ids: tuple[int, ...]) -> tuple[TokenLogprob, ...]:
        scored = self._chunks[id].prompt_logprobs or ()
        if tuple(entry.token_id for entry in scored) != ids:
            raise EngineError(
                f"the engine scored other tokens than those of request {self._request_id}"
            )
        return scored


def _known(entry: TokenLogprob) -> float:
    if entry.logprob is None:
        raise EngineError(f"the engine gave no log-probability for token {entry.token_id}")
    return entry.logprob


def _total(usages: Sequence[Usage]) -> Usage:
    """Summed over all the requests of the score."""
    return Usage(
        prompt_tokens=sum(usage.prompt_tokens for usage in usages),
        cached_tokens=sum(usage.cached_tokens for usage in usages),
        completion_tokens=0,
        forced_tokens=0,
        num_preemptions=sum(usage.num_preemptions for usage in usages),
    )
