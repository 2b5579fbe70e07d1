"""Streams and their readers: subscribers that misbehave, streams that are dropped, interpreters
that end."""

import asyncio
import gc
import importlib
import logging
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sapwood.runtime.aio import AsyncBridge
from sapwood.runtime.client import Event
from sapwood.runtime.errors import Cancelled, EngineDied
from sapwood.runtime.local import LocalClient
from sapwood.runtime.protocol import (
    Chunk,
    GenerateRequest,
    SamplingParams,
    ScoreRequest,
    as_prompt,
)
from sapwood.runtime.tokenizer import TokenizerFiles

HERE = str(Path(__file__).parent)
sys.path.append(HERE)
fake_loop = importlib.import_module("fake_loop")

SECONDS = 30.0


@pytest.fixture
def client(byte_files: TokenizerFiles) -> Iterator[LocalClient]:
    made = LocalClient(fake_loop.build, byte_files)
    yield made
    made.close()


def ask(text: str, namespace: str = "", **sampling: Any) -> GenerateRequest:
    options = {"max_tokens": 5, **sampling}
    return GenerateRequest(as_prompt(text), SamplingParams(**options), namespace=namespace)


def running(client: LocalClient) -> list[str]:
    ids: list[str] = client.control("stats")["running"]
    return ids


def eventually(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.005)


# --- subscribers ------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [ValueError, SystemExit])
def test_a_subscriber_that_raises_loses_its_stream_alone(
    client: LocalClient, caplog: pytest.LogCaptureFixture, kind: type[BaseException]
) -> None:
    heard: list[Event] = []

    def raise_at_once(event: Event) -> None:
        heard.append(event)
        raise kind("not today")

    good = client.generate(ask("ab", max_tokens=50))
    with caplog.at_level(logging.ERROR):
        client.generate(ask("ab", "forever")).subscribe(raise_at_once)
        assert len(list(good)) == 50
        eventually(lambda: running(client) == [])
    assert len(heard) == 1
    assert "the subscriber of a stream raised" in caplog.text
    assert "not today" in caplog.text


def test_a_slow_subscriber_does_not_stop_the_engine(byte_files: TokenizerFiles) -> None:
    loop = fake_loop.FakeLoop()
    client = LocalClient(lambda: loop, byte_files)
    release, started = threading.Event(), threading.Event()

    def wait_for_release(event: Event) -> None:
        started.set()
        release.wait(SECONDS)

    client.generate(ask("ab", max_tokens=2)).subscribe(wait_for_release)
    assert started.wait(SECONDS)
    # The dispatcher is held; the engine takes a request and finishes it all the same.
    stream = client.generate(ask("abc"))
    eventually(lambda: loop.num_finished == 2)
    release.set()
    assert len(list(stream)) == 5
    client.close()
    assert loop.is_closed


def test_events_that_came_before_the_subscriber_are_heard_first(client: LocalClient) -> None:
    stream = client.generate(ask("abc"))
    assert len(list(client.generate(ask("later")))) == 5  # by now the first has ended too
    heard: list[Event] = []
    ended = threading.Event()

    def hear(event: Event) -> None:
        heard.append(event)
        assert threading.current_thread().name == "sapwood-dispatcher"
        if isinstance(event, Chunk) and event.finish is not None:
            ended.set()

    stream.subscribe(hear)
    assert ended.wait(SECONDS)
    assert [event.text for event in heard if isinstance(event, Chunk)] == list("abcab")


def test_a_subscriber_may_close_start_and_subscribe(client: LocalClient) -> None:
    """A chain of generations, each started by the end of the one before, needs no thread."""
    num_left = 500
    done = threading.Event()

    def next_one(event: Event) -> None:
        nonlocal num_left
        if isinstance(event, Chunk) and event.finish is None:
            return
        num_left -= 1
        if num_left == 0:
            done.set()
        else:
            client.generate(ask("ab", max_tokens=1)).subscribe(next_one)

    client.generate(ask("ab", max_tokens=1)).subscribe(next_one)
    assert done.wait(SECONDS)


