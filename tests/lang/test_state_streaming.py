"""Reading text while it grows, by iterators and by asynchronous iterators."""

import asyncio
import threading
import time

import pytest

import sapwood as sw
from sapwood.runtime.scripted_replies import STALL, Reply

pytestmark = pytest.mark.timeout(30)


def body(s):
    s += "Q" + sw.gen("a") + "-" + sw.gen("b") + "."
    s["mine"] = "set"
    return 5


def start(client, **options):
    return sw.function(body).run(backend=client, stream=True, **options)


def replies():
    return [Reply("abc", chunk_size=1), Reply("xy", chunk_size=1)]


def test_the_whole_text_comes_in_pieces(scripted, release):
    client = scripted([Reply("abc", chunk_size=1, hold_after=1), "x"])
    pieces = start(client).text_iter()
    seen = ""
    while seen != "Qa":  # the first chunk is out, the rest is held back
        seen += next(pieces)
    release(client)
    assert seen + "".join(pieces) == "Qabc-x."


@pytest.mark.parametrize("name, text", [("a", "abc"), ("b", "xy"), ("mine", "set")])
def test_one_variable(scripted, name, text):
    state = start(scripted(replies()))
    assert "".join(state.text_iter(name)) == text
    assert "".join(state.text_iter(name)) == text  # again, from the start
    assert state.ret_value == 5


def test_a_variable_can_be_followed_before_the_body_names_it(scripted):
    go = threading.Event()

    def late(s):
        go.wait(20)
        s += sw.gen("a")

    state = sw.function(late).run(backend=scripted(replies()), stream=True)
    pieces = state.text_iter("a")
    threading.Timer(0.02, go.set).start()
    assert "".join(pieces) == "abc"
    assert state["a"] == "abc"


@pytest.mark.parametrize("stream", [True, False])
def test_a_variable_that_never_comes_is_a_key_error(scripted, stream):
    state = sw.function(body).run(backend=scripted(replies()), stream=stream)
    with pytest.raises(KeyError, match="nope"):
        list(state.text_iter("nope"))
    with pytest.raises(KeyError, match="nope"):
        state["nope"]


def test_without_stream_everything_comes_in_one_piece(scripted):
    state = sw.function(body).run(backend=scripted(replies()))
    assert list(state.text_iter()) == ["Qabc-xy."]
    assert list(state.text_iter("a")) == ["abc"]


def test_run_returns_at_once_and_reads_wait_for_the_body(scripted, release):
    client = scripted([STALL, "x"])
    state = start(client)
    release(client)
    assert state["b"] == "x"
    assert state.text() == "Q-x."


@pytest.mark.parametrize("stream", [True, False])
def test_repr_shows_the_text_so_far_and_does_not_wait(scripted, release, stream):
    client = scripted([Reply("abc", chunk_size=1, hold_after=2), "x"])
    state = sw.function(body).run(backend=client, stream=stream)
    while repr(state) != "ProgramState(Qab)":  # never more: the rest is held back
        time.sleep(0.001)
    with state._branch.run.changed:  # held by whatever is being debugged
        seen = []
        reader = threading.Thread(target=lambda: seen.append(repr(state)))
        reader.start()
        reader.join()
    assert seen == ["ProgramState(Qab)"]
    release(client)
    assert state.text() == "Qabc-x."
    assert repr(state) == "ProgramState(Qabc-x.)"


def test_select_and_samples_stream_too(scripted):
    def mixed(s):
        s += sw.select("c", ["no", "yes"]) + sw.gen("n", n=2)

    client = scripted([["p", "q"]])
    state = sw.function(mixed).run(backend=client, stream=True)
    assert "".join(state.text_iter()) == "nop"
    assert list(state.text_iter("c")) == ["no"]
    assert "".join(state.text_iter("n")) == "p"


