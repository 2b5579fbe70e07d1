"""The three kinds of calls that wait for an engine's answers, one class each.

Owns: what a call does with its answers. `receive` runs on the dispatcher's thread. Knows no
transport and no other call.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from .detokenizer import Ending
from .protocol import Chunk, FinishKind, FinishReason, GenerateRequest, Scores, TokenLogprob
from .scoring import ScorePlan
from .streams import Answer, Mailbox
from .text import TextCodec, peeks
from .wire import ControlResult, Failed, FromEngine, TokenChunk, TokenRequest


class GenerateCall:
    """The samples of one generation, decoded into one mailbox. `wires`: by sample."""

    def __init__(
        self,
        wires: Sequence[TokenRequest],
        codec: TextCodec,
        request: GenerateRequest,
        mailbox: Mailbox,
    ) -> None:
        self.ids = tuple(wire.id for wire in wires)
        self.request_id = request.request_id
        self._codec = codec
        self._prompt_ids, self._tentative = wires[0].prompt_ids, wires[0].tentative
        self._mailbox = mailbox
        self._peeks = peeks(request)
        self._spells = request.logprobs is not None and request.logprobs.text
        self._open = {
            id: (index, codec.detokenizer(request.sampling)) for index, id in enumerate(self.ids)
        }
        self._silent = set(self.ids)  # samples that have sent no chunk yet

    def receive(self, message: FromEngine) -> None:
        if isinstance(message, Failed):
            self.fail(message.error)
            return
        assert isinstance(message, TokenChunk)
        chunk = self._decode(_untaken(message) if self._peeks else message)
        if chunk.finish is not None:
            del self._open[message.id]
        self._mailbox.push(chunk, last=not self._open)

    def fail(self, error: Exception) -> None:
        self._mailbox.push(error, last=True)

    def _decode(self, message: TokenChunk) -> Chunk:
        index, detokenizer = self._open[message.id]
        is_first = message.id in self._silent
        self._silent.discard(message.id)
        prompt_ids, num_hidden = self._prompt_ids, 0
        if is_first and self._tentative:
            prompt_ids = prompt_ids[: message.usage.prompt_tokens]
            num_hidden = detokenizer.begin(self._prompt_ids[len(prompt_ids) :])
        if message.finish is None:
            ending = Ending(detokenizer.push(message.token_ids), (), "")
        else:
            ending = detokenizer.finish(message.token_ids, message.finish, message.cut)
        logprobs, prompt_logprobs = message.logprobs, message.prompt_logprobs
        if self._spells:
            logprobs = _without(num_hidden, self._codec.spell(logprobs))
            prompt_logprobs = prompt_logprobs and self._codec.spell(prompt_logprobs)
        return Chunk(
            index=index,
            text=ending.text,
            token_ids=message.token_ids,
            usage=message.usage,
            logprobs=logprobs,
            prompt_ids=prompt_ids if is_first else None,
            prompt_logprobs=prompt_logprobs,
            finish=message.finish,
            kept_ids=ending.kept_ids,
            tail=ending.tail,
        )


def _untaken(message: TokenChunk) -> TokenChunk:
    """The token that was drawn for its report alone is no output."""
    usage = replace(message.usage, completion_tokens=0, forced_tokens=0)
    return message._replace(token_ids=(), usage=usage, finish=FinishReason(FinishKind.LENGTH))


def _without(num_bytes: int, logprobs: tuple[TokenLogprob, ...]) -> tuple[TokenLogprob, ...]:
    """The first token's piece without its begin, which is no output."""
    if not num_bytes or not logprobs:
        return logprobs
    first = logprobs[0]
    return (replace(first, piece=(first.piece or b"")[num_bytes:]), *logprobs[1:])


class ScoreCall:
    """All options of one ScoreRequest. `go_on(call, requests)` sends the next round's; with none it
    ends the call."""

    def __init__(
        self,
        plan: ScorePlan,
        request_id: str,
        go_on: Callable[["ScoreCall", Sequence[TokenRequest]], None],
    ) -> None:
        self.request_id = request_id
        self.ids = tuple(request.id for request in plan.requests)
        self.answer: Answer[Scores] = Answer()
        self._plan = plan
        self._go_on = go_on

    def receive(self, message: FromEngine) -> None:
        if isinstance(message, Failed):
            self.fail(message.error)
            return
        assert isinstance(message, TokenChunk)
        if not self._plan.add(message):
            return
        requests = self._plan.next_round()
        self._go_on(self, requests)
        if not requests:
            self.answer.give(self._plan.scores())

    def fail(self, error: Exception) -> None:
        self.answer.fail(error)


class ControlCall:
    request_id = None

    def __init__(self, id: str) -> None:
        self.ids = (id,)
        self.answer: Answer[dict[str, Any]] = Answer()

    def receive(self, message: FromEngine) -> None:
        if isinstance(message, Failed):
            self.fail(message.error)
        else:
            assert isinstance(message, ControlResult)
            self.answer.give(message.result)

    def fail(self, error: Exception) -> None:
        self.answer.fail(error)
