"""Every primitive against every way in which a back end can fail: it ends, with an error that says
so or with what it had, and nothing is left running.

Each case has a deadline of its own, on a thread that the test does not wait for any longer.
"""

import asyncio
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

import sapwood as sw
from sapwood.runtime.scripted import ScriptedClient
from sapwood.runtime.scripted_replies import STALL, Reply

pytestmark = pytest.mark.timeout(60)
DEADLINE = 15.0


def refuse(request):
    raise sw.InvalidRequest("refused")


def break_down(request):
    raise RuntimeError("a fault of the client's own")


@dataclass(frozen=True)
class Fault:
    """How a client answers, what befalls it later, and options of the run."""

    script: Callable[[Any], Any]
    scores: Callable[[Any], Any]
    later: Callable[[ScriptedClient], None] | None = None
    first: Callable[[ScriptedClient], None] = lambda client: None
    options: dict[str, Any] = field(default_factory=dict)


def stalls(**more: Any) -> Fault:
    return Fault(lambda r: STALL, lambda r: None, **more)


FAULTS = {
    "refuses": Fault(refuse, lambda r: sw.InvalidRequest("refused")),
    "breaks": Fault(break_down, lambda r: RuntimeError("broken")),
    "fails at once": Fault(lambda r: sw.EngineError("boom"), lambda r: sw.EngineError("boom")),
    "fails midway": Fault(
        lambda r: Reply("half", chunk_size=1, error=sw.EngineError("boom")),
        lambda r: sw.EngineError("boom"),
    ),
    "hangs after text, then dies": Fault(
        lambda r: Reply("half", chunk_size=1, hold_after=2),
        lambda r: None,
        later=lambda client: client.die(),
    ),
    "never answers, then closes": stalls(later=lambda client: client.close()),
    "never answers, then dies": stalls(later=lambda client: client.die()),
    "is dead": stalls(first=lambda client: client.die()),
    "never answers in time": stalls(options={"timeout": 0.02}),
}


def fork_with_gens(s, size=2):
    forks = s.fork(size)
    forks += sw.gen("v")
    return forks


def copying(s):
    with s.copy() as other:
        other += sw.gen("v")


def scoping(s):
    with s.var_scope("v"):
        s += sw.gen("a")
    return s["v"]


def speaking(s):
    with s.assistant():
        s += sw.gen("a")
    return s.messages()


def leaving_a_stream(s):
    s += sw.gen("a")
    for _ in s.text_iter("a"):
        break


def nesting(s):
    outer = s.fork(2)
    for branch in outer:
        inner = branch.fork(2)
        inner += sw.gen("v")
        inner.join(errors="keep")
    outer.join(errors="none")
    return s["v"]


def gen_then(read):
    def body(s):
        s += "Q" + sw.gen("a")
        return read(s)

    return body


def select_then(read):
    def body(s):
        s += "Q" + sw.select("a", ["x", "y"])
        return read(s)

    return body


READS = {
    "getitem": lambda s: s["a"],
    "get_var": lambda s: s.get_var("a"),
    "get_meta_info": lambda s: s.get_meta_info("a"),
    "text": lambda s: s.text(),
    "str": str,
    "repr": repr,
    "messages": lambda s: s.messages(),
    "sync": lambda s: s.sync(),
    "error": lambda s: s.error(),
    "text_iter": lambda s: list(s.text_iter()),
    "text_iter of a variable": lambda s: list(s.text_iter("a")),
    "text_iter of an unknown": lambda s: list(s.text_iter("never")),
    "text_async_iter": lambda s: asyncio.run(acollect(s.text_async_iter())),
    "text_async_iter of a variable": lambda s: asyncio.run(acollect(s.text_async_iter("a", True))),
    "in": lambda s: "a" in s,
    "nothing": lambda s: None,
}
BODIES = {
    **{f"gen, {name}": gen_then(read) for name, read in READS.items()},
    **{f"select, {name}": select_then(read) for name, read in READS.items()},
    "several samples": lambda s: s.__iadd__(sw.gen("a", n=3))["a"],
    "a typed gen": lambda s: s.__iadd__(sw.gen("a", type=int))["a"],
    "a gen with a limit": lambda s: s.__iadd__(sw.gen("a", timeout=5))["a"],
    **{
        f"join {mode} {errors}": lambda s, mode=mode, errors=errors: fork_with_gens(s).join(
            mode, errors
        )
        for mode in ("gather_variable", "concate_and_append")
        for errors in ("raise", "keep", "none")
    },
    "a fork that nobody joins": fork_with_gens,
    "a fork after a gen": lambda s: s.__iadd__(sw.gen("a")).fork(3).join(),
    "a fork's variable": lambda s: fork_with_gens(s)[1]["v"],
    "nested forks": nesting,
    "copy": copying,
    "var_scope": scoping,
    "roles": speaking,
    "a stream that is left": leaving_a_stream,
    "cancel": lambda s: s.__iadd__(sw.gen("a")).cancel(),
}


async def acollect(pieces):
    return [piece async for piece in pieces]


async def a_join(s, **how):
    forks = s.fork(2)
    forks += sw.gen("v")
    await forks.join(**how)


