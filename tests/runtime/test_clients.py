"""The four promises of `Client`, over every client that has an engine behind it."""

import asyncio
import importlib
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from sapwood.lang.backends import RuntimeEndpoint
from sapwood.lang.backends.remote import RemoteClient
from sapwood.runtime.aio import AsyncBridge, BridgedStream
from sapwood.runtime.client import Client, Event
from sapwood.runtime.contenders import contenders
from sapwood.runtime.errors import Cancelled, EngineDied, EngineError, InvalidRequest
from sapwood.runtime.local import LocalClient
from sapwood.runtime.process import ProcessClient
from sapwood.runtime.protocol import (
    Bound,
    Chunk,
    GenerateRequest,
    Ids,
    LogprobOptions,
    SamplingParams,
    ScoreRequest,
    Scores,
    Text,
    as_prompt,
)
from sapwood.runtime.tokenizer import TokenizerFiles
from sapwood.server.app import create_app

sys.path.append(str(Path(__file__).parent))  # the child process looks here for its engine too
fake_loop = importlib.import_module("fake_loop")

SECONDS = 30.0  # a wait that takes this long is a hang


class SyncStream:
    """An async stream read from a thread."""

    def __init__(self, stream: BridgedStream, loop: asyncio.AbstractEventLoop) -> None:
        self._stream = stream
        self._loop = loop
        self._chunks = aiter(stream)

    @property
    def request_id(self) -> str:
        return self._stream.request_id

    def __iter__(self) -> Iterator[Chunk]:
        while (chunk := self._run(anext(self._chunks, None))) is not None:
            yield chunk

    def subscribe(self, on_event: Callable[[Event], None]) -> None:
        asyncio.run_coroutine_threadsafe(self._pump(on_event), self._loop)

    async def _pump(self, on_event: Callable[[Event], None]) -> None:
        try:
            async for chunk in self._stream:
                on_event(chunk)
        except Exception as error:
            on_event(error)

    def close(self) -> None:
        self._run(self._stream.close())

    def _run(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(SECONDS)


class SyncClient:
    """An AsyncBridge called from threads, so that the same tests judge it."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._bridge = AsyncBridge(client)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def _run(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(SECONDS)

    def generate(self, request: GenerateRequest) -> SyncStream:
        return SyncStream(self._run(self._bridge.generate(request)), self._loop)

    def score(self, request: ScoreRequest) -> "Future[Scores]":
        return asyncio.run_coroutine_threadsafe(self._bridge.score(request), self._loop)

    def control(self, action: Any) -> dict[str, Any]:
        return self._run(self._bridge.control(action))

    def info(self) -> Any:
        return self._run(self._bridge.info())

    def close(self) -> None:
        if self._loop.is_running():
            self._run(self._bridge.close())

    def stop(self) -> None:
        self.close()
        self._run(self._loop.shutdown_default_executor())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(SECONDS)
        self._loop.close()


class HttpClient:
    """A client in this process behind a server, as a program elsewhere has it."""

    def __init__(self, made: Client) -> None:
        config = uvicorn.Config(
            create_app(AsyncBridge(made)), port=0, lifespan="off", log_level="error"
        )
        config.timeout_graceful_shutdown = 1
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, daemon=True)
        self._thread.start()
        eventually(lambda: self._server.started)
        port = self._server.servers[0].sockets[0].getsockname()[1]
        self.endpoint = RuntimeEndpoint(f"http://127.0.0.1:{port}")

    def stop(self) -> None:
        self.endpoint.close()
        self._server.should_exit = True
        self._thread.join(SECONDS)
        assert not self._thread.is_alive()


KINDS = ["thread", "process", "async", "http"]


@pytest.fixture(params=KINDS)
def client(request: pytest.FixtureRequest, byte_files: TokenizerFiles) -> Iterator[Client]:
    if request.param == "process":
        made: Any = ProcessClient("fake_loop:build", (), lambda: byte_files)
    else:
        made = LocalClient(fake_loop.build, byte_files)
    if request.param == "async":
        wrapped = SyncClient(made)
        yield wrapped
        wrapped.stop()
    elif request.param == "http":
        served = HttpClient(made)
        yield served.endpoint.client
        served.stop()
    else:
        yield made
    made.close()


def ask(text: str, namespace: str = "", **sampling: Any) -> GenerateRequest:
    options = {"max_tokens": 5, **sampling}
    return GenerateRequest(as_prompt(text), SamplingParams(**options), namespace=namespace)


class Listener:
    """Everything that a stream said, and when it ended."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.ended = threading.Event()
        self._num_open = 1

    def listen(self, client: Client, request: GenerateRequest) -> "Listener":
        self._num_open = request.sampling.n
        self.stream = client.generate(request)
        self.stream.subscribe(self)
        return self

    def __call__(self, event: Event) -> None:
        self.events.append(event)
        if isinstance(event, BaseException):
            self._num_open = 0
        elif event.finish is not None:
            self._num_open -= 1
        if self._num_open == 0:
            self.ended.set()

    @property
    def num_ends(self) -> int:
        finishes = [e for e in self.events if isinstance(e, BaseException) or e.finish is not None]
        return len(finishes)

    @property
    def error(self) -> BaseException:
        last = self.events[-1]
        assert isinstance(last, BaseException)
        return last


def eventually(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.005)


# --- one end for every request ----------------------------------------------------------------


def test_a_request_is_answered_in_order(client: Client) -> None:
    chunks = list(client.generate(ask("abc")))
    assert [chunk.token_ids for chunk in chunks] == [(97,), (98,), (99,), (97,), (98,)]
    assert "".join(chunk.text for chunk in chunks) == "abcab"
    assert [chunk.prompt_ids for chunk in chunks] == [(97, 98, 99)] + [None] * 4
    assert [chunk.finish is None for chunk in chunks] == [True] * 4 + [False]
    assert chunks[-1].kept_ids == (97, 98, 99, 97, 98)
    assert chunks[-1].tail == ""


def test_a_thousand_requests_end_once_each(client: Client) -> None:
    requests = [
        ask(f"req {i} ", "fail" if i % 7 == 0 else "", max_tokens=i % 4) for i in range(1000)
    ]
    listeners = [Listener().listen(client, request) for request in requests]
    for i, listener in enumerate(listeners):
        assert listener.ended.wait(SECONDS)
        assert listener.num_ends == 1, f"request {i}"
        if i % 7 == 0 and i % 4 > 1:
            assert isinstance(listener.error, InvalidRequest)
            assert listener.error.field == "stop_regex"
        else:
            assert sum(len(event.token_ids) for event in listener.events) == i % 4  # type: ignore[union-attr]
    assert client.control("stats")["running"] == []


def test_samples_end_one_by_one_and_keep_their_order(client: Client) -> None:
    chunks = list(client.generate(ask("xyz", n=4)))
    for index in range(4):
        mine = [chunk for chunk in chunks if chunk.index == index]
        assert [chunk.token_ids[0] for chunk in mine] == [120, 121, 122, 120, 121]
        assert [chunk.finish is not None for chunk in mine] == [False] * 4 + [True]
        assert mine[0].prompt_ids == (120, 121, 122)
    assert sum(chunk.finish is not None for chunk in chunks) == 4


def test_prefill_only_gives_one_empty_final_chunk(client: Client) -> None:
    (chunk,) = client.generate(ask("abc", max_tokens=0))
    assert (chunk.text, chunk.token_ids, chunk.kept_ids) == ("", (), ())
    assert chunk.finish is not None


def test_one_sample_that_fails_ends_the_stream_and_the_others(client: Client) -> None:
    listener = Listener().listen(client, ask("ab", "fail", n=3))
    assert listener.ended.wait(SECONDS)
    assert isinstance(listener.error, InvalidRequest)
    assert listener.num_ends == 1
    eventually(lambda: client.control("stats")["running"] == [])


def test_a_bad_prompt_is_refused_and_harms_nobody(client: Client) -> None:
    with pytest.raises(InvalidRequest, match="it is empty"):
        list(client.generate(ask("")))  # it is refused at the call, or by a server
    with pytest.raises(InvalidRequest, match="token id 257 is outside the vocabulary of 257"):
        list(client.generate(GenerateRequest((Ids((1, 257)),))))
    assert len(list(client.generate(ask("ok")))) == 5


def test_an_id_is_refused_while_its_request_runs(client: Client) -> None:
    stream = client.generate(ask("ab", "forever"))
    with pytest.raises(InvalidRequest, match=stream.request_id):
        client.generate(GenerateRequest(as_prompt("x"), request_id=stream.request_id))
    stream.close()
    assert list(client.generate(GenerateRequest(as_prompt("x"), request_id=stream.request_id)))


def test_logprobs_are_spelled_where_asked(client: Client) -> None:
    request = GenerateRequest(
        as_prompt("hé"), SamplingParams(max_tokens=1), LogprobOptions(start=1, top=1, text=True)
    )
    (chunk,) = client.generate(request)
    assert chunk.prompt_logprobs is not None
    assert [entry.piece for entry in chunk.prompt_logprobs] == [b"\xc3", b"\xa9"]
    assert (chunk.logprobs[0].piece, chunk.logprobs[0].top_pieces) == (b"h", (b"h",))


# --- closing early ----------------------------------------------------------------------------


def test_closing_aborts_and_wakes_the_reader(client: Client) -> None:
    stream = client.generate(ask("ab", "forever", n=2))
    chunks = iter(stream)
    assert next(chunks).text == "a"
    threading.Timer(0.05, stream.close).start()
    with pytest.raises(Cancelled):
        for _ in chunks:
            pass
    stream.close()
    eventually(lambda: client.control("stats")["running"] == [])
    assert len(set(client.control("stats")["aborted"])) == 2
    assert len(list(client.generate(ask("next")))) == 5


def test_a_subscriber_hears_of_its_own_close_once(client: Client) -> None:
    listener = Listener().listen(client, ask("ab", "forever"))
    listener.stream.close()
    listener.stream.close()
    assert listener.ended.wait(SECONDS)
    assert isinstance(listener.error, Cancelled)
    assert listener.num_ends == 1


def test_closing_a_finished_stream_does_nothing(client: Client) -> None:
    stream = client.generate(ask("ab"))
    assert len(list(stream)) == 5
    stream.close()
    assert list(stream) == []
    assert client.control("stats")["aborted"] == []


# --- scores and controls ----------------------------------------------------------------------


def test_scores_hold_the_options_own_tokens(client: Client) -> None:
    request = ScoreRequest(as_prompt("ab"), ("c", "cd"), unconditional=True)
    scores = client.score(request).result(SECONDS)
    assert scores.prompt_ids == (97, 98)
    assert [option.token_ids for option in scores.options] == [(99,), (99, 100)]
    whole = (97, 98, 99, 100)
    assert scores.options[1].logprobs == tuple(fake_loop.logprob(whole, at) for at in (2, 3))
    assert scores.options[0].unconditional == (None,)
    assert scores.options[1].unconditional == (None, fake_loop.logprob((99, 100), 1))
    # The prompt with what the options share, and that alone; never an option's last token.
    assert scores.usage.prompt_tokens == 3 + 1


@pytest.mark.parametrize(
    ("bound", "options"),
    [("columns", ("cab", "cad", "dab", "e")), ("means", ("cab", "cad", "dab", "B"))],
)
def test_a_score_that_stops_early_knows_part_of_the_same_numbers(
    client: Client, bound: Bound, options: tuple[str, ...]
) -> None:
    whole = client.score(ScoreRequest(as_prompt("ab"), options)).result(SECONDS)
    early = client.score(ScoreRequest(as_prompt("ab"), options, bound=bound)).result(SECONDS)
    assert early.prompt_ids == whole.prompt_ids
    for some, every in zip(early.options, whole.options, strict=True):
        assert some.token_ids == every.token_ids
        assert some.logprobs == every.logprobs[: len(some.logprobs)]
    assert sum(len(o.logprobs) for o in early.options) < sum(len(o.logprobs) for o in whole.options)
    assert contenders(bound, early.options) == contenders(bound, whole.options)


def test_cancelling_a_score_aborts_its_requests(client: Client) -> None:
    future = client.score(ScoreRequest(as_prompt("ab"), ("cx", "dx"), namespace="forever"))
    eventually(lambda: len(client.control("stats")["running"]) == 2)
    assert future.cancel()
    assert wait([future], SECONDS).done
    eventually(lambda: client.control("stats")["running"] == [])
    assert len(client.control("stats")["aborted"]) == 2


def test_a_failed_control_is_its_callers_alone(client: Client) -> None:
    stream = client.generate(ask("ab", "forever"))
    if isinstance(client, RemoteClient):
        with pytest.raises(InvalidRequest, match="check_integrity"):
            client.control("check_integrity")
    else:
        with pytest.raises(AssertionError, match="page 7 is held twice"):
            client.control("check_integrity")
    # This error cannot be pickled; over a process its text comes.
    with pytest.raises((fake_loop.Unpicklable, EngineError), match="1 and 2|Unpicklable"):
        client.control("flush_cache")
    assert next(iter(stream)).text == "a"
    stream.close()


def test_info_is_the_engines(client: Client) -> None:
    assert client.info() == fake_loop.INFO


# --- death and close --------------------------------------------------------------------------


def everyone_waiting(client: Client) -> tuple[list[Listener], "Future[Scores]", Any]:
    """Two subscribers, a score and a reader, none of which gets its end by itself."""
    listeners = [Listener().listen(client, ask("ab", "forever", n=n)) for n in (1, 2)]
    score = client.score(ScoreRequest(as_prompt("ab"), ("c",), namespace="forever"))
    eventually(lambda: len(client.control("stats")["running"]) == 4)
    return listeners, score, client.generate(ask("ab", "forever"))


def assert_all_died(client: Client, waiting: Any, match: str) -> None:
    listeners, score, stream = waiting
    with pytest.raises(EngineDied, match=match):
        for _ in stream:
            pass
    for listener in listeners:
        assert listener.ended.wait(SECONDS)
        assert isinstance(listener.error, EngineDied)
        assert listener.num_ends == 1
    with pytest.raises(EngineDied, match=match):
        score.result(SECONDS)
    with pytest.raises(EngineDied):
        list(client.generate(ask("ab")))
    with pytest.raises(EngineDied):
        client.score(ScoreRequest(as_prompt("ab"), ("c",))).result(SECONDS)
    with pytest.raises(EngineDied):
        client.control("stats")


def test_a_dead_engine_wakes_everyone(client: Client) -> None:
    waiting = everyone_waiting(client)
    with pytest.raises(EngineDied, match="out of luck") as raised:
        list(client.generate(ask("ab", "die")))
    assert isinstance(raised.value.__cause__, RuntimeError) or isinstance(client, RemoteClient)
    assert_all_died(client, waiting, "the engine died: RuntimeError: out of luck")
    client.close()


def test_closing_the_client_ends_everything_and_may_be_repeated(client: Client) -> None:
    waiting = everyone_waiting(client)
    client.close()
    client.close()
    assert_all_died(client, waiting, "closed")


def test_many_threads_at_once(client: Client) -> None:
    texts: dict[int, str] = {}

    def work(number: int) -> None:
        for _ in range(20):
            texts[number] = "".join(chunk.text for chunk in client.generate(ask(f"{number:03d}")))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SECONDS)
    assert texts == {number: f"{number:03d}{number:03d}"[:5] for number in range(16)}


def test_text_parts_and_ids_make_one_prompt(client: Client) -> None:
    request = GenerateRequest((Ids((1, 2)), Text("a"), Text("b")), SamplingParams(max_tokens=1))
    (chunk,) = client.generate(request)
    assert chunk.prompt_ids == (1, 2, 97, 98)


def test_with_nothing_to_generate_the_likeliest_next_tokens_are_told(client: Client) -> None:
    request = GenerateRequest(
        as_prompt("abc"), SamplingParams(max_tokens=0, n=2), LogprobOptions(top=1)
    )
    chunks = list(client.generate(request))
    assert [chunk.index for chunk in chunks] == [0, 1]
    for chunk in chunks:
        assert (chunk.text, chunk.token_ids, chunk.kept_ids) == ("", (), ())
        assert chunk.finish is not None and chunk.finish.kind == "length"
        assert [len(entry.top) for entry in chunk.logprobs] == [1]
        assert chunk.usage.completion_tokens == 0
    assert client.control("stats")["running"] == []
