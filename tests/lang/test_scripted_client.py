"""The scripted client keeps the promises of a Client, so that what is tested on it holds."""

import logging
import threading

import pytest

from sapwood.runtime.errors import Cancelled, EngineDied, EngineError, InvalidRequest
from sapwood.runtime.protocol import (
    GenerateRequest,
    Ids,
    LogprobOptions,
    SamplingParams,
    ScoreRequest,
    Text,
    as_prompt,
)
from sapwood.runtime.scripted_replies import STALL, Reply
from sapwood.runtime.toy_tokens import decode, encode, encode_prompt

pytestmark = pytest.mark.timeout(30)


def ask(text="q", **sampling):
    return GenerateRequest(as_prompt(text), SamplingParams(**sampling))


def events_of(stream):
    """Subscribes and returns (list of events, event that is set when it is complete)."""
    events, complete = [], threading.Event()
    unfinished = stream.request.sampling.n

    def hear(event):
        nonlocal unfinished
        events.append(event)
        unfinished -= isinstance(event, BaseException) or event.finish is not None
        if isinstance(event, BaseException) or not unfinished:
            complete.set()

    stream.subscribe(hear)
    return events, complete


def test_toy_tokens():
    text = Text("<|im_start|>é<|im_end|>", special=True)
    assert encode(text) == (256, 0xC3, 0xA9, 257)
    assert decode(encode(text)) == text.text
    assert encode(Text("<|im_end|>")) == tuple(b"<|im_end|>")
    assert encode_prompt((Ids((1, 2)), Text("a"))) == (1, 2, 97)


@pytest.mark.parametrize("subscribe", [False, True])
def test_one_finish_per_sample_and_chunks_in_order(scripted, subscribe):
    client = scripted([[Reply("abc", chunk_size=1), Reply("é", tail="x"), "z"]])
    stream = client.generate(ask(n=3))
    if subscribe:
        events, complete = events_of(stream)
        assert complete.wait(10)
    else:
        events = list(stream)
    for index, text in enumerate(["abc", "éx", "z"]):
        chunks = [event for event in events if event.index == index]
        assert "".join(chunk.text for chunk in chunks) == text
        assert [chunk.finish is not None for chunk in chunks] == [False] * (len(chunks) - 1) + [
            True
        ]
        assert chunks[0].prompt_ids == (ord("q"),)
        kept = text.removesuffix(chunks[-1].tail).encode()
        assert chunks[-1].kept_ids == tuple(kept)
        assert chunks[-1].usage.completion_tokens == len(kept)


@pytest.mark.parametrize("subscribe", [False, True])
def test_an_error_ends_the_stream(scripted, subscribe):
    client = scripted([Reply("ab", chunk_size=1, error=EngineError("boom"))])
    stream = client.generate(ask())
    if subscribe:
        events, complete = events_of(stream)
        assert complete.wait(10)
        error = events.pop()
        assert [event.text for event in events] == ["a", "b"]
    else:
        with pytest.raises(EngineError) as caught:
            list(stream)
        error = caught.value
    assert str(error) == "boom"
    stream.close()
    assert client.aborted == []


def test_callbacks_run_on_the_dispatcher_thread_only(scripted):
    client = scripted(lambda r: Reply("abc", chunk_size=1))
    threads = set()
    done = threading.Event()

    def hear(chunk):
        threads.add(threading.current_thread())
        if chunk.finish:
            done.set()

    client.generate(ask()).subscribe(hear)
    assert done.wait(10)
    future = client.score(ScoreRequest(as_prompt("q"), ("a",)))
    future.add_done_callback(lambda f: None)
    future.result(10)
    assert len(threads) == 1
    assert threading.main_thread() not in threads


def test_closing_ends_a_reader_and_counts_once(scripted):
    client = scripted([STALL])
    stream = client.generate(ask())
    threading.Timer(0.02, stream.close).start()
    with pytest.raises(Cancelled):
        list(stream)
    stream.close()
    assert client.aborted == [stream.request_id]


def test_death_wakes_everyone_and_refuses_the_rest(scripted):
    client = scripted(lambda r: STALL, scores=lambda r: None)
    stream, other = client.generate(ask()), client.generate(ask())
    events, complete = events_of(other)
    future = client.score(ScoreRequest(as_prompt("q"), ("a", "b")))
    client.die()
    with pytest.raises(EngineDied):
        list(stream)
    with pytest.raises(EngineDied):
        future.result(10)
    assert complete.wait(10)
    assert isinstance(events[0], EngineDied)
    for call in (
        lambda: client.generate(ask()),
        lambda: client.score(ScoreRequest(as_prompt("q"), ("a",))),
        lambda: client.control("stats"),
    ):
        with pytest.raises(EngineDied):
            call()
    client.close()
    client.close()


def test_a_subscriber_that_raises_ends_its_own_stream_only(scripted, caplog):
    client = scripted(["a", "b"])

    def broken(event):
        raise ZeroDivisionError

    with caplog.at_level(logging.CRITICAL):
        client.generate(ask()).subscribe(broken)
        assert [chunk.text for chunk in client.generate(ask())] == ["b"]


def test_cancelling_a_score_is_recorded(scripted):
    client = scripted([], scores=lambda r: None)
    request = ScoreRequest(as_prompt("q"), ("a",))
    assert client.score(request).cancel()
    assert client.aborted == [request.request_id]


def test_scripts(scripted):
    client = scripted(["one", EngineError("two")])
    assert [c.text for c in client.generate(ask())] == ["one"]
    with pytest.raises(EngineError, match="two"):
        list(client.generate(ask()))
    with pytest.raises(InvalidRequest, match="script ended"):
        client.generate(ask())

    def refuses(request):
        raise InvalidRequest("no")

    with pytest.raises(InvalidRequest, match="no"):
        scripted(refuses).generate(ask())


def test_max_tokens_zero_gives_no_text(scripted):
    (chunk,) = scripted(["abc"]).generate(ask(max_tokens=0))
    assert (chunk.text, chunk.token_ids, chunk.kept_ids) == ("", (), ())


def test_hold_and_release(scripted):
    client = scripted([Reply("abc", chunk_size=1, hold_after=1)])
    stream = client.generate(ask())
    chunks = iter(stream)
    assert next(chunks).text == "a"
    assert client.num_held == 2
    client.release()
    assert [chunk.text for chunk in chunks] == ["b", "c"]


def test_logprobs(scripted):
    request = GenerateRequest(
        as_prompt("pq"), SamplingParams(), LogprobOptions(start=0, top=1, text=True)
    )
    (chunk,) = scripted(["a"]).generate(request)
    assert [(t.token_id, t.logprob, t.piece) for t in chunk.prompt_logprobs] == [
        (ord("p"), None, b"p"),
        (ord("q"), -0.5, b"q"),
    ]
    assert chunk.logprobs[0].top == ((ord("a"), -0.5),)
    assert chunk.logprobs[0].top_pieces == (b"a",)
