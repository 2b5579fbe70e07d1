"""Async programs on one event loop: awaited reads, streams, forks, cancellation, time limits."""

import asyncio
import gc
import threading
import time

import pytest

import sapwood as sw
from sapwood.runtime.scripted_replies import STALL, Reply
from sapwood.runtime.toy_tokens import decode, encode_prompt

pytestmark = pytest.mark.timeout(30)


def go(coroutine):
    """On an event loop, under a deadline of its own."""

    async def main():
        async with asyncio.timeout(20):
            return await coroutine

    return asyncio.run(main())


async def until(condition):
    while not condition():
        await asyncio.sleep(0.001)


@sw.function
async def ask(s: sw.AsyncProgramState, q: str) -> int:
    s += q + sw.gen("a")
    answer = await s.get("a")
    s += "/" + sw.gen("b")
    return len(answer)


def test_a_program_adds_awaits_and_returns(scripted):
    client = scripted(["one", "two"])

    async def main():
        state = await ask.arun("Q", backend=client)
        return state, state["a"], state.text(), state.ret_value

    state, *rest = go(main())
    assert rest == ["one", "Qone/two", 3]
    assert isinstance(state, sw.ProgramState)
    assert (
        repr(ask) == "<program ask(s: sapwood.lang.async_state.AsyncProgramState, q: str) -> int>"
    )


READS = {
    "get": lambda s: s.get("a"),
    "get_meta_info": lambda s: s.get_meta_info("a"),
    "text": lambda s: s.text(),
    "messages": lambda s: s.messages(),
    "sync": lambda s: s.sync(),
    "stream": lambda s: collect(s.stream()),
    "stream of a variable": lambda s: collect(s.stream("a")),
    "join": lambda s: s.fork(2).join(),
    "text of a fork": lambda s: s.fork(1)[0].text(),
}


async def collect(iterator):
    return [item async for item in iterator]


@pytest.mark.parametrize("read", READS)
def test_every_read_lets_the_loop_run_and_then_ends(scripted, read):
    client = scripted([Reply("one", hold_after=0)])
    beats = []

    @sw.function
    async def program(s):
        s += "Q" + sw.gen("a")
        reading = asyncio.create_task(READS[read](s))
        for _ in range(5):
            await asyncio.sleep(0)
            beats.append(reading.done())
        await until(lambda: client.num_held)
        client.release()
        return await reading

    go(program.arun(backend=client))
    assert beats == [False] * 5


@pytest.mark.parametrize("read", READS)
@pytest.mark.parametrize("how", ["fails", "refuses", "dies"])
def test_every_read_raises_the_original_error(scripted, read, how):
    client = scripted({"fails": [sw.EngineError("boom")], "refuses": [], "dies": [STALL]}[how])

    @sw.function
    async def program(s):
        s += "Q" + sw.gen("a")
        if how == "dies":
            asyncio.get_running_loop().call_later(0.02, client.die)
        with pytest.raises(sw.ProgramError) as caught:
            await READS[read](s)
        assert caught.value.variable == "a" and __file__ in caught.value.location
        return type(caught.value.__cause__)

    kinds = {"fails": sw.EngineError, "refuses": sw.InvalidRequest, "dies": sw.EngineDied}
    assert go(program.arun(backend=client)).ret_value is kinds[how]


BLOCKING = {
    "s['a']": (lambda s: s["a"], TypeError, r"await s\.get\('a'\)"),
    "get_var": (lambda s: s.get_var("a"), AttributeError, r"await s\.get\(name\)"),
    "text_iter": (lambda s: s.text_iter(), AttributeError, r"async for piece in s\.stream"),
    "text_async_iter": (lambda s: s.text_async_iter(), AttributeError, r"s\.stream"),
    "ret_value": (lambda s: s.ret_value, AttributeError, r"await s\.result\(\)"),
    "misspelt": (lambda s: s.gett, AttributeError, "'gett'"),
}


@pytest.mark.parametrize("read", BLOCKING)
def test_a_blocking_read_is_refused_by_name(scripted, read):
    action, error, message = BLOCKING[read]

    @sw.function
    async def program(s):
        s += sw.gen("a")
        with pytest.raises(error, match=message):
            action(s)

    go(program.arun(backend=scripted(["x"])))


