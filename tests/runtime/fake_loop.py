"""An engine without a model for tests of the clients: it echoes prompts. Importable by a child
process too, so it is a module and no fixture.

What a request's namespace says: "forever" never ends; "fail" is refused after its first chunk;
"die" makes the step raise; "vanish" kills the process; "stuck" makes the step sleep. Otherwise the
answer is the prompt's tokens, over and over, one a step, up to `max_tokens`.
"""

import itertools
import os
import signal
import time
from dataclasses import dataclass, field
from typing import Any

from sapwood.runtime.errors import InvalidRequest
from sapwood.runtime.models.errors import ModelError
from sapwood.runtime.protocol import (
    ControlAction,
    EngineInfo,
    FinishKind,
    FinishReason,
    TokenLogprob,
    Usage,
)
from sapwood.runtime.wire import Failed, FromEngine, Probe, TokenChunk, TokenRequest

INFO = EngineInfo(
    model="fake",
    context_length=2_048,
    vocab_size=257,
    max_tokens_in_cache=4_096,
    page_size=16,
    dtype="float32",
    chat_template=None,
    special_tokens={},
    eos_ids=(256,),
)


class Unpicklable(Exception):
    def __init__(self, one: int, two: int) -> None:
        super().__init__(f"{one} and {two}")


@dataclass
class Running:
    request: TokenRequest
    num_output: int = 0
    tokens: "itertools.cycle[int]" = field(init=False)

    def __post_init__(self) -> None:
        self.tokens = itertools.cycle(self.request.prompt_ids)


def logprob(tokens: tuple[int, ...], position: int) -> float | None:
    """A made-up log-probability that depends on the token and the one before it."""
    if position == 0:
        return None
    return -((tokens[position - 1] * 31 + tokens[position]) % 97) / 8


def probed(prompt: tuple[int, ...], probe: Probe) -> tuple[TokenLogprob, ...]:
    return tuple(
        TokenLogprob(token, logprob((*prompt[:at], token), at))
        for at, targets in enumerate(probe.targets, start=probe.start)
        for token in targets
    )


class FakeLoop:
    def __init__(self) -> None:
        self.info = INFO
        self.only_compiling = False
        self._running: dict[str, Running] = {}
        self._aborted: list[str] = []
        self.num_finished = 0
        self.is_closed = False

    @property
    def has_work(self) -> bool:
        return bool(self._running)

    def submit(self, request: TokenRequest) -> None:
        assert request.id not in self._running
        self._running[request.id] = Running(request)

    def abort(self, id: str) -> None:
        if self._running.pop(id, None) is not None:
            self._aborted.append(id)

    def control(self, action: ControlAction) -> dict[str, Any]:
        if action == "check_integrity":
            raise AssertionError("page 7 is held twice")
        if action == "flush_cache":
            raise Unpicklable(1, 2)
        return {"running": sorted(self._running), "aborted": list(self._aborted)}

    def step(self) -> list[FromEngine]:
        return [answer for id in list(self._running) for answer in self._advance(id)]

    def close(self) -> None:
        self.is_closed = True

    def _advance(self, id: str) -> list[FromEngine]:
        running = self._running[id]
        request = running.request
        if request.namespace == "die":
            raise RuntimeError("out of luck")
        if request.namespace == "vanish":
            os.kill(os.getpid(), signal.SIGKILL)
        if request.namespace == "stuck":
            time.sleep(600)
        if request.namespace == "fail" and running.num_output:
            del self._running[id]
            return [Failed(id, InvalidRequest("stop_regex: too slow", field="stop_regex"))]
        if request.namespace == "forever":
            time.sleep(0.001)
        return [self._chunk(id, running)]

    def _chunk(self, id: str, running: Running) -> TokenChunk:
        request = running.request
        max_tokens = request.sampling.max_tokens
        assert max_tokens is not None
        token_ids = () if max_tokens == 0 else (next(running.tokens),)
        is_first = running.num_output == 0
        running.num_output += len(token_ids)
        is_last = running.num_output >= max_tokens and request.namespace != "forever"
        if is_last:
            self.num_finished += 1
            del self._running[id]
        prompt = request.prompt_ids
        options = request.logprobs
        scored = None
        if options is not None and options.start >= 0 and is_first:
            positions = range(options.start, len(prompt))
            scored = tuple(TokenLogprob(prompt[at], logprob(prompt, at)) for at in positions)
        if request.probe is not None:
            scored = probed(prompt, request.probe)
        return TokenChunk(
            id=id,
            token_ids=token_ids,
            usage=Usage(len(prompt), 0, running.num_output, 0),
            logprobs=tuple(TokenLogprob(id, -0.5, ((id, -0.5),)) for id in token_ids)
            if options
            else (),
            prompt_logprobs=scored,
            finish=FinishReason(FinishKind.LENGTH) if is_last else None,
        )


def build() -> FakeLoop:
    return FakeLoop()


def build_nothing() -> FakeLoop:
    raise ModelError("model.gguf: not a model")


def build_and_vanish() -> FakeLoop:
    os._exit(3)