def test_a_failure_comes_after_the_text_before_it(scripted):
    client = scripted([Reply("ab", chunk_size=1, error=sw.EngineError("boom"))])
    seen = []
    with pytest.raises(sw.ProgramError, match="boom"):
        for piece in start(client).text_iter():
            seen.append(piece)
    assert "".join(seen) == "Qab"


def test_forks_stream(scripted):
    def forking(s):
        s += "a"
        forks = s.fork(2)
        forks += [sw.gen("v"), "b"]
        return ["".join(fork.text_iter()) for fork in forks]

    state = sw.function(forking).run(backend=scripted(["X"]), stream=True)
    assert state.ret_value == ["aX", "ab"]


# --- asynchronous -----------------------------------------------------------------------------


async def collect(iterator):
    return [item async for item in iterator]


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("name, text", [(None, "Qabc-xy."), ("a", "abc"), ("mine", "set")])
def test_async(scripted, stream, name, text):
    async def main():
        state = sw.function(body).run(backend=scripted(replies()), stream=stream)
        return await collect(state.text_async_iter(name))

    pieces = asyncio.run(main())
    assert "".join(pieces) == text
    if not stream:
        assert len(pieces) == 1


def test_async_waiting_does_not_block_the_loop(scripted, release):
    client = scripted([STALL, "x"])

    async def main():
        state = start(client)
        reading = asyncio.create_task(collect(state.text_async_iter()))
        await asyncio.sleep(0.02)  # the loop runs although nothing comes
        release(client)
        return await reading

    assert "".join(asyncio.run(main())) == "Q-x."


def test_async_meta_data(scripted):
    options = {"return_logprob": True}
    chunks = Reply("abc", chunk_size=1)

    async def main(stream):
        state = sw.function(body).run(backend=scripted([chunks, "x"]), stream=stream, **options)
        return await collect(state.text_async_iter("a", return_meta_data=True))

    for stream in (True, False):
        items = asyncio.run(main(stream))
        assert "".join(text for text, _ in items) == "abc"
        tokens = [entry for _, meta in items for entry in meta["output_token_logprobs"]]
        assert tokens == [[-0.5, ord(c), None] for c in "abc"]
        assert items[-1][1]["finish_reason"]["type"] == "stop"
        assert items[-1][1]["completion_tokens"] == 3
        assert "e2e_latency" in items[-1][1]


def test_async_chunks_without_text_are_merged_into_the_next(scripted):
    # Half a character per chunk: the client holds the text back, so one piece has both tokens.
    class HalfCharacters:
        def __init__(self, client):
            self._client = client
            self.score, self.control, self.info = client.score, client.control, client.info

        def generate(self, request):
            import dataclasses

            stream = self._client.generate(request)
            subscribe = stream.subscribe

            def split(on_event):
                def halves(chunk):
                    first = dataclasses.replace(
                        chunk, text="", logprobs=chunk.logprobs[:1], finish=None
                    )
                    on_event(first)
                    rest = dataclasses.replace(chunk, logprobs=chunk.logprobs[1:], prompt_ids=None)
                    on_event(rest)

                subscribe(halves)

            stream.subscribe = split
            return stream

    async def main():
        client = HalfCharacters(scripted(["é", "x"]))
        state = start(client, return_logprob=True)
        return await collect(state.text_async_iter("a", return_meta_data=True))

    items = asyncio.run(main())
    assert [text for text, _ in items] == ["é"]
    assert len(items[0][1]["output_token_logprobs"]) == 2


def test_async_meta_data_needs_a_variable(scripted):
    async def main():
        state = start(scripted(replies()))
        return await collect(state.text_async_iter(return_meta_data=True))

    with pytest.raises(sw.InvalidRequest, match="var_name"):
        asyncio.run(main())


def test_an_iterator_that_is_left_behind_harms_nothing(scripted, release):
    client = scripted([Reply("abc", chunk_size=1, hold_after=1), "x"])
    states = []

    async def main():
        states.append(start(client))
        async for _ in states[0].text_async_iter():
            break

    asyncio.run(main())
    release(client)
    assert states[0].text() == "Qabc-x."