def test_a_subscriber_that_closes_its_own_stream_hears_cancelled_last(client: LocalClient) -> None:
    heard: list[Event] = []
    ended = threading.Event()
    stream = client.generate(ask("ab", "forever"))

    def close_at_third(event: Event) -> None:
        heard.append(event)
        if len(heard) == 3:
            stream.close()
        if isinstance(event, BaseException):
            ended.set()

    stream.subscribe(close_at_third)
    assert ended.wait(SECONDS)
    assert [type(event) for event in heard] == [Chunk, Chunk, Chunk, Cancelled]


def test_a_stream_has_one_reader(client: LocalClient) -> None:
    stream = client.generate(ask("ab"))
    stream.subscribe(lambda event: None)
    with pytest.raises(RuntimeError, match="subscriber"):
        next(iter(stream))
    with pytest.raises(RuntimeError, match="a reader already"):
        stream.subscribe(lambda event: None)
    other = client.generate(ask("ab"))
    chunks = iter(other)
    next(chunks)
    with pytest.raises(RuntimeError, match="a reader already"):
        other.subscribe(lambda event: None)


def test_waiting_in_a_callback_is_refused_and_not_a_hang(client: LocalClient) -> None:
    refusals: list[str] = []
    done = threading.Event()

    def wait_inside(event: Event) -> None:
        for wait in (lambda: client.control("stats"), lambda: list(client.generate(ask("x")))):
            try:
                wait()
            except RuntimeError as error:
                refusals.append(str(error))
        done.set()

    client.generate(ask("ab", max_tokens=1)).subscribe(wait_inside)
    assert done.wait(SECONDS)
    assert len(refusals) == 2


def test_a_callback_may_close_the_client(byte_files: TokenizerFiles) -> None:
    client = LocalClient(fake_loop.build, byte_files)
    closed = threading.Event()

    def close(event: Event) -> None:
        client.close()
        closed.set()

    other = client.generate(ask("ab", "forever"))
    client.generate(ask("ab", max_tokens=1)).subscribe(close)
    assert closed.wait(SECONDS)
    with pytest.raises(EngineDied):
        list(other)
    client.close()


def test_a_subscriber_that_comes_after_the_close_hears_of_it(byte_files: TokenizerFiles) -> None:
    client = LocalClient(fake_loop.build, byte_files)
    stream = client.generate(ask("ab", "forever"))
    client.close()
    heard: list[Event] = []
    stream.subscribe(heard.append)
    assert isinstance(heard[-1], EngineDied)


# --- dropped streams --------------------------------------------------------------------------


def test_a_stream_that_is_dropped_is_aborted(client: LocalClient) -> None:
    stream = client.generate(ask("ab", "forever"))
    assert len(running(client)) == 1
    del stream
    gc.collect()
    eventually(lambda: running(client) == [])


def test_leaving_a_loop_over_a_stream_aborts_it(client: LocalClient) -> None:
    for _ in client.generate(ask("ab", "forever")):
        break
    gc.collect()
    eventually(lambda: running(client) == [])


def test_a_stream_read_by_a_subscriber_or_an_iterator_lives_on(client: LocalClient) -> None:
    ended = threading.Event()
    client.generate(ask("ab", max_tokens=3)).subscribe(
        lambda event: ended.set() if isinstance(event, Chunk) and event.finish else None
    )
    chunks = iter(client.generate(ask("ab", max_tokens=3)))
    gc.collect()
    assert ended.wait(SECONDS)
    assert len(list(chunks)) == 3


# --- async ------------------------------------------------------------------------------------


