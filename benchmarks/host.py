"""What a step costs beside the model's own computing: planning, masks, sampling, stops, reports.

    python benchmarks/host.py [--rows 64] [--steps 100]

An engine loop in this process, all requests decoding, no HTTP and no client. Per step, medians of
milliseconds: the wall time less the time inside the native model step, and its parts. `schedule`
plans; `launch` prepares arrays, fills masks and draws tokens; `commit` appends, advances grammars,
looks for stops and reports.
"""

import argparse
import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

from sapwood.constrained import Regex
from sapwood.runtime.config import CacheOptions, DeviceOptions, EngineConfig, ScheduleOptions
from sapwood.runtime.loop import EngineLoop, build_loop
from sapwood.runtime.protocol import SamplingParams
from sapwood.runtime.wire import Failed, TokenRequest

LETTERS = Regex("[a-z ,.]*")
CASES: dict[str, dict[str, Any]] = {
    "greedy": {"temperature": 0.0},
    "greedy, grammar": {"temperature": 0.0, "constraint": LETTERS},
    "top_k 50": {"temperature": 0.8, "top_k": 50},
    "top_k 50, grammar": {"temperature": 0.8, "top_k": 50, "constraint": LETTERS},
    "temperature": {"temperature": 0.8},
    "top_p 0.95": {"temperature": 0.8, "top_p": 0.95},
    "penalties": {"temperature": 0.0, "frequency_penalty": 0.5},
}


class Laps:
    """Seconds spent in wrapped methods since the last `take`."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = defaultdict(float)

    def wrap(self, name: str, owner: Any, method: str) -> None:
        inner: Callable[..., Any] = getattr(owner, method)

        def timed(*args: Any, **options: Any) -> Any:
            begin = time.perf_counter()
            try:
                return inner(*args, **options)
            finally:
                self._seconds[name] += time.perf_counter() - begin

        setattr(owner, method, timed)

    def take(self) -> dict[str, float]:
        seconds, self._seconds = self._seconds, defaultdict(float)
        return seconds


def measure(
    loop: EngineLoop, laps: Laps, params: dict[str, Any], rows: int, steps: int
) -> dict[str, float]:
    loop.control("flush_cache")
    for row in range(rows):
        prompt = tuple(range(1000 + 7 * row, 1032 + 7 * row))
        sampling = SamplingParams(max_tokens=steps + 20, ignore_eos=True, seed=row, **params)
        loop.submit(TokenRequest(f"r{row}", prompt, sampling, stream=row))
    found: dict[str, list[float]] = defaultdict(list)
    while loop.has_work:
        begin = time.perf_counter()
        messages = loop.step()
        wall = time.perf_counter() - begin
        for message in messages:
            if isinstance(message, Failed):
                raise message.error
        seconds = laps.take()
        if loop.control("stats")["requests_running"] < rows:  # at the beginning and at the end
            continue
        parts = {
            "host": wall - seconds["model"],
            "schedule": seconds["schedule"],
            "launch": seconds["launch"] - seconds["model"],
            "commit": seconds["commit"],
            "model": seconds["model"],
        }
        for name, value in parts.items():
            found[name].append(value * 1e3)
    return {name: statistics.median(values[5:]) for name, values in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--steps", type=int, default=100)
    args = parser.parse_args()
    loop = build_loop(
        EngineConfig(
            cache=CacheOptions(max_tokens=65_536),
            device=DeviceOptions("cpu"),
            schedule=ScheduleOptions(max_drafts=0, max_running=max(args.rows, 1)),
        )
    )
    laps = Laps()
    laps.wrap("schedule", loop._scheduler, "schedule")
    laps.wrap("commit", loop._scheduler, "commit")
    laps.wrap("launch", loop._runner, "launch")
    laps.wrap("model", loop._runner._step, "step")
    names = ("host", "schedule", "launch", "commit", "model")
    print(f"{args.rows} rows, ms a step" + "".join(f"{name:>10}" for name in names))
    for case, params in CASES.items():
        medians = measure(loop, laps, params, args.rows, args.steps)
        print(f"{case:21}" + "".join(f"{medians[name]:10.2f}" for name in names))
    loop.close()


if __name__ == "__main__":
    main()