async def a_copy(s):
    async with s.copy() as other:
        other += sw.gen("v")


async def a_scope(s):
    with s.var_scope("v"):
        s += sw.gen("a")
    await s.get("v")


async def a_leaving(s):
    s += sw.gen("a")
    async for _ in s.stream("a"):
        break


async def a_group(s):
    forks = s.fork(3)
    forks += sw.gen("v")
    try:
        async with asyncio.TaskGroup() as group:
            for fork in forks:
                group.create_task(fork.text())
    except* sw.SapwoodError as errors:
        raise errors.exceptions[0] from None


def a_gen_then(read):
    async def body(s):
        s += "Q" + sw.gen("a") + sw.select("b", ["x", "y"])
        return await read(s)

    return body


A_READS = {
    "get": lambda s: s.get("a"),
    "get of a select": lambda s: s.get("b"),
    "get_meta_info": lambda s: s.get_meta_info("a"),
    "text": lambda s: s.text(),
    "messages": lambda s: s.messages(),
    "sync": lambda s: s.sync(),
    "error": lambda s: s.error(),
    "stream": lambda s: acollect(s.stream()),
    "stream of a variable": lambda s: acollect(s.stream("a", True)),
    "stream of an unknown": lambda s: acollect(s.stream("never")),
}
A_BODIES = {
    **{name: a_gen_then(read) for name, read in A_READS.items()},
    **{f"join {e}": lambda s, e=e: a_join(s, errors=e) for e in ("raise", "keep", "none")},
    "copy": a_copy,
    "var_scope": a_scope,
    "a stream that is left": a_leaving,
    "a task group": a_group,
}


def within_the_deadline(work: Callable[[], Any]) -> None:
    """`work` ends in time, with a value or with an error that is said on purpose."""
    outcome: list[BaseException | None] = []

    def run() -> None:
        try:
            work()
            outcome.append(None)
        except BaseException as error:
            outcome.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(DEADLINE)
    assert outcome, "it hangs"
    # KeyError: a variable that the program never came to make
    assert outcome[0] is None or isinstance(outcome[0], sw.SapwoodError | KeyError), outcome[0]


def against(fault: Fault, work: Callable[[ScriptedClient], Any]) -> None:
    """Run it on a client with the fault; afterwards nothing that it asked for is left."""
    client = ScriptedClient(fault.script, scores=fault.scores)
    fault.first(client)
    trouble = threading.Timer(0.01, fault.later or (lambda client: None), [client])
    if fault.later is not None:
        trouble.start()
    try:
        within_the_deadline(lambda: work(client))
        if fault.later is not None:
            trouble.join()
        over = time.monotonic() + DEADLINE
        while (client._live or client._scoring) and time.monotonic() < over:
            time.sleep(0.001)
        assert not client._live and not client._scoring, "a request is left"
    finally:
        trouble.cancel()
        client.close()


MODES = {"plain": {}, "stream": {"stream": True}, "step by step": {"use_thread": False}}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("mode", MODES)
def test_programs(fault, mode):
    for name, body in BODIES.items():
        program = sw.function(lambda s, body=body: body(s))

        def work(client, program=program):
            options = {**FAULTS[fault].options, **MODES[mode]}
            state = program.run(backend=client, **options)
            assert isinstance(state.error(), sw.SapwoodError | KeyError | None), state.error()
            state.ret_value  # noqa: B018
            state.text()

        try:
            against(FAULTS[fault], work)
        except AssertionError as error:
            raise AssertionError(f"{name}: {error}") from error


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("mode", ["arun", "arun streaming", "run"])
def test_async_programs(fault, mode):
    for name, body in A_BODIES.items():

        async def abody(s, body=body):
            return await body(s)

        program = sw.function(abody)

        def work(client, program=program):
            options = FAULTS[fault].options
            if mode == "run":
                program.run(backend=client, **options).text()
            elif mode == "arun":
                asyncio.run(program.arun(backend=client, **options)).text()
            else:
                asyncio.run(stream(program, client, options))

        try:
            against(FAULTS[fault], work)
        except AssertionError as error:
            raise AssertionError(f"{name}: {error}") from error


async def stream(program, client, options):
    state = await program.arun(backend=client, stream=True, **options)
    await acollect(state.stream())
    await state.result()


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("style", ["list", "generator", "arun_batch"])
def test_batches(fault, style):
    @sw.function
    def plain(s, q):
        s += q + sw.gen("a") + sw.select("b", ["x", "y"])
        return s["a"]

    @sw.function
    async def coroutine(s, q):
        s += q + sw.gen("a") + sw.select("b", ["x", "y"])
        return await s.get("a")

    for program in (plain, coroutine):
        for on_error in ("raise", "keep"):
            for retries in (0, 1):

                def work(client, program=program, on_error=on_error, retries=retries):
                    options = {
                        "on_error": on_error,
                        "retries": retries,
                        "backend": client,
                        **FAULTS[fault].options,
                    }
                    items = [{"q": str(i)} for i in range(5)]
                    if style == "arun_batch":
                        asyncio.run(program.arun_batch(items, **options))
                    else:
                        list(
                            program.run_batch(
                                items, generator_style=style == "generator", **options
                            )
                        )

                against(FAULTS[fault], work)
