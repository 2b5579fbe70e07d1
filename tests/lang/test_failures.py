"""Nothing hangs: with a client that fails, stalls or dies, every primitive ends, and says why.

The module's timeout is the deadline: a hang fails here.
"""

import asyncio
import contextlib
import gc
import signal
import threading
import time
import weakref

import pytest

import sapwood as sw
from sapwood.runtime.errors import Cancelled, EngineDied
from sapwood.runtime.scripted_replies import STALL, Reply

pytestmark = pytest.mark.timeout(30)
BOOM = sw.EngineError("boom")


def wait_until(condition):
    while not condition():
        time.sleep(0.001)


def line_of(body, offset):
    return f"{body.__code__.co_filename}:{body.__code__.co_firstlineno + offset}"


def gens(s):
    s += "ask "
    s += sw.gen("a")
    s += "more " + sw.gen("b")
    with s.var_scope("v"):
        s += "tail"
    s += sw.select("c", ["x", "y"])


READS = {
    "variable": lambda s: s["a"],
    "later variable": lambda s: s["b"],
    "later select": lambda s: s["c"],
    "scope": lambda s: s["v"],
    "meta info": lambda s: s.get_meta_info("b"),
    "text": lambda s: s.text(),
    "messages": lambda s: s.messages(),
    "sync": lambda s: s.sync(),
    "text_iter": lambda s: list(s.text_iter()),
    "text_iter of a variable": lambda s: list(s.text_iter("b")),
    "join": lambda s: s.fork(2).join(),
    "text of a fork": lambda s: s.fork(1)[0].text(),
    "copy": lambda s: s.copy().__enter__().text(),
}
FAILURES = {
    "the stream fails": [BOOM],
    "the stream fails after text": [Reply("xy", chunk_size=1, error=BOOM)],
    "the call is refused": [],  # an empty script refuses
}


@pytest.mark.parametrize("read", READS)
@pytest.mark.parametrize("failure", FAILURES)
@pytest.mark.parametrize("stream", [False, True])
def test_every_read_raises_the_original_error(scripted, read, failure, stream):
    client = scripted(FAILURES[failure])
    state = sw.function(gens).run(backend=client, stream=stream)
    with pytest.raises(sw.ProgramError) as caught:
        READS[read](state)
    error = caught.value
    assert isinstance(error.__cause__, sw.SapwoodError)
    assert error.program == "gens"
    assert error.variable == "a"
    assert error.location == line_of(gens, 2)
    assert error.prompt_tail.startswith("ask ")
    for said in ("'gens'", "'a'", error.location, str(error.__cause__)):
        assert said in str(error)
    if "fails" in failure:
        assert error.request_id == client.requests[0].request_id
        assert error.__cause__ is BOOM


@pytest.mark.parametrize("how", ["fails", "cancelled", "late"])
def test_what_came_of_an_answer_is_no_part_of_its_prompt(scripted, how):
    broken = Reply("half of it", chunk_size=4, hold_after=2)
    if how == "fails":
        broken = Reply("half of it", chunk_size=4, error=sw.EngineError("boom"))

    def body(s):
        s += "ask " + sw.gen("a", timeout=0.1 if how == "late" else None)

    state = sw.function(body).run(backend=scripted([broken]), stream=True)
    for piece in state.text_iter("a"):
        if how == "cancelled":
            state.cancel()
        assert piece in "half of it"
        break
    with pytest.raises(sw.ProgramError) as caught:
        state["a"]
    assert caught.value.prompt_tail == "ask "
    assert state._branch.executor.transcript.text() != "ask "


def test_error_tells_without_raising(scripted):
    state = sw.function(gens).run(backend=scripted([BOOM]))
    assert isinstance(state.error(), sw.ProgramError)
    assert repr(state).startswith("<ProgramState failed: ") and "boom" in repr(state)
    fine = sw.function(lambda s: s.__iadd__("x")).run(backend=scripted([]))
    assert fine.error() is None


def test_what_finished_before_the_failure_stays_readable(scripted):
    def body(s):
        s += sw.gen("a") + sw.gen("b")
        s["mine"] = 3

    state = sw.function(body).run(backend=scripted(["fine", BOOM]))
    assert (state["a"], state["mine"]) == ("fine", 3)
    with pytest.raises(sw.ProgramError) as caught:
        state["b"]
    assert caught.value.variable == "b"


def test_each_reader_gets_an_error_of_its_own(scripted):
    state = sw.function(gens).run(backend=scripted([BOOM]))
    assert state.error() is not state.error()


@pytest.mark.parametrize("read", READS)
def test_a_dying_engine_wakes_every_reader(scripted, read):
    client = scripted([STALL])
    state = sw.function(gens).run(backend=client)
    threading.Timer(0.02, client.die).start()
    with pytest.raises(sw.ProgramError) as caught:
        READS[read](state)
    assert isinstance(caught.value.__cause__, EngineDied)


