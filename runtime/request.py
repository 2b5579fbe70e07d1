"""`Request`: the one mutable record of a generation. Written only by the Scheduler (and `advance`,
its rules of output).

Region map of one request's tokens and pages:

    tokens   | prompt .................... | output (sampled and forced) ... |
             0                         prompt_len                       len(tokens)
    KV       | computed ............... | in flight ... | missing ..... |
             0                     num_computed    num_launched     target
    pages    | in the tree, locked by the lease | the request's own ... |
             0                            num_tree_pages             len(pages)
"""

from array import array
from concurrent.futures import Future
from dataclasses import dataclass, field

from ..constrained import CompiledGrammar, GrammarState
from ..radix_cache import PrefixMatch
from .drafts import Drafter
from .healing import Tentative
from .protocol import FinishReason, SamplingParams, TokenLogprob, Usage
from .stops import StopFinder
from .wire import TokenRequest


@dataclass(eq=False, slots=True)
class Request:
    """A generation from its submission to its last chunk. Token counts, unless a name says bytes or
    pages."""

    wire: TokenRequest
    id: str = field(init=False)  # the wire's, as is `sampling`: they are read many times a step
    sampling: SamplingParams = field(init=False)
    arrival: int  # order of submission
    max_tokens: int
    tokens: "array[int]"  # prompt, then output
    prompt_len: int  # grows while tentative tokens prove to be the prompt's
    stop_ids: frozenset[int]  # end-of-text ids (unless ignored) and the request's own
    stops: StopFinder | None = None
    tentative: Tentative | None = None  # after `tokens`; None once an output token was drawn

    compiling: Future[CompiledGrammar] | None = None
    grammar: GrammarState | None = None
    drafter: Drafter | None = None

    # Placement: all empty while waiting.
    slot: int | None = None
    lease: PrefixMatch | None = None
    pages: list[int] = field(default_factory=list)
    num_tree_pages: int = 0
    num_written_pages: int = 0  # entries of the page table that are up to date
    num_computed: int = 0
    num_launched: int = 0  # more than computed only while a step is in flight

    # Output.
    output_bytes: bytearray = field(default_factory=bytearray)  # end-of-text left out
    min_bytes: int | None = None  # length of output_bytes when min_tokens was reached
    scored: list[TokenLogprob] = field(default_factory=list)  # from position `score_start` on
    num_probed: int = 0  # rows of the wire's probe that are answered, into `scored`
    num_reported: int = 0  # output tokens already sent in chunks
    finish: FinishReason | None = None
    cut: int | None = None  # bytes of output_bytes that remain

    # Counts.
    cached_tokens: int | None = None  # prompt tokens found in the tree at the first admission
    forced: bytearray = field(default_factory=bytearray)  # one flag per output token
    num_forced: int = 0
    num_preemptions: int = 0
    num_overtaken: int = 0  # later arrivals admitted before this one

    def __post_init__(self) -> None:
        self.id = self.wire.id
        self.sampling = self.wire.sampling

    @property
    def num_output(self) -> int:
        return len(self.tokens) - self.prompt_len

    @property
    def score_start(self) -> int:
        """First position whose token's log-probability is wanted."""
        options = self.wire.logprobs
        if options is None:
            return len(self.tokens)
        return options.start if options.start >= 0 else self.prompt_len

    @property
    def next_score(self) -> int:
        """First position whose log-probability is wanted and not known yet."""
        return self.score_start + len(self.scored)

    @property
    def next_probe(self) -> int:
        """First row that the probe asks and that is not answered yet; the end where there is
        none."""
        probe = self.wire.probe
        return len(self.tokens) if probe is None else probe.start - 1 + self.num_probed

    @property
    def num_ready(self) -> int:
        """Output tokens that may be reported: with log-probabilities, only those already scored."""
        if self.wire.logprobs is None:
            return self.num_output
        return max(0, self.next_score - self.prompt_len)

    @property
    def is_drawing(self) -> bool:
        """Is a draw of the token after all of `tokens` in flight?"""
        return self.finish is None and self.num_launched >= len(self.tokens)

    @property
    def may_follow(self) -> bool:
        """While a draw is in flight, may the token that it will draw be computed already? Not where
        more than one token may come of the draw that would have to be looked at: tentative ones,
        or forced ones whose log-probabilities are asked."""
        return (
            self.tentative is None
            and self.num_output + 1 < self.max_tokens
            and (self.grammar is None or self.wire.logprobs is None)
        )

    def reports(self, token: int) -> bool:
        """Is the log-probability of `token`, drawn next, wanted? Of a prompt's token only where
        those of the prompt are."""
        options = self.wire.logprobs
        is_output = self.tentative is None or token != self.tentative.ids[0]
        return options is not None and (is_output or options.start >= 0)

    @property
    def target(self) -> int:
        """Tokens to compute before the next is sampled or, at the end, before the request may
        leave."""
        if self.finish is None or self.max_tokens == 0:
            return len(self.tokens)
        return self.num_computed if self._all_scored else len(self.tokens) - 1

    @property
    def _all_scored(self) -> bool:
        return self.wire.logprobs is None or self.next_score >= len(self.tokens)

    @property
    def is_done(self) -> bool:
        return self.finish is not None and self.num_computed >= self.target

    @property
    def match_limit(self) -> int:
        """How many leading tokens may come from the tree: rows whose logits are needed must be
        computed."""
        if self.wire.probe is not None:
            return self.next_probe
        if self.max_tokens == 0 and self.wire.logprobs is None:
            return len(self.tokens)
        wanted = [len(self.tokens) - 1]
        if self.wire.logprobs is not None:
            wanted.append(self.next_score - 1)
        return max(0, min(wanted))

    def usage(self) -> Usage:
        return Usage(
            self.prompt_len,
            self.cached_tokens or 0,
            self.num_reported,
            self.forced.count(1, 0, self.num_reported),
            self.num_preemptions,
        )
