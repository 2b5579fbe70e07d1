"""An engine loop under a piece of work, in this process: no HTTP, no client, token ids only."""

import time

from sapwood.runtime.loop import EngineLoop
from sapwood.runtime.protocol import SamplingParams
from sapwood.runtime.wire import Failed, TokenChunk, TokenRequest

from .work import Run, Work


def submit(loop: EngineLoop, work: Work, prompts: list[list[int]], name: str) -> None:
    sampling = SamplingParams(temperature=0.0, max_tokens=work.num_output, ignore_eos=True)
    for number, prompt in enumerate(prompts):
        loop.submit(TokenRequest(f"{name}-{number}", tuple(prompt), sampling, stream=number))


def run(loop: EngineLoop, work: Work, prompts: list[list[int]], name: str) -> Run:
    """All requests at once, until the last one has ended. The cache is emptied before."""
    loop.control("flush_cache")
    times: dict[str, list[float]] = {f"{name}-{number}": [] for number in range(len(prompts))}
    begin = time.perf_counter()
    submit(loop, work, prompts, name)
    while loop.has_work:
        messages = loop.step()
        now = time.perf_counter() - begin
        for message in messages:
            if isinstance(message, Failed):
                raise message.error
            if isinstance(message, TokenChunk):
                times[message.id] += [now] * len(message.token_ids)
    for id, came in times.items():
        assert len(came) == work.num_output, f"{id}: {len(came)} tokens came"
    return Run(list(times.values()))


def abort(loop: EngineLoop, work: Work, name: str) -> None:
    for number in range(work.concurrency):
        loop.abort(f"{name}-{number}")
    while loop.has_work:
        loop.step()