@pytest.mark.parametrize("read", READS)
def test_cancel_wakes_every_reader_and_aborts_the_request(scripted, read):
    client = scripted([STALL])
    state = sw.function(gens).run(backend=client)
    threading.Timer(0.02, state.cancel).start()
    with pytest.raises(sw.ProgramError) as caught:
        READS[read](state)
    assert isinstance(caught.value.__cause__, Cancelled)
    assert client.aborted == [client.requests[0].request_id]


@pytest.mark.parametrize("answer", [sw.EngineError("no scores"), "die", "cancel"])
def test_select_fails_like_gen(scripted, answer):
    client = scripted([], scores=lambda r: answer if isinstance(answer, Exception) else None)

    def body(s):
        s += "q" + sw.select("c", ["x", "y"]) + "z"

    state = sw.function(body).run(backend=client)
    if answer == "die":
        client.die()
    elif answer == "cancel":
        state.cancel()
    with pytest.raises(sw.ProgramError) as caught:
        state["c"]
    assert caught.value.variable == "c"
    assert client.aborted == ([client.scored[0].request_id] if answer == "cancel" else [])


def test_a_choices_method_that_raises_is_the_programs_error(scripted):
    method = sw.ChoicesMethod("broken", lambda scores: 1 / 0)

    def body(s):
        s += "q" + sw.select("c", ["x", "y"], choices_method=method)

    state = sw.function(body).run(backend=scripted([]))
    with pytest.raises(sw.ProgramError) as caught:
        state.text()
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_a_client_that_breaks_its_promise_is_an_error(scripted):
    class NoIds:
        def __init__(self, client):
            self.generate_, self.score, self.control, self.info = (
                client.generate,
                client.score,
                client.control,
                client.info,
            )

        def generate(self, request):
            import dataclasses

            stream = self.generate_(request)
            subscribe = stream.subscribe
            stream.subscribe = lambda on_event: subscribe(
                lambda event: on_event(dataclasses.replace(event, prompt_ids=None))
            )
            return stream

    state = sw.function(gens).run(backend=NoIds(scripted(["x"])))
    with pytest.raises(sw.ProgramError, match="ids"):
        state.text()


def test_an_error_of_the_body_is_raised_and_aborts_what_runs(scripted):
    client = scripted([STALL, STALL, STALL])
    kept = []

    def body(s):
        s += "x"
        kept.extend(s.fork(2))
        for fork in kept:
            fork += sw.gen("y")
        s += sw.gen("z")
        raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError, match="mine"):
        sw.function(body).run(backend=client)
    assert sorted(client.aborted) == sorted(r.request_id for r in client.requests)
    assert len(client.aborted) == 3
    with pytest.raises(ZeroDivisionError):
        kept[0].sync()


def test_an_error_of_a_streaming_body_reaches_every_reader(scripted):
    def body(s):
        s += "x" + sw.gen("a")
        s.sync()
        raise ZeroDivisionError("mine")

    def start():
        return sw.function(body).run(backend=scripted(["A"]), stream=True)

    pieces = []
    with pytest.raises(ZeroDivisionError):
        for piece in start().text_iter():
            pieces.append(piece)
    assert "".join(pieces) == "xA"
    for read in (
        lambda s: s["never"],
        lambda s: s.text(),
        lambda s: s.ret_value,
        lambda s: list(s.text_iter("never")),
    ):
        with pytest.raises(ZeroDivisionError):
            read(start())
    assert isinstance(start().error(), ZeroDivisionError)


def test_keyboard_interrupt_in_the_body_aborts(scripted):
    client = scripted([STALL])

    def body(s):
        s += "x" + sw.gen("a")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sw.function(body).run(backend=client)
    assert len(client.aborted) == 1


def test_ctrl_c_interrupts_a_wait(scripted):
    client = scripted([STALL])
    # A shell's background jobs begin with the signal ignored, and Python then leaves it so.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)

    def body(s):
        s += "x" + sw.gen("a")
        main = threading.main_thread().ident
        threading.Timer(0.05, signal.pthread_kill, (main, signal.SIGINT)).start()
        return s["a"]

    try:
        with pytest.raises(KeyboardInterrupt):
            sw.function(body).run(backend=client)
    finally:
        signal.signal(signal.SIGINT, before)
    assert len(client.aborted) == 1


def test_ctrl_c_in_an_async_program_is_no_error_of_the_programs(scripted):
    client = scripted([STALL])
    before = signal.signal(signal.SIGINT, signal.default_int_handler)

    async def body(s):
        s += "x" + sw.gen("a")
        main = threading.main_thread().ident
        threading.Timer(0.05, signal.pthread_kill, (main, signal.SIGINT)).start()
        await s.get("a")

    try:
        with pytest.raises(KeyboardInterrupt):
            sw.function(body).run(backend=client)
    finally:
        signal.signal(signal.SIGINT, before)
    assert len(client.aborted) == 1


