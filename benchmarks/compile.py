"""What `compile()` buys: a batch with and without its constant beginning computed ahead, and the
first request after a start with and without `warm`.

    python benchmarks/compile.py [--runs 7] [--items 16] [--shots 5 30]

The cache is flushed before each measurement, and the ways take turns. Medians and minima of wall
milliseconds on the default model.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import sapwood as sw


def few_shot(num_shots: int) -> sw.Program[None]:
    shots = "".join(
        f"Question: what is {i} plus {i + 3}? Answer: {2 * i + 3}.\n" for i in range(num_shots)
    )

    @sw.function
    def add(s: sw.ProgramState, q: int) -> None:
        s += shots
        s += f"Question: what is {q} plus 5? Answer:" + sw.gen("a", max_tokens=8, temperature=0)

    return add


def wall(work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    work()
    return (time.perf_counter() - begin) * 1e3


def measure(engine: sw.Engine, add: sw.Program[None], num_runs: int, num_items: int) -> None:
    compiled = add.compile()
    items = [{"q": number} for number in range(num_items)]
    ways: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {
        "batch": (lambda: None, lambda: add.run_batch(items, backend=engine)),
        "batch, compiled": (lambda: None, lambda: compiled.run_batch(items, backend=engine)),
        "first request": (lambda: None, lambda: add.run(q=3, backend=engine).sync()),
        "first request after warm": (
            lambda: compiled.warm(engine),
            lambda: compiled.run(q=3, backend=engine).sync(),
        ),
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(num_runs + 1):
        for name, (before, work) in ways.items():
            sw.flush_cache(engine)
            before()
            times[name].append(wall(work))
    print(f"a beginning of {len(compiled.prefix)} characters, {num_items} items", flush=True)
    for name, values in times.items():
        kept = values[1:]  # the first round warms the process itself
        print(f"  {name:<26}{statistics.median(kept):>8.0f} ms  (min {min(kept):.0f})")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--items", type=int, default=16)
    parser.add_argument("--shots", type=int, nargs="+", default=[5, 30])
    args = parser.parse_args()
    with sw.Engine() as engine:
        for num_shots in args.shots:
            measure(engine, few_shot(num_shots), args.runs, args.items)


if __name__ == "__main__":
    main()
