"""API speculative execution: one long call to a remote model in the place of several short ones.

Owns: what of an answer goes to which gen. `@function(num_api_spec_tokens=k)` asks for it; it is of
use where every call is billed for its whole prompt.

A model that continues text is asked for k tokens without stops; what comes after the first gen's
stop is kept, and as long as the program's own text agrees with it, later gens are cut from it. A
model that speaks in messages is asked once for a whole message, which must fit the message's form:
its texts, and its gens up to their stops.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Any, Final

from ..runtime.client import Client, Event, Stream
from ..runtime.errors import EngineError, InvalidRequest
from ..runtime.protocol import (
    Chunk,
    ControlAction,
    EngineInfo,
    FinishKind,
    FinishReason,
    GenerateRequest,
    SamplingParams,
    ScoreRequest,
    Scores,
    Text,
    Usage,
)
from .variables import Variable

TRIES: Final = 3
"""How often a message is asked for until it fits."""


def check_tokens(value: object) -> None:
    """Of `num_api_spec_tokens`; None is none."""
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InvalidRequest(
            f"num_api_spec_tokens: {value!r} is not a positive integer", field="num_api_spec_tokens"
        )


def speculating(client: Client, num_tokens: int | None) -> Client:
    """A client of text that looks ahead; any other as it is."""
    if num_tokens is None or client.info().abilities.speaks != "text":
        return client
    return TextSpeculation(client, num_tokens)


# --- text ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Ahead:
    """`text` is a prompt and what a model said after it; up to `used` a program has said it too."""

    text: str
    used: int


class TextSpeculation:
    """A `Client` for one run. A gen without stops asks as ever: nothing says where it ends. So does
    one whose options a text that is there already cannot keep."""

    def __init__(self, client: Client, num_tokens: int) -> None:
        self._client = client
        self._num_tokens = num_tokens
        self._lock = threading.Lock()
        self._ahead: list[_Ahead] = []

    def generate(self, request: GenerateRequest) -> Stream:
        sampling = request.sampling
        if not _may_ask_ahead(request):
            return self._client.generate(request)
        prompt = "".join(part.text for part in request.prompt if isinstance(part, Text))
        known = self._cut(prompt, sampling.stop)
        if known is not None:
            return _Answered(request.request_id, known)
        longest = sampling.max_tokens and max(sampling.max_tokens, self._num_tokens)
        longer = replace(request, sampling=replace(sampling, stop=(), max_tokens=longest))

        def keep(text: str, used: int) -> None:
            with self._lock:
                self._ahead.append(_Ahead(prompt + text, len(prompt) + used))

        return _Shortened(self._client.generate(longer), sampling.stop, keep)

    def _cut(self, prompt: str, stops: Sequence[str]) -> Chunk | None:
        """What is known already to come after the prompt; each text goes to one gen only."""
        with self._lock:
            for place, ahead in enumerate(self._ahead):
                if len(prompt) < ahead.used or not ahead.text.startswith(prompt):
                    continue
                found = first_stop(ahead.text, stops, len(prompt))
                if found is None:
                    continue
                end, stop = found
                self._ahead[place] = replace(ahead, used=end)
                return _whole(ahead.text[len(prompt) : end], stop, Usage(0, 0, 0, 0))
        return None

    def score(self, request: ScoreRequest) -> Future[Scores]:
        return self._client.score(request)

    def control(self, action: ControlAction) -> dict[str, Any]:
        return self._client.control(action)

    def info(self) -> EngineInfo:
        return self._client.info()

    def close(self) -> None:
        self._client.close()


def _may_ask_ahead(request: GenerateRequest) -> bool:
    sampling = request.sampling
    return (
        bool(sampling.stop)
        and sampling.n == 1
        and sampling.max_tokens != 0
        and sampling.min_tokens == 0
        and sampling.constraint is None
        and request.logprobs is None
    )


def first_stop(text: str, stops: Sequence[str], start: int = 0) -> tuple[int, str] | None:
    """(where the first of the stops begins, that stop)."""
    found = [(at, stop) for stop in stops if (at := text.find(stop, start)) >= 0]
    return min(found, default=None)


def _whole(text: str, stop: str, usage: Usage) -> Chunk:
    return Chunk(0, text, (), usage, finish=FinishReason(FinishKind.STOP, stop))


class _Answered:
    """A stream whose only chunk is here."""

    def __init__(self, request_id: str, chunk: Chunk) -> None:
        self.request_id = request_id
        self._chunk = chunk

    def __iter__(self) -> Iterator[Chunk]:
        yield self._chunk

    def subscribe(self, on_event: Callable[[Event], None]) -> None:
        on_event(self._chunk)

    def close(self) -> None:
        """It has ended."""


class _Shortened:
    """A stream that ends at the first stop; `keep` gets all that came, and how much was shown."""

    def __init__(
        self, stream: Stream, stops: Sequence[str], keep: Callable[[str, int], None]
    ) -> None:
        self._stream = stream
        self._stops = stops
        self._keep = keep
        self._texts: list[str] = []

    @property
    def request_id(self) -> str:
        return self._stream.request_id

    def __iter__(self) -> Iterator[Chunk]:
        for chunk in self._stream:
            whole = self._take(chunk)
            if whole is not None:
                yield whole

    def subscribe(self, on_event: Callable[[Event], None]) -> None:
        def hear(event: Event) -> None:
            told = event if isinstance(event, BaseException) else self._take(event)
            if told is not None:
                on_event(told)

        self._stream.subscribe(hear)

    def close(self) -> None:
        self._stream.close()

    def _take(self, chunk: Chunk) -> Chunk | None:
        self._texts.append(chunk.text)
        if chunk.finish is None:
            return None
        text = "".join(self._texts)
        found = first_stop(text, self._stops)
        if found is None:
            return replace(chunk, text=text)
        end, stop = found
        self._keep(text, end)
        return _whole(text[:end], stop, chunk.usage)


# --- messages -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Blank:
    """A gen in a message's form: what comes before the first of its stops, or all that is left."""

    variable: Variable
    stops: tuple[str, ...]


