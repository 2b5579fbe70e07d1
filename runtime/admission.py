"""From a wire request to a Request, or a refusal with the numbers. Owns: what can never be served,
and says so at once."""

from array import array
from collections.abc import Collection

from ..constrained import Vocabulary
from .errors import InvalidRequest
from .healing import Tentative
from .protocol import FinishKind, FinishReason, TokenLogprob
from .request import Request
from .stops import StopFinder
from .wire import Probe, TokenRequest


class Admission:
    """The engine's limits. `capacity`: tokens that the whole KV cache holds."""

    def __init__(
        self,
        vocabulary: Vocabulary,
        context_length: int,
        capacity: int,
        eos_ids: Collection[int],
    ) -> None:
        self._vocabulary = vocabulary
        self._vocab_size = vocabulary.size
        self._context_length = context_length
        self._capacity = capacity
        self._eos_ids = frozenset(eos_ids)

    def admit(self, wire: TokenRequest, arrival: int) -> Request:
        """Raises InvalidRequest for what can never run here."""
        sampling = wire.sampling
        tokens = array("i", wire.prompt_ids)
        self._check_ids("prompt", tokens)
        self._check_ids("stop_token_ids", sampling.stop_token_ids)
        self._check_ids("logit_bias", [token for token, _ in sampling.logit_bias])
        if not tokens:
            raise InvalidRequest(
                "prompt: it is empty, at least one token is needed", field="prompt"
            )
        kept = len(tokens) - wire.tentative
        if not 0 < kept <= len(tokens):
            raise InvalidRequest(
                f"tentative: {wire.tentative} of a prompt of {len(tokens)} tokens", field="prompt"
            )
        if wire.probe is not None:
            self._check_probe(wire, wire.probe)
        stop_ids = frozenset(sampling.stop_token_ids)
        request = Request(
            wire=wire,
            arrival=arrival,
            max_tokens=self._max_tokens(len(tokens), sampling.max_tokens),
            tokens=tokens[:kept],
            prompt_len=kept,
            stop_ids=stop_ids if sampling.ignore_eos else stop_ids | self._eos_ids,
        )
        if wire.tentative:
            request.tentative = Tentative(wire.prompt_ids[kept:], self._vocabulary)
        if sampling.min_tokens > request.max_tokens:
            raise InvalidRequest(
                f"min_tokens: {sampling.min_tokens}, but there is room for {request.max_tokens}",
                field="min_tokens",
            )
        if sampling.stop or sampling.stop_regex:
            request.stops = StopFinder(sampling.stop, sampling.stop_regex)
        if sampling.min_tokens == 0:
            request.min_bytes = 0
        if request.max_tokens == 0:
            request.finish = FinishReason(FinishKind.LENGTH)
        if wire.logprobs is not None and wire.logprobs.start == 0:
            request.scored.append(
                TokenLogprob(tokens[0], None)
            )  # nothing stands before a prompt's first token
        if wire.logprobs is not None and wire.logprobs.start > len(tokens):
            raise InvalidRequest(
                f"logprob_start_len: {wire.logprobs.start} is beyond the prompt's "
                f"{len(tokens)} tokens",
                field="logprob_start_len",
            )
        return request

    def _check_probe(self, wire: TokenRequest, probe: Probe) -> None:
        for targets in probe.targets:
            self._check_ids("choices", targets)
        rows = len(wire.prompt_ids) - probe.start + 1
        if wire.sampling.max_tokens != 0 or wire.logprobs is not None:
            raise InvalidRequest("choices: a probe neither generates nor reports", field="choices")
        if probe.start < 1 or len(probe.targets) != rows or not all(probe.targets):
            raise InvalidRequest(
                f"choices: {len(probe.targets)} rows of targets for {rows} from {probe.start} on",
                field="choices",
            )

    def _check_ids(self, name: str, ids: Collection[int]) -> None:
        if not ids:
            return
        for token in (min(ids), max(ids)):
            if not 0 <= token < self._vocab_size:
                raise InvalidRequest(
                    f"{name}: token id {token} is outside the vocabulary of {self._vocab_size}",
                    field=name,
                )

    def _max_tokens(self, prompt_len: int, asked: int | None) -> int:
        context, capacity = self._context_length, self._capacity
        if asked is None:
            asked = min(context, capacity + 1) - prompt_len
            if asked <= 0:
                raise InvalidRequest(
                    f"prompt: {prompt_len} tokens leave no room in a context of {context} tokens "
                    f"and a KV cache of {capacity}",
                    field="prompt",
                )
        if prompt_len + asked > context:
            raise InvalidRequest(
                f"max_tokens: a prompt of {prompt_len} tokens and max_tokens {asked} make "
                f"{prompt_len + asked}, the context length is {context}",
                field="max_tokens",
            )
        # The last sampled token is never computed.
        if prompt_len + max(asked - 1, 0) > capacity:
            raise InvalidRequest(
                f"max_tokens: a prompt of {prompt_len} tokens and max_tokens {asked} need "
                f"{prompt_len + max(asked - 1, 0)} tokens of KV, the cache holds {capacity}",
                field="max_tokens",
            )
        return asked