def test_run_outside_a_loop_runs_to_the_end_and_inside_one_names_arun(scripted):
    state = ask.run("Q", backend=scripted(["one", "two"]))
    assert (state.ret_value, state.text()) == (3, "Qone/two")
    client = scripted(["one", "two"])
    pieces = ask.run("Q", backend=client, stream=True).text_iter()
    assert "".join(pieces) == "Qone/two"

    async def inside():
        for call in (ask.run, ask):
            with pytest.raises(sw.InvalidRequest, match="await ask.arun"):
                call("Q", backend=client)
        with pytest.raises(sw.InvalidRequest, match="await ask.arun_batch"):
            ask.run_batch([{"q": "Q"}], backend=client)

    go(inside())


def test_bad_arguments_are_refused_where_arun_is_called():
    with pytest.raises(TypeError, match="'q'"):
        ask.arun()
    with pytest.raises(sw.InvalidRequest, match="temperature"):
        ask.arun("Q", temperature=-1)
    with pytest.raises(sw.InvalidRequest, match="timeout"):
        ask.arun("Q", timeout=0)


def test_use_thread_false_is_refused_for_what_never_blocks():
    with pytest.raises(sw.InvalidRequest, match="use_thread"):
        ask.arun("Q", use_thread=False)


def test_a_plain_program_runs_beside_the_loop(scripted):
    client = scripted([Reply("one", hold_after=0), "two"])

    @sw.function
    def plain(s, q):
        s += q + sw.gen("a")
        assert s["a"] == "one"  # blocks its own thread
        s += sw.gen("b")
        return threading.current_thread() is not threading.main_thread()

    async def main():
        running = asyncio.create_task(plain.arun("Q", backend=client))
        await until(lambda: client.num_held)
        client.release()
        state = await running
        return state.text(), state.ret_value

    assert go(main()) == ("Qonetwo", True)


@pytest.mark.parametrize("error", [ZeroDivisionError, sw.Cancelled])
@pytest.mark.parametrize("is_async", [True, False])
def test_an_error_of_the_body_is_raised_and_aborts_what_runs(scripted, error, is_async):
    client = scripted([STALL, STALL])

    async def abody(s):
        s += "x" + sw.gen("a")
        s.fork(1)[0].__iadd__(sw.gen("b"))
        await until(lambda: client.requests)
        raise error("mine")

    def body(s):
        s += "x" + sw.gen("a")
        raise error("mine")

    with pytest.raises(error, match="mine"):
        go(sw.function(abody if is_async else body).arun(backend=client))
    assert client.aborted == [client.requests[0].request_id]


def test_forks_join_and_copy(scripted):
    client = scripted(lambda r: decode(encode_prompt(r.prompt))[-1])

    @sw.function
    async def program(s):
        s += "x"
        forks = s.fork(3)
        forks += lambda i: "abc"[i] + sw.gen("v")
        forks[1] += "!"
        assert [await fork.get("v") for fork in forks] == ["a", "b", "c"] and len(forks) == 3
        await forks.join()
        async with s.copy() as other:
            other += "y" + sw.gen("w")
        texts = s.fork(2)
        texts += ["1", "2"]
        await texts.join("concate_and_append")
        with pytest.raises(sw.InvalidRequest, match="joined already"):
            await texts.join()
        return await s.get("v"), await s.get("w")

    state = go(program.arun(backend=client))
    assert state.ret_value == (["a", "b", "c"], ["y"])
    assert state.text() == "x12"


@pytest.mark.parametrize("errors, value", [("keep", sw.ProgramError), ("none", type(None))])
def test_join_of_a_failed_branch(scripted, errors, value):
    @sw.function
    async def program(s):
        forks = s.fork(2)
        forks += ["good" + sw.gen("v"), "bad" + sw.gen("v")]
        with pytest.raises(sw.ProgramError) as caught:
            await forks.join()
        assert "in branch 1 of 2" in caught.value.__notes__
        await forks.join(errors=errors)
        return await s.get("v")

    def answer(request):
        return sw.EngineError("x") if b"bad" in bytes(encode_prompt(request.prompt)) else "ok"

    good, bad = go(program.arun(backend=scripted(answer))).ret_value
    assert good == "ok" and isinstance(bad, value)