def test_closing_an_async_stream_aborts(client: LocalClient) -> None:
    async def main() -> None:
        bridge = AsyncBridge(client)
        async with await bridge.generate(ask("ab", "forever")) as stream:
            async for chunk in stream:
                assert chunk.text == "a"
                break
        with pytest.raises(Cancelled):
            async for _ in stream:
                pass
        with pytest.raises(Cancelled):
            async for _ in stream:
                pass
        assert (await bridge.control("stats"))["running"] == []

    asyncio.run(main())


def test_cancelling_the_reading_task_leaves_the_stream_to_its_owner(client: LocalClient) -> None:
    async def main() -> None:
        bridge = AsyncBridge(client)
        stream = await bridge.generate(ask("ab", "forever"))

        async def read() -> None:
            async for _ in stream:
                pass

        task = asyncio.create_task(read())
        await asyncio.sleep(0.02)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await stream.close()
        assert (await bridge.control("stats"))["running"] == []

    asyncio.run(main())


def test_cancelling_while_a_call_starts_undoes_it(client: LocalClient) -> None:
    """Tokenizing runs on a thread that cannot be cancelled; what it starts must not run on."""
    entered, go_on = threading.Event(), threading.Event()

    class Slow:
        """Starts calls only when told to."""

        def __getattr__(self, name: str) -> Any:
            def call(*args: Any) -> Any:
                entered.set()
                assert go_on.wait(SECONDS)
                return getattr(client, name)(*args)

            return call

    async def main(start: Callable[[AsyncBridge], Any]) -> None:
        entered.clear()
        go_on.clear()
        task = asyncio.create_task(start(AsyncBridge(Slow())))  # type: ignore[arg-type]
        await asyncio.to_thread(entered.wait, SECONDS)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        go_on.set()
        await asyncio.sleep(0.02)

    score = ScoreRequest(as_prompt("ab"), ("c",), namespace="forever")
    for start in (lambda b: b.generate(ask("ab", "forever")), lambda b: b.score(score)):
        asyncio.run(main(start))
        assert entered.is_set()
        eventually(lambda: running(client) == [])
    assert len(client.control("stats")["aborted"]) == 2


def test_cancelling_an_awaited_score_aborts_it(client: LocalClient) -> None:
    async def main() -> None:
        bridge = AsyncBridge(client)
        request = ScoreRequest(as_prompt("ab"), ("c",), namespace="forever")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(bridge.score(request), 0.05)
        eventually(lambda: running(client) == [])

    asyncio.run(main())


# --- building and ending ----------------------------------------------------------------------


def test_what_building_raises_is_raised_by_the_constructor(byte_files: TokenizerFiles) -> None:
    before = threading.active_count()
    with pytest.raises(ValueError, match="not a model"):
        LocalClient(fake_loop.build_nothing, byte_files)
    assert threading.active_count() == before


def test_close_ends_both_threads(byte_files: TokenizerFiles) -> None:
    before = threading.active_count()
    client = LocalClient(fake_loop.build, byte_files)
    assert threading.active_count() == before + 2
    client.close()
    assert threading.active_count() == before


SCRIPT = """
import sys
sys.path.append({here!r})
import fake_loop, text_files
from sapwood.runtime.local import LocalClient
from sapwood.runtime.process import ProcessClient
from sapwood.runtime.protocol import GenerateRequest, as_prompt
files = text_files.single_bytes()
made = [LocalClient(fake_loop.build, files), ProcessClient("fake_loop:build", (), lambda: files)]
request = GenerateRequest(as_prompt("ab"), namespace="forever")
streams = [client.generate(request) for client in made]
print([next(iter(stream)).text for stream in streams], made[1].pid, flush=True)
"""


def test_an_interpreter_that_closes_nothing_ends_all_the_same() -> None:
    script = SCRIPT.format(here=HERE)
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=SECONDS
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("['a', 'a'] ")
    assert done.stderr == ""
    pid = int(done.stdout.split()[-1])
    assert not Path(f"/proc/{pid}").exists()
