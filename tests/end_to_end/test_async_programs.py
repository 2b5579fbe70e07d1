"""Async programs on the real engine: what is cancelled or late gives back its pages."""

import asyncio
import time

import pytest

import sapwood as sw

pytestmark = pytest.mark.timeout(120)


@sw.function
async def endless(s: sw.AsyncProgramState, topic: str) -> None:
    s += f"A long story about {topic}: "
    forks = s.fork(2)
    forks += "once" + sw.gen("v", max_tokens=400, ignore_eos=True)
    s += sw.gen("a", max_tokens=400, ignore_eos=True)
    await s.get("a")


@sw.function
async def two_words(s: sw.AsyncProgramState, topic: str) -> str:
    s += f"{topic} is"
    forks = s.fork(2)
    forks += lambda i: " not"[: 4 * i] + sw.gen("v", max_tokens=2, temperature=0)
    await forks.join()
    return "".join(await s.get("v"))


def test_what_is_cancelled_or_late_gives_back_its_pages(engine: "sw.Engine") -> None:
    async def main() -> None:
        tasks = [asyncio.create_task(endless.arun(str(i), backend=engine)) for i in range(3)]
        while engine.client.control("stats")["requests_running"] < 9:
            await asyncio.sleep(0.01)
        for task in tasks:
            task.cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(error) for error in ended] == [asyncio.CancelledError] * 3
        with pytest.raises(sw.ProgramTimeout):
            await endless.arun("time", backend=engine, timeout=0.3)

    asyncio.run(main())
    over = time.monotonic() + 30
    while True:
        stats = engine.client.control("stats")
        if stats["pages_free"] + stats["pages_evictable"] == stats["pages_total"]:
            break
        assert time.monotonic() < over, stats
        time.sleep(0.01)
    engine.check_integrity()


def test_many_at_a_time_say_what_one_says(engine: "sw.Engine") -> None:
    topics = ["Paris", "Rome", "Oslo"]
    alone = [two_words.run(topic, backend=engine).ret_value for topic in topics]
    states = asyncio.run(two_words.arun_batch([(t,) for t in topics], backend=engine))
    assert [state.ret_value for state in states] == alone