def test_roles_scopes_and_variables(scripted):
    @sw.function
    async def program(s):
        s.user("hi")
        with s.assistant():
            with s.var_scope("v"):
                s += "yo" + sw.gen("a")
        s["mine"] = 3
        assert "mine" in s and "not" not in s
        assert s.variables == ("a", "v", "mine")
        assert await s.get("v") == "yo!"
        with pytest.raises(KeyError, match="'nope'"):
            await s.get("nope")
        with pytest.raises(TypeError, match="int"):
            s += 5
        return await s.messages()

    messages = go(program.arun(backend=scripted(["!"]))).ret_value
    assert messages[-1] == {"role": "assistant", "content": "yo!"}


def test_streams(scripted, release):
    client = scripted([Reply("abc", chunk_size=1, hold_after=1), "x"])

    @sw.function
    async def program(s):
        s += "Q" + sw.gen("a") + "-" + sw.gen("b")
        seen = []
        async for piece in s.stream("a"):
            seen.append(piece)
            if len(seen) == 1:
                await asyncio.to_thread(release, client)
        assert "".join(seen) == "abc" and len(seen) > 1
        metas = [meta async for _, meta in s.stream("a", return_meta_data=True)]
        assert metas[-1]["completion_tokens"] == 3
        with pytest.raises(sw.InvalidRequest, match="needs name"):
            await anext(s.stream(return_meta_data=True))
        return "".join([piece async for piece in s.stream()])

    assert go(program.arun(backend=client)).ret_value == "Qabc-x"


# --- stream=True: a program beside its reader ---------------------------------------------------


@pytest.mark.parametrize("is_async", [True, False])
def test_a_streaming_run_is_read_while_it_grows(scripted, release, is_async):
    client = scripted([Reply("abc", chunk_size=1, hold_after=1), "x"])

    async def abody(s):
        s += "Q" + sw.gen("a")
        await s.get("a")
        s += sw.gen("b")
        return 5

    def body(s):
        s += "Q" + sw.gen("a")
        assert s["a"]
        s += sw.gen("b")
        return 5

    async def main():
        state = await sw.function(abody if is_async else body).arun(backend=client, stream=True)
        assert isinstance(state, sw.AsyncProgramState)
        seen = ""
        async for piece in state.stream():
            if not seen:
                await asyncio.to_thread(release, client)
            seen += piece
        return seen, await state.get("b"), await state.result()

    assert go(main()) == ("Qabcx", "x", 5)


def test_an_error_of_a_streaming_body_reaches_every_reader(scripted):
    @sw.function
    async def program(s):
        s += sw.gen("a")
        await s.sync()
        raise ZeroDivisionError("mine")

    async def main():
        state = await program.arun(backend=scripted(["x"]), stream=True)
        for read in (state.result, state.text, lambda: state.get("never"), state.sync):
            with pytest.raises(ZeroDivisionError):
                await read()
        return await state.error()

    assert isinstance(go(main()), ZeroDivisionError)


@pytest.mark.parametrize("how", ["cancel", "drop", "break"])
@pytest.mark.parametrize("waits_for", ["a read", "something else"])
def test_a_streaming_run_that_is_given_up_is_broken_off(scripted, how, waits_for):
    client = scripted([Reply("abc", chunk_size=1, hold_after=1)])
    ended = []

    @sw.function
    async def program(s):
        s += "Q" + sw.gen("a")
        try:
            await (s.get("a") if waits_for == "a read" else asyncio.sleep(60))
        except BaseException as error:
            ended.append(error)
            raise

    async def main():
        state = await program.arun(backend=client, stream=True)
        await until(lambda: client.requests)
        if how == "break":
            async for _ in state.stream():
                break
        if how == "cancel":
            state.cancel()
            with pytest.raises(sw.SapwoodError):
                await state.result()
        else:
            del state
            await asyncio.sleep(0)
            gc.collect()
        await until(lambda: ended)
        await until(lambda: client.aborted)

    go(main())


# --- cancellation and time ----------------------------------------------------------------------


@pytest.mark.parametrize("is_async", [True, False])
def test_cancelling_the_task_aborts_the_program(scripted, is_async):
    client = scripted(lambda r: STALL)

    async def abody(s):
        forks = s.fork(2)
        forks += sw.gen("v")
        s += sw.gen("a")
        await s.get("a")

    def body(s):
        forks = s.fork(2)
        forks += sw.gen("v")
        s += sw.gen("a")
        return s["a"]

    async def main():
        program = sw.function(abody if is_async else body)
        task = asyncio.create_task(program.arun(backend=client))
        await until(lambda: len(client.requests) == 3)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert sorted(client.aborted) == sorted(r.request_id for r in client.requests)

    go(main())


