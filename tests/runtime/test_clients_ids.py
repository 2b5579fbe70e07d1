"""Callers' names and wire ids: a name may be used again as soon as its request has ended, and no
message of its earlier use ever touches the later one."""

import importlib
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from sapwood.runtime.client import Event, Stream
from sapwood.runtime.dispatcher import Dispatcher
from sapwood.runtime.errors import Cancelled, EngineDied, EngineError, InvalidRequest
from sapwood.runtime.local import LocalClient
from sapwood.runtime.protocol import (
    Chunk,
    FinishKind,
    FinishReason,
    GenerateRequest,
    SamplingParams,
    ScoreRequest,
    TokenLogprob,
    Usage,
    as_prompt,
)
from sapwood.runtime.router import Router
from sapwood.runtime.text import TextCodec
from sapwood.runtime.tokenizer import TokenizerFiles
from sapwood.runtime.wire import Abort, Failed, ToEngine, TokenChunk, TokenRequest

sys.path.append(str(Path(__file__).parent))
fake_loop = importlib.import_module("fake_loop")

SECONDS = 30.0
LENGTH = FinishReason(FinishKind.LENGTH)


class Bench:
    """A router whose engine is the test: what was sent is recorded, answers are given by hand."""

    def __init__(self, files: TokenizerFiles) -> None:
        self.dispatcher = Dispatcher()
        self.router = Router(TextCodec(files, fake_loop.INFO), self.dispatcher, self.send)
        self.sent: list[ToEngine] = []
        self.before_aborts: Callable[[], object] = lambda: None
        self._streams: list[Stream] = []  # a dropped one would be closed

    def generate(self, name: str, n: int = 1) -> Stream:
        sampling = SamplingParams(n=n)
        request = GenerateRequest(as_prompt("ab"), sampling, request_id=name)
        self._streams.append(self.router.generate(request))
        return self._streams[-1]

    def send(self, messages: Sequence[ToEngine]) -> None:
        if isinstance(messages[0], Abort):
            self.before_aborts()
        self.sent += messages

    def requests(self) -> list[str]:
        return [message.id for message in self.sent if isinstance(message, TokenRequest)]

    def aborts(self) -> list[str]:
        return [message.id for message in self.sent if isinstance(message, Abort)]

    def answer(self, id: str, text: str, *, last: bool) -> None:
        tokens = tuple(text.encode())
        chunk = TokenChunk(id, tokens, Usage(1, 0, 1, 0), finish=LENGTH if last else None)
        self.router.deliver([chunk])


@pytest.fixture
def bench(byte_files: TokenizerFiles) -> Iterator[Bench]:
    made = Bench(byte_files)
    yield made
    made.router.die(EngineDied("the test is over"))
    made.dispatcher.stop(SECONDS)


def texts(chunks: Sequence[Chunk]) -> str:
    return "".join(chunk.text for chunk in chunks)


def test_what_a_closed_request_still_says_does_not_reach_the_next_of_its_name(
    bench: Bench,
) -> None:
    bench.generate("x").close()
    stream = bench.generate("x")
    first, second = bench.requests()
    bench.answer(first, "old", last=False)
    bench.answer(second, "ne", last=False)
    bench.answer(first, "old", last=True)
    bench.answer(second, "w", last=True)
    assert texts(list(stream)) == "new"


def test_an_abort_does_not_reach_the_next_request_of_its_name(bench: Bench) -> None:
    """Even one that is submitted before the abort is on its way."""
    bench.before_aborts = lambda: bench.generate("x", n=2)
    bench.generate("x", n=2).close()
    assert bench.aborts() == bench.requests()[:2]
    assert len(set(bench.requests())) == 4


def test_queued_answers_of_a_closed_request_are_nobodys(byte_files: TokenizerFiles) -> None:
    loop = fake_loop.FakeLoop()
    client = LocalClient(lambda: loop, byte_files)
    started, release = threading.Event(), threading.Event()

    def hold(event: Event) -> None:
        started.set()
        release.wait(SECONDS)

    client.generate(GenerateRequest(as_prompt("z"), SamplingParams(max_tokens=1))).subscribe(hold)
    assert started.wait(SECONDS)
    sampling = SamplingParams(max_tokens=5)
    old = client.generate(GenerateRequest(as_prompt("old"), sampling, request_id="x"))
    while loop.num_finished < 2:  # by then its chunks wait for the dispatcher, or soon do
        threading.Event().wait(0.005)
    old.close()
    new = client.generate(GenerateRequest(as_prompt("new"), sampling, request_id="x"))
    release.set()
    assert texts(list(new)) == "newne"
    with pytest.raises(Cancelled, match="request x was closed"):
        list(old)
    client.close()


# --- one unfinished request of a name ---------------------------------------------------------


def assert_refused(bench: Bench, name: str) -> None:
    num_sent = len(bench.sent)
    for n in (1, 3):
        with pytest.raises(InvalidRequest, match=f"request_id: '{name}' is the id") as raised:
            bench.generate(name, n)
        assert raised.value.field == "request_id"
    with pytest.raises(InvalidRequest, match=f"request_id: '{name}' is the id"):
        bench.router.score(ScoreRequest(as_prompt("ab"), ("c",), request_id=name))
    assert len(bench.sent) == num_sent


def test_a_name_is_taken_until_the_last_sample_ends(bench: Bench) -> None:
    stream = bench.generate("x", n=3)
    for id in bench.requests():
        assert_refused(bench, "x")
        bench.answer(id, "a", last=True)
    assert len(list(stream)) == 3
    bench.generate("x")
    assert_refused(bench, "x")


