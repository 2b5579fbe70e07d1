"""The engine next to `transformers` generate, same machine, same model, same work, same run.

    python benchmarks/engine.py [--runs 3] [--dtype bfloat16] [--only decode-1,decode-8,...]

Cases: decode-N (N prompts at once, greedy, end-of-text ignored; output tokens per second, prefill
included), one-by-one (transformers answers the 8 prompts of decode-8 one after the other), prefill
(1,024 tokens, one output token) and shared-prefix (64 requests with 1,024 common tokens and 32 of
their own, 16 out). Engine and peer take turns in every run; the figure is the median. Prompt ids
are slices of a real text, so neither side gains from odd tokens.
"""

import argparse
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
import transformers
from peer import load_peer

import sapwood as sw
from sapwood._native import cpu_flags
from sapwood.runtime.models.source import resolve_model
from sapwood.runtime.tokenizer import load_tokenizer

TEXT = """A radix tree keeps every prefix once. When a program forks, its branches hold the same
pages of keys and values, and only what is new has to be computed; when a chat goes on, its history
is already there. The scheduler looks up how much of a waiting request is in the tree, locks it, and
plans the rest in chunks beside the running decodes. """


@dataclass(frozen=True)
class Case:
    name: str
    prompts: list[list[int]]
    max_tokens: int
    peer_batch: int  # prompts that transformers gets at once
    unit: str = "tok/s"  # or seconds

    def figure(self, seconds: float) -> float:
        if self.unit == "s":
            return seconds
        if self.max_tokens == 1:
            return sum(map(len, self.prompts)) / seconds
        return len(self.prompts) * self.max_tokens / seconds


def cases(ids: list[int]) -> list[Case]:
    def prompt(number: int, length: int) -> list[int]:
        start = 7 * number
        return (ids[start:] + ids[:start])[:length]

    eight = [prompt(i, 256) for i in range(8)]
    shared = prompt(100, 1024)
    return [
        Case("decode-1", [prompt(0, 64)], 128, 1),
        Case("decode-8", eight, 128, 8),
        Case("one-by-one", eight, 128, 1),
        Case("decode-32", [prompt(i, 256) for i in range(32)], 128, 32),
        Case("prefill", [prompt(0, 1024)], 1, 1),
        Case("shared-prefix", [shared + prompt(i, 32) for i in range(64)], 16, 16, "s"),
    ]


def run_engine(engine: "sw.Engine", case: Case) -> float:
    engine.flush_cache()
    params = {"temperature": 0, "max_new_tokens": case.max_tokens, "ignore_eos": True}
    begin = time.perf_counter()
    answers = engine.generate(input_ids=case.prompts, sampling_params=params)
    seconds = time.perf_counter() - begin
    assert all(len(answer["output_ids"]) == case.max_tokens for answer in answers)
    return seconds


def run_peer(model: transformers.PreTrainedModel, case: Case) -> float:
    begin = time.perf_counter()
    for first in range(0, len(case.prompts), case.peer_batch):
        ids = torch.tensor(case.prompts[first : first + case.peer_batch])
        with torch.inference_mode():
            output = model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                do_sample=False,
                max_new_tokens=case.max_tokens,
                min_new_tokens=case.max_tokens,
            )
        assert output.shape[1] == ids.shape[1] + case.max_tokens
    return time.perf_counter() - begin


def measure(runs: int, steps: list[Callable[[], float]]) -> list[float]:
    """Median seconds of each step; in every run the steps take turns."""
    times: list[list[float]] = [[] for _ in steps]
    for _ in range(runs):
        for kept, step in zip(times, steps, strict=True):
            kept.append(step())
    return [statistics.median(kept) for kept in times]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--dtype", default="bfloat16", choices=["bfloat16", "float32"])
    parser.add_argument("--only", default="", help="comma-separated case names")
    options = parser.parse_args()

    ids = (
        load_tokenizer(resolve_model(None))
        .tokenizer.encode(TEXT * 40, add_special_tokens=False)
        .ids
    )
    chosen = [c for c in cases(ids) if not options.only or c.name in options.only.split(",")]
    peer = load_peer(getattr(torch, options.dtype))
    flags = cpu_flags() & {"avx2", "avx512f", "avx512_bf16", "avx512_vnni", "amx_bf16"}
    print(platform.machine(), *sorted(flags), f"{torch.get_num_threads()} threads", options.dtype)
    versions = {"torch": torch, "transformers": transformers, "sapwood": sw}
    print(", ".join(f"{name} {module.__version__}" for name, module in versions.items()))
    print(f"SmolLM2-135M-Instruct, medians of {options.runs} runs\n")
    print(f"{'case':<14} {'sapwood':>10} {'transformers':>13} {'ratio':>7}")
    with sw.Engine(dtype=options.dtype) as engine:
        warm_up = Case("warm-up", [ids[:64]], 8, 1)
        run_engine(engine, warm_up)
        run_peer(peer, warm_up)
        for case in chosen:
            ours, theirs = measure(
                options.runs, [partial(run_engine, engine, case), partial(run_peer, peer, case)]
            )
            figures = f"{case.figure(ours):>10.1f} {case.figure(theirs):>13.1f}"
            print(f"{case.name:<14} {figures} {theirs / ours:>6.2f}x  {case.unit}", flush=True)


if __name__ == "__main__":
    main()
