"""The native model step beside what the machine can do at most, in one run.

    python benchmarks/step.py [--dtypes bf16,auto] [--runs 5] [--threads N] [--phases]

No engine, no sampling, no HTTP: only `LlamaStep`. decode-N is a step of N sequences, each with 256
tokens behind it; prefill computes 1,024 tokens in steps of 512. The rooflines come from
`roofline.cpp`: bytes a second read from memory of the weights' size, and multiply-adds a second
from registers. A decode of one sequence can at best read every weight once; a prefill can at best
do nothing but multiply-adds. Medians of the runs.
"""

import argparse
import ctypes
import platform
import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np

from sapwood import _native
from sapwood.kernels.llama_step import (
    KvFormat,
    LlamaStep,
    Phase,
    StepInputs,
    StepShape,
    WeightFormat,
)
from sapwood.runtime.config import ComputeDtype, resolve_dtype
from sapwood.runtime.machine import num_cores
from sapwood.runtime.models.native_llama import load_native, step_shape
from sapwood.runtime.models.source import resolve_model
from sapwood.runtime.models.weights import open_checkpoint

PAGE_SIZE, BEHIND, PROMPT, CHUNK, WIDTH = 16, 256, 1024, 512, 80
STREAMS = (1, 8, 32)
# What a dtype's rows are multiplied as.
PRODUCTS = {
    "fp32": WeightFormat.FLOAT32,
    "bf16": WeightFormat.BFLOAT16,
    **dict.fromkeys(("auto", "int8", "q4"), WeightFormat.INT8),
}


@dataclass(frozen=True)
class Rooflines:
    bytes_per_second: float
    products_per_second: float  # multiply-adds


def load(dtype: str, threads: int) -> LlamaStep:
    checkpoint = open_checkpoint(resolve_model(None))
    resolved = resolve_dtype(
        dtype,  # type: ignore[arg-type]
        bfloat16_is_fast=True,
        keeps_quantized=True,
    )
    with checkpoint:
        shape = step_shape(
            checkpoint.config,
            page_size=PAGE_SIZE,
            num_pages=max(STREAMS) * WIDTH,
            kv_format=KvFormat.FLOAT32 if resolved == "float32" else KvFormat.BFLOAT16,
            threads=threads,
        )
        return load_native(checkpoint, cast(ComputeDtype, resolved), shape)


def inputs(spans: list[tuple[int, int]]) -> StepInputs:
    """spans: start and length, each a sequence of its own; logits of each one's last token."""
    lengths = np.array([length for _, length in spans], np.int32)
    total = int(lengths.sum())
    ids = (np.arange(total, dtype=np.int64) * 7919 % 40_000 + 100).astype(np.int32)
    table = np.arange(len(spans) * WIDTH, dtype=np.int32).reshape(len(spans), WIDTH)
    return StepInputs(
        token_ids=ids,
        starts=np.array([start for start, _ in spans], np.int32),
        lengths=lengths,
        table_rows=np.arange(len(spans), dtype=np.int32),
        page_table=table,
        rows=np.cumsum(lengths).astype(np.int32) - 1,
    )


def products_per_token(shape: StepShape) -> int:
    """Multiply-adds of one token's linear maps, without the head's."""
    queries, keys = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    attention = shape.hidden * (2 * queries + 2 * keys)
    return shape.layers * (attention + 3 * shape.hidden * shape.inner)


def seconds_of(step: LlamaStep, plans: list[StepInputs]) -> float:
    begin = time.perf_counter()
    for plan in plans:
        step.step(plan)
    return time.perf_counter() - begin


def rooflines(weight_format: WeightFormat, size: int, threads: int) -> Rooflines:
    library = _native.load("roofline", [Path(__file__).with_name("roofline.cpp")])
    library.sapwood_read_rate.restype = library.sapwood_multiply_rate.restype = ctypes.c_double
    library.sapwood_read_rate.argtypes = (ctypes.c_int64, ctypes.c_int, ctypes.c_int)
    library.sapwood_multiply_rate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int)
    return Rooflines(
        library.sapwood_read_rate(size, threads, 20),
        library.sapwood_multiply_rate(int(weight_format), threads, 20),
    )


def measure(dtype: str, threads: int, runs: int, phases: bool) -> None:
    step = load(dtype, threads)
    size = step.weight_bytes
    top = rooflines(PRODUCTS[dtype], size, threads)
    decodes = {n: [inputs([(BEHIND, 1)] * n)] * 10 for n in STREAMS}
    prefill = [inputs([(start, CHUNK)]) for start in range(0, PROMPT, CHUNK)]
    cases = {**{f"decode-{n}": plans for n, plans in decodes.items()}, "prefill": prefill}
    times: dict[str, list[float]] = {name: [] for name in cases}
    step.step(inputs([(0, BEHIND)] * max(STREAMS)))
    laps: dict[str, dict[Phase, float]] = {}
    for run in range(runs + 1):
        for name, plans in cases.items():
            step.seconds()
            taken = seconds_of(step, plans)
            laps[name] = step.seconds()
            if run:  # the first one warms up
                times[name].append(taken)
    products = products_per_token(step.shape)
    print(
        f"{dtype}: {size / 1e6:.0f} MB of weights; reads {top.bytes_per_second / 1e9:.1f} GB/s; "
        f"{top.products_per_second / 1e9:.0f} GMAC/s"
    )
    for name, taken in times.items():
        median = statistics.median(taken)
        if name == "prefill":
            share = PROMPT * products / median / top.products_per_second
            print(f"  {name:10} {PROMPT / median:8.0f} tok/s   {share:5.0%} of the multiply-adds")
        else:
            count = int(name.partition("-")[2])
            each = median / len(cases[name])
            share = size / each / top.bytes_per_second
            note = f"{share:5.0%} of the reads" if count == 1 else ""
            print(f"  {name:10} {count / each:8.0f} tok/s   {each * 1e3:7.2f} ms a step   {note}")
        if phases:
            total = sum(laps[name].values())
            parts = (f"{phase.name.lower()} {t / total:.0%}" for phase, t in laps[name].items())
            print("             " + ", ".join(parts))
    step.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dtypes", default="bf16,auto")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--threads", type=int, default=num_cores())
    parser.add_argument("--phases", action="store_true", help="where the last run's time went")
    args = parser.parse_args()
    print(
        f"{platform.machine()}, {_native.status().tier}, {args.threads} threads, "
        f"medians of {args.runs}"
    )
    for dtype in args.dtypes.split(","):
        measure(dtype, args.threads, args.runs, args.phases)


if __name__ == "__main__":
    main()
