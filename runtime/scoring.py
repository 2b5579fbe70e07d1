"""A ScoreRequest as wire requests, and their answers as Scores.

Owns: where the prompt ends and the options begin (boundary healing). Knows no transport, and no
formula that compares options: that is the language's.
"""

from collections.abc import Callable, Iterable, Sequence
from os.path import commonprefix

from .errors import EngineError, InvalidRequest
from .option_trie import OptionTrie, Walk
from .protocol import (
    Ids,
    OptionScore,
    Prompt,
    SamplingParams,
    ScoreRequest,
    Scores,
    Text,
    TokenLogprob,
    Usage,
)
from .text import TextCodec
from .wire import Probe, TokenChunk, TokenRequest

_PREFILL = SamplingParams(max_tokens=0, temperature=0.0)
_Found = dict[tuple[int, ...], float]
"""The tokens of an option up to one of them -> that one's log-probability after the others."""


class ScorePlan:
    """The requests of one ScoreRequest, all to be submitted together: walks over the options'
    trie, so that what options share is computed once, and their last tokens not at all.

    The prompt and each option are tokenized as one text, since the option's begin may merge with
    the prompt's last token. The boundary is where these tokenizations and that of the prompt
    without its last blanks all agree; what follows it are the option's tokens. So blanks count as
    the options' wherever they are written. Where they agree on nothing (an empty prompt, a single
    token that merges), BOS, or else an end token, stands before them as their context; it is not
    part of the answer's ids.

    Every wire request takes an id of its own from `new_id`.
    """

    def __init__(self, codec: TextCodec, request: ScoreRequest, new_id: Callable[[], str]) -> None:
        prompt_ids = codec.encode_prefix(_without_last_blanks(request.prompt))
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
        trie = OptionTrie(self._options)
        self._given = [(new_id(), walk) for walk in trie.walks(from_root=True)]
        self._alone = (
            [(new_id(), walk) for walk in trie.walks(from_root=False)]
            if request.unconditional
            else None
        )
        before = context + self._prompt_ids
        self.requests = [
            *(_wire(id, before, walk, request.namespace) for id, walk in self._given),
            *(_wire(id, (), walk, request.namespace) for id, walk in self._alone or ()),
        ]
        self._chunks: dict[str, TokenChunk] = {}

    def add(self, chunk: TokenChunk) -> bool:
        """Take an answer; True when all are here."""
        if chunk.finish is not None:
            self._chunks[chunk.id] = chunk
        return len(self._chunks) == len(self.requests)

    def scores(self) -> Scores:
        """Once all answers are here."""
        given = self._found(self._given)
        alone = None if self._alone is None else self._found(self._alone)
        options = tuple(
            OptionScore(
                token_ids=ids,
                logprobs=tuple(given[ids[:end]] for end in range(1, len(ids) + 1)),
                unconditional=()
                if alone is None
                else (None, *(alone[ids[:end]] for end in range(2, len(ids) + 1))),
            )
            for ids in self._options
        )
        usages = [chunk.usage for chunk in self._chunks.values()]
        return Scores(self._prompt_ids, options, _total(usages))

    def _found(self, walks: Iterable[tuple[str, Walk]]) -> _Found:
        found: _Found = {}
        for id, walk in walks:
            entries = iter(self._chunks[id].prompt_logprobs or ())
            for end, targets in enumerate(walk.targets, start=walk.start):
                for token in targets:
                    found[(*walk.tokens[:end], token)] = self._logprob(next(entries, None), token)
        return found

    def _logprob(self, entry: TokenLogprob | None, token: int) -> float:
        if entry is None or entry.token_id != token or entry.logprob is None:
            raise EngineError(
                f"the engine scored other tokens than those of request {self._request_id}"
            )
        return entry.logprob


def _wire(id: str, before: tuple[int, ...], walk: Walk, namespace: str) -> TokenRequest:
    return TokenRequest(
        id=id,
        prompt_ids=before + walk.tokens,
        sampling=_PREFILL,
        stream=0,  # nothing is sampled
        namespace=namespace,
        probe=Probe(len(before) + walk.start, walk.targets),
    )


def _without_last_blanks(prompt: Prompt) -> Prompt:
    parts = list(prompt)
    while parts:
        last = parts.pop()
        if isinstance(last, Ids):
            return (*parts, last)
        kept = last.text.rstrip(" ")
        if kept:
            return (*parts, Text(kept, last.special))
    return ()


def _total(usages: Sequence[Usage]) -> Usage:
    """Summed over all the requests of the score."""
    return Usage(
        prompt_tokens=sum(usage.prompt_tokens for usage in usages),
        cached_tokens=sum(usage.cached_tokens for usage in usages),
        completion_tokens=0,
        forced_tokens=0,
        num_preemptions=sum(usage.num_preemptions for usage in usages),
    )
