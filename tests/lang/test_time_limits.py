"""Time limits of runs and of single steps: what is late is aborted, and readers are told."""

import asyncio
import gc
import threading
import time
import weakref

import pytest

import sapwood as sw
from sapwood.lang.reaper import Reaper
from sapwood.runtime.scripted_replies import STALL, Reply

pytestmark = pytest.mark.timeout(30)


def line_of(body, offset):
    return f"{body.__code__.co_filename}:{body.__code__.co_firstlineno + offset}"


def gens(s):
    s += "Q" + sw.gen("a")
    s += "more" + sw.gen("b", timeout=0.03)
    s += sw.gen("c")


READS = {
    "variable": lambda s: s["b"],
    "later variable": lambda s: s["c"],
    "text": lambda s: s.text(),
    "text_iter": lambda s: list(s.text_iter("b")),
    "join": lambda s: (s.error(), s.fork(2).join()),
}


@pytest.mark.parametrize("read", READS)
@pytest.mark.parametrize("stream", [False, True])
def test_a_late_gen(scripted, read, stream):
    client = scripted(["fine", Reply("half", hold_after=0), "never"])
    state = sw.function(gens).run(backend=client, stream=stream)
    with pytest.raises(sw.ProgramTimeout) as caught:
        READS[read](state)
    error = caught.value
    assert isinstance(error, TimeoutError) and isinstance(error, sw.ProgramError)
    assert isinstance(error, sw.SapwoodError)
    assert (error.program, error.variable) == ("gens", "b")
    assert error.location == line_of(gens, 2)
    assert "0.03 s" in str(error) and "'b'" in str(error)
    assert state["a"] == "fine"
    assert client.aborted == [client.requests[1].request_id]
    assert len(client.requests) == 2


def test_a_late_select(scripted):
    client = scripted([], scores=lambda r: None)

    @sw.function
    def program(s):
        s += "Q" + sw.select("a", ["x", "y"], timeout=0.02)
        with pytest.raises(sw.ProgramTimeout, match="'a'"):
            s["a"]
        with s.copy() as other:
            other += "z"

    with pytest.raises(sw.ProgramTimeout):
        program.run(backend=client)
    assert client.aborted == [client.scored[0].request_id]


def test_the_time_counts_from_when_it_is_sent(scripted):
    client = scripted([Reply("one", hold_after=0), "two"])

    @sw.function
    def program(s):
        s += sw.gen("a") + sw.gen("b", timeout=0.5)
        time.sleep(0.6)
        client.release()
        return s["b"]

    assert program.run(backend=client).ret_value == "two"


def test_in_time_nothing_happens(scripted):
    client = scripted(["x", "y"])

    @sw.function
    def program(s):
        s += sw.gen("a", timeout=0.02) + sw.select("b", ["p", "q"], timeout=0.02)

    state = program.run(backend=client, timeout=0.05)
    state.sync()
    time.sleep(0.08)
    assert state.text() == "xp" and client.aborted == []


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("reads", ["in the body", "afterwards"])
@pytest.mark.parametrize("is_async", [False, True])
def test_a_late_run(scripted, stream, reads, is_async):
    client = scripted(lambda r: STALL)

    def body(s):
        forks = s.fork(2)
        forks += sw.gen("v")
        s += sw.gen("a")
        return s["a"] if reads == "in the body" else list(forks)

    async def abody(s):
        forks = s.fork(2)
        forks += sw.gen("v")
        s += sw.gen("a")
        return await s.get("a") if reads == "in the body" else list(forks)

    with pytest.raises(sw.ProgramTimeout, match="timeout"):
        program = sw.function(abody if is_async else body)
        state = program.run(backend=client, stream=stream, timeout=0.05)
        assert stream or reads == "afterwards"
        assert len(state.ret_value) == 2
        state.text()
    assert sorted(client.aborted) == sorted(r.request_id for r in client.requests)
    assert len(client.aborted) == 3


@pytest.mark.parametrize("value", [0, -1, "1", True, float("inf"), float("nan")])
def test_bad_limits_are_refused_by_name(scripted, value):
    program = sw.function(lambda s: None)
    for call in (
        lambda: sw.gen("a", timeout=value),
        lambda: sw.select("a", ["x"], timeout=value),
        lambda: program.run(timeout=value, backend=scripted([])),
        lambda: program.run_batch([{}], timeout=value, backend=scripted([])),
    ):
        with pytest.raises(sw.InvalidRequest, match="timeout"):
            call()


def test_a_parameter_of_that_name_wins(scripted):
    program = sw.function(lambda s, timeout: s.__iadd__(timeout))
    assert program.run(timeout="soon", backend=scripted([])).text() == "soon"


def test_limits_take_one_thread_and_keep_nothing_alive(scripted):
    client = scripted(lambda r: "x")

    @sw.function
    def program(s):
        for _ in range(50):
            s += sw.gen("a", timeout=60)
        s.sync()

    program.run(backend=client, timeout=60)
    before = threading.active_count()
    state = program.run(backend=client, timeout=60)
    assert threading.active_count() <= before
    executor = weakref.ref(state._branch.executor)
    del state
    client.close()  # its thread holds the last answer that it gave
    deadline = time.monotonic() + 10
    while executor() is not None and time.monotonic() < deadline:
        gc.collect()
        time.sleep(0.01)  # the reaper has it for a moment
    assert executor() is None


def test_alarms_ring_in_order_and_survive_a_failing_one():
    reaper = Reaper()
    rung, done = [], threading.Event()

    class Bell:
        def __init__(self, name):
            self.name = name

        def ring(self):
            rung.append(self.name)
            if self.name == "b":
                raise OSError("broken")
            if self.name == "c":
                done.set()

    bells = {name: Bell(name) for name in "cab"}
    reaper.after(0.01, weakref.WeakMethod(Bell("gone").ring))
    for name, seconds in (("c", 0.3), ("a", 0.1), ("b", 0.2)):
        reaper.after(seconds, weakref.WeakMethod(bells[name].ring))
    assert done.wait(10)
    assert rung == ["a", "b", "c"]


def test_a_late_gen_of_an_async_program(scripted):
    client = scripted(lambda r: STALL)

    @sw.function
    async def program(s):
        s += sw.gen("a", timeout=0.02)
        with pytest.raises(sw.ProgramTimeout, match="'a'"):
            await s.get("a")
        return "went on"

    assert asyncio.run(program.arun(backend=client)).ret_value == "went on"
    assert len(client.aborted) == 1