def test_a_dropped_state_aborts_its_request(scripted):
    client = scripted([STALL])
    state = sw.function(gens).run(backend=client)
    assert client.aborted == []
    del state
    gc.collect()
    wait_until(lambda: client.aborted)
    assert client.aborted == [client.requests[0].request_id]


def test_a_dropped_reader_aborts_a_streaming_run(scripted):
    client = scripted([Reply("abc", chunk_size=1, hold_after=1), STALL])
    ended = threading.Event()

    def body(s):
        try:
            s += "x" + sw.gen("a")
            s.sync()
        finally:
            ended.set()

    for piece in sw.function(body).run(backend=client, stream=True).text_iter():
        if "a" in piece:
            break
    gc.collect()
    assert ended.wait(20)
    wait_until(lambda: client.aborted)


@pytest.mark.parametrize("way", ["run", "stream", "run_batch", "arun", "arun_batch"])
def test_a_program_that_failed_is_forgotten_with_its_state(scripted, way):
    client = scripted(lambda r: "x")
    runs = []

    def say(s):
        runs.append(weakref.ref(s._branch.run))
        s += "q"
        forks = s.fork(2)
        forks += sw.gen("a")
        raise ZeroDivisionError(f"with {len(forks)} branches")

    def plain(s):
        say(s)

    async def coroutine(s):
        say(s)

    program = sw.function(coroutine if way.startswith("a") else plain)

    def fail():
        with contextlib.suppress(ZeroDivisionError):
            match way:
                case "run":
                    program.run(backend=client)
                case "stream":
                    program.run(backend=client, stream=True).text()
                case "run_batch":
                    program.run_batch([{}] * 3, backend=client, on_error="keep")
                case "arun":
                    asyncio.run(program.arun(backend=client))
                case "arun_batch":
                    asyncio.run(program.arun_batch([{}] * 3, backend=client, on_error="keep"))

    fail()
    client.close()  # its thread holds the last answer that it gave
    deadline = time.monotonic() + 10
    while any(run() is not None for run in runs) and time.monotonic() < deadline:
        gc.collect()
        time.sleep(0.01)
    assert runs and not any(run() for run in runs)


def test_a_dropped_branch_is_aborted_and_its_siblings_are_not(scripted):
    client = scripted([STALL, Reply("fine", hold_after=0)])

    def body(s):
        s += "x"
        left, right = s.fork(2)
        left += sw.gen("y")
        right += sw.gen("y")
        return right

    state = sw.function(body).run(backend=client)
    gc.collect()
    wait_until(lambda: client.aborted)
    client.release()
    assert state.ret_value["y"] == "fine"
    assert client.aborted == [client.requests[0].request_id]


def test_a_dropped_parent_goes_on_as_long_as_a_branch_waits_for_it(scripted):
    client = scripted([Reply("first", hold_after=0), "second"])

    def body(s):
        s += sw.gen("a")
        branch = s.fork(1)[0]
        branch += sw.gen("b")
        return branch

    def start():
        return sw.function(body).run(backend=client).ret_value

    branch = start()
    gc.collect()
    time.sleep(0.05)
    client.release()
    assert branch.text() == "firstsecond"

    client = scripted([STALL])
    branch = start()
    del branch
    gc.collect()
    wait_until(lambda: client.aborted)


def test_nothing_is_aborted_that_has_ended(scripted):
    client = scripted(["a", "b"])
    state = sw.function(gens).run(backend=client)
    state.sync()
    state.cancel()
    assert state.text() == "ask amore btailx"
    del state
    gc.collect()
    assert client.aborted == []


def test_bad_options_are_refused_at_the_line_that_says_them(scripted):
    def body(s):
        with pytest.raises(sw.InvalidRequest, match="temperature"):
            s += sw.gen("a", temperature=-1)
        s += "go on"

    assert sw.function(body).run(backend=scripted([])).text() == "go on"


def test_an_interrupt_while_a_request_is_sent_leaves_nothing_asleep(scripted):
    def script(request):
        if len(client.requests) == 2:
            raise KeyboardInterrupt
        return Reply("x", hold_after=0)

    client = scripted(script)
    kept = []

    def body(s):
        forks = s.fork(2)
        kept.extend(forks)
        forks += sw.gen("v") + "later" + sw.gen("w")

    with pytest.raises(KeyboardInterrupt):
        sw.function(body).run(backend=client)
    for branch in kept:
        with pytest.raises((sw.ProgramError, KeyboardInterrupt)):
            branch["w"] if "w" in branch else branch.sync()
    assert client.aborted == [client.requests[0].request_id]