def test_a_failing_sibling_of_a_task_group_aborts_the_others(scripted):
    client = scripted(
        lambda r: sw.EngineError("boom") if encode_prompt(r.prompt) == (ord("2"),) else STALL
    )

    @sw.function
    async def program(s, q):
        s += q + sw.gen("a")
        return await s.get("a")

    async def main():
        async with asyncio.TaskGroup() as group:
            for index in range(5):
                group.create_task(program.arun(str(index), backend=client))

    with pytest.raises(ExceptionGroup) as caught:
        go(main())
    assert caught.group_contains(sw.ProgramError, match="boom")
    asked = {r.request_id for r in client.requests}
    assert len(client.aborted) == len(asked) - 1


def test_asyncio_timeouts_inside_and_around(scripted):
    client = scripted(lambda r: STALL)

    @sw.function
    async def patient(s):
        s += sw.gen("a")
        try:
            async with asyncio.timeout(0.02):
                await s.get("a")
        except TimeoutError:
            assert client.aborted == []  # the read ended, not the generation
            s.cancel()
            return "late"

    @sw.function
    async def endless(s):
        s += sw.gen("a")
        await s.get("a")

    async def main():
        assert (await patient.arun(backend=client)).ret_value == "late"
        assert len(client.aborted) == 1
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.02):
                await endless.arun(backend=client)
        assert len(client.aborted) == len(client.requests) == 2

    go(main())


@pytest.mark.parametrize("waits_for", ["a read", "something else", "what it left running"])
@pytest.mark.parametrize("stream", [True, False])
def test_the_timeout_of_a_run(scripted, waits_for, stream):
    client = scripted(lambda r: STALL)

    @sw.function
    async def program(s):
        s += "Q" + sw.gen("a")
        if waits_for != "what it left running":
            await (s.get("a") if waits_for == "a read" else asyncio.sleep(60))

    async def main():
        if not stream:
            await program.arun(backend=client, timeout=0.03)
        state = await program.arun(backend=client, timeout=0.03, stream=True)
        await state.text()

    with pytest.raises(sw.ProgramTimeout) as caught:
        go(main())
    assert isinstance(caught.value, TimeoutError) and caught.value.program == "program"
    assert (caught.value.variable, caught.value.prompt_tail) == ("a", "Q")
    assert len(client.aborted) == 1


def test_the_timeout_of_a_plain_program_does_not_wait_for_its_thread(scripted):
    release = threading.Event()

    @sw.function
    def stuck(s):
        release.wait(20)

    try:
        with pytest.raises(sw.ProgramTimeout):
            go(stuck.arun(backend=scripted([]), timeout=0.03))
    finally:
        release.set()


def test_a_slow_client_does_not_stall_the_loop(scripted):
    sending = threading.Event()

    def slow(request):
        sending.set()
        time.sleep(0.2)
        return "x"

    async def main():
        running = asyncio.create_task(ask.arun("Q", backend=scripted(slow)))
        await asyncio.to_thread(sending.wait, 10)
        pauses, before = [], time.perf_counter()
        while not running.done():
            await asyncio.sleep(0)
            now = time.perf_counter()
            pauses.append(now - before)
            before = now
        assert len(pauses) > 50  # a stalled loop would turn a few times
        return (await running).text()

    assert go(main()) == "Qx/x"


# --- many ---------------------------------------------------------------------------------------


def test_a_thousand_programs_on_one_loop_have_no_threads(scripted):
    client = scripted(lambda r: Reply("ok", hold_after=0))
    counts = []

    async def main():
        before = threading.active_count()
        programs = [ask.arun(str(i), backend=client) for i in range(1_000)]
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(program) for program in programs]
            await until(lambda: len(client.requests) == 1_000)
            counts.append(threading.active_count() - before)
            while not all(task.done() for task in tasks):
                client.release()
                await asyncio.sleep(0.001)
        return [task.result().text() for task in tasks]

    texts = go(main())
    assert texts == [f"{i}ok/ok" for i in range(1_000)]
    assert counts[0] <= 2  # the sender and the reaper