@dataclass(frozen=True)
class Form:
    """A message's texts and gens in order."""

    parts: tuple[str | Blank, ...]

    def fit(self, answer: str) -> list[str] | None:
        """What each gen gets of an answer; None where it does not fit."""
        text, at = answer.lstrip(), 0
        values: list[str] = []
        for index, part in enumerate(self.parts):
            if isinstance(part, str):
                part = part.lstrip() if index == 0 else part
                if not text.startswith(part, at):
                    return None
                at += len(part)
                continue
            found = first_stop(text, part.stops, at)
            is_last = all(isinstance(rest, str) for rest in self.parts[index + 1 :])
            if found is None and (part.stops and not is_last):
                return None
            end = len(text) if found is None else found[0]
            values.append(text[at:end])
            at = end
            if is_last:  # what the program says after it need not have come
                break
        return values

    def text(self, values: Sequence[str]) -> str:
        left = iter(values)
        return "".join(part if isinstance(part, str) else next(left) for part in self.parts)

    @property
    def blanks(self) -> list[Blank]:
        return [part for part in self.parts if isinstance(part, Blank)]


def shared_sampling(all_of: Sequence[SamplingParams], num_tokens: int) -> SamplingParams:
    """How the one call samples. InvalidRequest where the gens of a message disagree."""
    bare = [replace(one, stop=(), max_tokens=num_tokens, min_tokens=0) for one in all_of]
    if any(one != bare[0] for one in bare) or bare[0].n != 1:
        raise InvalidRequest(
            "num_api_spec_tokens: the gens of one message must have the same sampling options, but "
            "for their stops, and n=1",
            field="num_api_spec_tokens",
        )
    return bare[0]


def unfit(answer: str) -> EngineError:
    return EngineError(
        f"num_api_spec_tokens: after {TRIES} tries no answer fits the message's form; the last "
        f"was {answer[:200]!r}"
    )
