"""What the language costs beside the model: nodes, forks and async programs on a scripted client.

    python benchmarks/language.py [--rounds 5]

The client answers at once from a thread of its own; its work is in the wall and process times, and
stands in a line of its own. Prints the machine and the best of the rounds: the machine's other work
only ever adds.
"""

import argparse
import asyncio
import os
import platform
import threading
import time
from collections.abc import Callable
from datetime import date
from functools import partial

import sapwood as sw
from sapwood.runtime.protocol import GenerateRequest, SamplingParams, Text
from sapwood.runtime.scripted import ScriptedClient

NODES, FORKS, PROGRAMS = 100, 10_000, 1_000


@sw.function
def gens(s: sw.ProgramState) -> None:
    for _ in range(NODES):
        s += sw.gen("a", max_tokens=4)


@sw.function
def texts(s: sw.ProgramState) -> None:
    for _ in range(NODES):
        s += "text "


@sw.function
def reads(s: sw.ProgramState) -> None:
    for _ in range(NODES):
        s += sw.gen("a", max_tokens=4)
        assert s["a"] == "ok"


@sw.function
def forks(s: sw.ProgramState) -> sw.ForkGroup:
    s += "shared"
    return s.fork(FORKS)


@sw.function
async def agent(s: sw.AsyncProgramState, q: str) -> None:
    s += q + sw.gen("a", max_tokens=4)
    await s.get("a")
    s += sw.gen("b", max_tokens=4)


def node_cost(program: sw.Program, client: ScriptedClient) -> list[float]:
    """Seconds a node: wall, this thread, this process."""
    clocks: list[Callable[[], float]] = [time.perf_counter, time.thread_time, time.process_time]
    before = [clock() for clock in clocks]
    program.run(backend=client).sync()
    return [(clock() - start) / NODES for clock, start in zip(clocks, before, strict=True)]


def client_cost(client: ScriptedClient) -> list[float]:
    """Seconds a request of the client alone, one after another: wall, this thread, this process."""
    clocks: list[Callable[[], float]] = [time.perf_counter, time.thread_time, time.process_time]
    before = [clock() for clock in clocks]
    done = threading.Semaphore(0)
    for number in range(NODES):
        request = GenerateRequest((Text("ok" * number),), SamplingParams(max_tokens=4))
        client.generate(request).subscribe(lambda event: done.release())
    for _ in range(NODES):
        done.acquire()
    return [(clock() - start) / NODES for clock, start in zip(clocks, before, strict=True)]


def fork_cost(client: ScriptedClient) -> list[float]:
    """Seconds: fork 10,000, add a text to each, join; and threads that it took."""
    before = threading.active_count()
    start = time.perf_counter()
    state = forks.run(backend=client)
    group = state.ret_value
    forked = time.perf_counter()
    group += "own"
    added = time.perf_counter()
    group.join()
    joined = time.perf_counter()
    threads = threading.active_count() - before
    return [forked - start, added - forked, joined - added, float(threads)]


def gen_forks_cost(client: ScriptedClient) -> list[float]:
    """Seconds a branch: 10,000 branches with a gen each, joined."""
    start = time.perf_counter()
    state = forks.run(backend=client)
    group = state.ret_value
    group += sw.gen("v", max_tokens=4)
    group.join()
    return [(time.perf_counter() - start) / FORKS]


def async_cost(client: ScriptedClient) -> list[float]:
    """Programs of two gens a second, and the threads beside the loop's and the client's."""

    async def main() -> float:
        before = threading.active_count()
        async with asyncio.TaskGroup() as group:
            for number in range(PROGRAMS):
                group.create_task(agent.arun(str(number), backend=client))
        return float(threading.active_count() - before)

    start = time.perf_counter()
    threads = asyncio.run(main())
    return [PROGRAMS / (time.perf_counter() - start), threads]


def best(rounds: int, measure: Callable[[], list[float]], pick: int = 0) -> list[float]:
    """The round whose first number is least."""
    return min((measure() for _ in range(rounds)), key=lambda numbers: numbers[pick])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    cores, version = os.cpu_count(), platform.python_version()
    print(f"{date.today()}, {platform.machine()}, {cores} cores, Python {version}")
    client = ScriptedClient(lambda request: "ok")
    print(f"us a node of {NODES}            wall  program thread  process")
    costs = {p.name: partial(node_cost, p, client) for p in (texts, gens, reads)}
    costs["the client alone"] = partial(client_cost, client)
    for name, measure in costs.items():
        wall, thread, process = best(rounds, measure)
        print(f"  {name:<20} {1e6 * wall:10.1f} {1e6 * thread:15.1f} {1e6 * process:8.1f}")
    forked, added, joined, threads = best(rounds, lambda: fork_cost(client))
    print(f"{FORKS} forks: {forked:.3f} s, a text to each {added:.3f} s, join {joined:.3f} s, ")
    print(f"  {threads:.0f} threads more")
    (branch,) = best(rounds, lambda: gen_forks_cost(client))
    print(f"{FORKS} forks with a gen each, joined: {1e6 * branch:.1f} us a branch")
    rate, threads = max(async_cost(client) for _ in range(rounds))
    print(f"{PROGRAMS} async programs of two gens at a time: {rate:.0f} a second, ")
    print(f"  {threads:.0f} threads more")
    client.close()


if __name__ == "__main__":
    main()