def test_a_name_is_taken_while_a_score_runs(bench: Bench) -> None:
    future = bench.router.score(ScoreRequest(as_prompt("ab"), ("c", "d"), request_id="x"))
    assert_refused(bench, "x")
    future.cancel()
    bench.generate("x")
    assert_refused(bench, "x")


# The byte tokenizer makes a token of each letter, and the first round scores the first of each.
EARLY = ScoreRequest(as_prompt("ab"), ("cxx", "cxy", "dx"), request_id="x", bound="columns")


def probe_answer(bench: Bench, id: str, prefer: str) -> None:
    """Every token asked for is unlikely but the preferred letter."""
    wire = next(m for m in bench.sent if isinstance(m, TokenRequest) and m.id == id)
    assert wire.probe is not None
    scored = tuple(
        TokenLogprob(token, -0.5 if token == ord(prefer) else -9.0)
        for targets in wire.probe.targets
        for token in targets
    )
    chunk = TokenChunk(id, (), Usage(2, 0, 0, 0), prompt_logprobs=scored, finish=LENGTH)
    bench.router.deliver([chunk])


def test_a_score_that_stops_early_asks_by_rounds_and_keeps_its_name(bench: Bench) -> None:
    future = bench.router.score(EARLY)
    (first,) = bench.requests()
    probe_answer(bench, first, prefer="c")
    assert not future.done()
    assert_refused(bench, "x")
    (_, second) = bench.requests()
    probe_answer(bench, second, prefer="y")
    scores = future.result(SECONDS)
    assert [len(option.logprobs) for option in scores.options] == [3, 3, 1]
    assert scores.usage.prompt_tokens == 4
    assert bench.aborts() == []
    bench.generate("x")
    assert_refused(bench, "x")


def test_a_score_that_is_certain_at_once_ends_after_one_round(bench: Bench) -> None:
    future = bench.router.score(EARLY)
    probe_answer(bench, bench.requests()[0], prefer="d")
    assert [option.logprobs for option in future.result(SECONDS).options] == [
        (-9.0,),
        (-9.0,),
        (-0.5,),
    ]
    assert len(bench.requests()) == 1


@pytest.mark.parametrize("end", ["cancel", "failure", "unreadable", "death"])
def test_a_later_round_ends_as_the_first_does(bench: Bench, end: str) -> None:
    future = bench.router.score(EARLY)
    probe_answer(bench, bench.requests()[0], prefer="c")
    second = bench.requests()[1]
    if end == "cancel":
        assert future.cancel()
        assert bench.aborts() == [second]
        probe_answer(bench, second, prefer="x")  # was on its way: nobody's
    elif end == "failure":
        bench.router.deliver([Failed(second, EngineError("no"))])
    elif end == "unreadable":
        bench.answer(second, "", last=True)
    else:
        bench.router.die(EngineDied("gone"))
    if end == "cancel":
        assert future.cancelled()
    else:
        with pytest.raises(EngineError, match="no|could not be read|gone"):
            future.result(SECONDS)
        assert bench.aborts() == []
    assert len(bench.requests()) == 2
    if end != "death":
        bench.generate("x")
        assert_refused(bench, "x")


def test_a_round_that_cannot_be_sent_ends_the_score(bench: Bench) -> None:
    future = bench.router.score(EARLY)
    (first,) = bench.requests()

    def broken(messages: Sequence[ToEngine]) -> None:
        if isinstance(messages[0], TokenRequest):
            raise OSError("the pipe is closed")

    bench.router._send = broken
    probe_answer(bench, first, prefer="c")
    with pytest.raises(EngineError, match="the pipe is closed"):
        future.result(SECONDS)


def test_closing_again_does_not_free_the_next_request_of_the_name(bench: Bench) -> None:
    first = bench.generate("x")
    first.close()
    bench.generate("x")
    first.close()
    assert_refused(bench, "x")
    assert len(bench.aborts()) == 1


def test_a_name_that_looks_like_a_wire_id_is_no_clash(bench: Bench) -> None:
    streams = [bench.generate("x")]
    streams += [bench.generate(name) for name in (*bench.requests(), "x/0", "1")]
    assert len(set(bench.requests())) == len(streams) == 4


@pytest.mark.parametrize("end", ["finish", "failure"])
def test_who_hears_of_the_end_may_use_the_name_at_once(bench: Bench, end: str) -> None:
    heard: list[Event] = []
    ended = threading.Event()

    def reuse(event: Event) -> None:
        heard.append(event)
        bench.generate("x")
        ended.set()

    stream = bench.generate("x", n=1 if end == "finish" else 3)
    stream.subscribe(reuse)
    ids = bench.requests()
    if end == "finish":
        bench.dispatcher.post(lambda: bench.answer(ids[0], "a", last=True))
    else:
        failed = Failed(ids[1], EngineError("no"))
        bench.dispatcher.post(lambda: bench.router.deliver([failed]))
    assert ended.wait(SECONDS)
    assert len(heard) == 1
    assert len(bench.requests()) == len(ids) + 1  # it was not refused
    # The samples beside the one that failed are aborted, and no other.
    assert sorted(bench.aborts()) == sorted([*ids[:1], *ids[2:]] if end == "failure" else [])


def test_an_answer_that_cannot_be_read_ends_its_call_and_frees_the_name(bench: Bench) -> None:
    future = bench.router.score(ScoreRequest(as_prompt("ab"), ("c",), request_id="x"))
    bench.answer(bench.requests()[0], "", last=True)  # without the log-probabilities
    with pytest.raises(EngineError, match="could not be read: .* those of request x"):
        future.result(SECONDS)
    bench.generate("x")
    assert_refused(bench, "x")
