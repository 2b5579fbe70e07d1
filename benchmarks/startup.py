"""Where the time goes from starting Python to an engine that is ready, stage by stage.

    python benchmarks/startup.py [--runs 5] [--model NAME]

Each run is a process of its own. Medians of wall and CPU milliseconds; CPU counts all threads, and
is the steadier one on a busy machine.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

Laps = dict[str, tuple[float, float]]  # stage -> wall and CPU, ms


def measure(model: str | None) -> Laps:
    """One start, in this process."""
    laps: Laps = {"python": (float("nan"), time.process_time() * 1e3)}

    @contextmanager
    def lap(stage: str) -> Iterator[None]:
        wall, cpu = time.perf_counter(), time.process_time()
        yield
        laps[stage] = (time.perf_counter() - wall) * 1e3, (time.process_time() - cpu) * 1e3

    with lap("import sapwood"):
        import sapwood  # noqa: F401
    with lap("import the engine"):
        from sapwood.runtime import loop
        from sapwood.runtime.config import EngineConfig, ModelOptions
        from sapwood.runtime.models.source import resolve_model
        from sapwood.runtime.text import TextCodec
        from sapwood.runtime.tokenizer import load_tokenizer
    path = resolve_model(model)
    with lap("tokenizer"):
        files = load_tokenizer(path)
    with lap("bytes of tokens"):
        vocabulary = files.vocabulary
    config = EngineConfig(ModelOptions(str(path)))
    with lap("backend: its imports, weights"):
        backend = loop.choose_backend(path, config)
    loop.choose_backend = lambda path, config: backend
    with lap("KV cache, scheduler"):
        engine = loop.build_loop(config, files)
    with lap("text codec"):
        TextCodec(files, engine.info)
    assert files.vocabulary is vocabulary
    engine.close()
    return laps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--model")
    parser.add_argument("--once", action="store_true", help="one run in this process, as JSON")
    args = parser.parse_args()
    if args.once:
        print(json.dumps(measure(args.model)))
        return
    command = [sys.executable, __file__, "--once", *(["--model", args.model] if args.model else [])]
    runs: list[Laps] = []
    for _ in range(args.runs):
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        runs.append(json.loads(done.stdout))
    print(f"{'stage':32}{'wall ms':>9}{'CPU ms':>9}   (medians of {args.runs})")
    for stage in runs[0]:
        wall, cpu = (statistics.median(run[stage][i] for run in runs) for i in (0, 1))
        print(f"{stage:32}{wall:9.0f}{cpu:9.0f}")


if __name__ == "__main__":
    main()
