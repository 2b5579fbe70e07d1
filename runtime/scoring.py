"""A ScoreRequest as wire requests, and their answers as Scores.

Owns: where the prompt ends and the options begin (boundary healing), and the rounds of a request
that may stop early. Knows no transport, and no formula that compares options: that is the
language's, and `contenders` knows who can still win by it.
"""

from collections.abc import Callable, Sequence
from os.path import commonprefix

from .contenders import contenders, next_beginnings
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
    """The requests of one ScoreRequest, by rounds, each to be submitted together: walks over the
    options' trie, so that what options share is computed once, and their last tokens not at all.
    There is one round, but for requests with a `bound`.

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
        self._request, self._new_id = request, new_id
        self._prompt_ids = prompt_ids[:boundary]
        self._before = context + self._prompt_ids
        self._options = [ids[boundary:] for ids in joint]
        self._given: _Found = {}
        self._alone: _Found = {}
        self._waiting: dict[str, tuple[Walk, _Found]] = {}  # by wire id
        self._usages: list[Usage] = []
        self._num_rounds = 0
        self.requests = self._round(range(len(self._options)))
        if request.unconditional:
            walks = OptionTrie(self._options).walks(from_root=False)
            self.requests += [self._ask((), walk, self._alone) for walk in walks]

    def add(self, chunk: TokenChunk) -> bool:
        """Take an answer; True when all of the round are here."""
        if chunk.finish is not None:
            walk, found = self._waiting.pop(chunk.id)
            entries = iter(chunk.prompt_logprobs or ())
            for end, targets in enumerate(walk.targets, start=walk.start):
                for token in targets:
                    found[(*walk.tokens[:end], token)] = self._logprob(next(entries, None), token)
            self._usages.append(chunk.usage)
        return not self._waiting

    def next_round(self) -> list[TokenRequest]:
        """Once a round is over; none where all is known that is asked for."""
        if self._request.bound is None:
            return []
        left = contenders(self._request.bound, self._scored())
        return [] if len(left) == 1 else self._round(left)

    def scores(self) -> Scores:
        """Once the last round is over."""
        return Scores(self._prompt_ids, self._scored(), _total(self._usages))

    def _scored(self) -> tuple[OptionScore, ...]:
        return tuple(
            OptionScore(
                token_ids=ids,
                logprobs=_leading(self._given, ids, 1),
                unconditional=(None, *_leading(self._alone, ids, 2))
                if self._request.unconditional
                else (),
            )
            for ids in self._options
        )

    def _round(self, left: Sequence[int]) -> list[TokenRequest]:
        wanted = self._options
        if self._request.bound is not None:
            wanted = next_beginnings(self._request.bound, self._scored(), left, self._num_rounds)
        self._num_rounds += 1
        groups: dict[tuple[int, ...], list[tuple[int, ...]]] = {}
        for ids in wanted:
            num_known = len(_leading(self._given, ids, 1))
            groups.setdefault(ids[:num_known], []).append(ids[num_known:])
        return [
            self._ask(self._before, walk.after(known), self._given)
            for known, rest in groups.items()
            for walk in OptionTrie(rest).walks(from_root=True)
        ]

    def _ask(self, before: tuple[int, ...], walk: Walk, found: _Found) -> TokenRequest:
        wire = _wire(self._new_id(), before, walk, self._request.namespace)
        self._waiting[wire.id] = (walk, found)
        return wire

    def _logprob(self, entry: TokenLogprob | None, token: int) -> float:
        if entry is None or entry.token_id != token or entry.logprob is None:
            raise EngineError(
                f"the engine scored other tokens than those of request {self._request.request_id}"
            )
        return min(entry.logprob, 0.0)  # rounding may lead above


def _leading(found: _Found, ids: tuple[int, ...], start: int) -> tuple[float, ...]:
    """Of the tokens from the `start`-th on, as far as all are known."""
    values: list[float] = []
    for end in range(start, len(ids) + 1):
        value = found.get(ids[:end])
        if value is None:
            break
        values.append(value)
    return tuple(values)


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
