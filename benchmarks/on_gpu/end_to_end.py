"""The engine end to end on a model's shape, beside transformers' continuous batching."""

import gc
import time
from dataclasses import replace

import torch

from sapwood.runtime.config import (
    CacheOptions,
    DeviceOptions,
    EngineConfig,
    ScheduleOptions,
    resolve,
    resolve_schedule,
)
from sapwood.runtime.loop import EngineLoop, assemble
from sapwood.runtime.models.llama import LlamaModel
from sapwood.runtime.torch_backend import Gpu, TorchBackend

from . import drive, gaps, transformers_peer
from .device import Device, Limits
from .models import Shape, byte_tokenizer, of_transformers
from .report import Table, share
from .work import Run, Work

_COLUMNS = (
    "engine",
    "streams",
    "to the first token",
    "between tokens",
    "output tok/s",
    "of weight bandwidth",
)
_PEER_SECONDS = 240  # left of a part's 8 minutes when the peer begins, or it is not begun


def tables(device: Device, shape: Shape, limits: Limits, deadline: float) -> list[Table]:
    """`deadline`: of `time.monotonic`."""
    work = [Work(1), Work(100)]
    if not device.is_gpu:
        shape, work = shape.smaller(), [Work(1, 24, 6), Work(3, 24, 6)]
    speed = Table(
        f"{shape.name}: {work[0].num_input:,} tokens in, {work[0].num_output:,} out, bfloat16",
        _COLUMNS,
        "Goals, 8B shape: 85 % of weight bandwidth for one stream; 3 times transformers' output "
        "for 100. Weight bandwidth: the weights' bytes over the time between tokens, as a share of "
        "copy bandwidth.",
    )
    steps = Table(
        f"{shape.name}: one decode step of one stream",
        ("graphs", "step", "a kernel runs", "gaps", "kernels", "slowest kernels"),
        "Goal, 8B shape: gaps under 5 % with graphs.",
    )
    model = LlamaModel.random(shape.config, _dtype(device), seed=0, device=device.torch_device)
    for graphs in (True, False):
        loop = build(device, shape, model, work[-1], graphs)
        name = "Sapwood" if graphs else "Sapwood, no graphs"
        for each in work if graphs else work[:1]:
            _run_ours(speed, name, loop, shape, each, limits)
        if device.is_gpu:
            _add_gaps(steps, graphs, loop, shape, work[0])
        loop.close()
        del loop
        _free(device)
    del model
    _free(device)
    _run_peer(speed, device, shape, work, limits, deadline)
    return [speed, steps] if device.is_gpu else [speed]


def build(device: Device, shape: Shape, model: LlamaModel, work: Work, graphs: bool) -> EngineLoop:
    """An engine with room for all the work at once."""
    config = shape.config
    tokens = work.concurrency * (work.num_input + work.num_output + 64)
    place = "cuda" if device.is_gpu else "cpu"
    options = EngineConfig(
        cache=CacheOptions(max_tokens=tokens),
        schedule=ScheduleOptions(max_running=work.concurrency, max_drafts=0),
        device=DeviceOptions(place, cuda_graphs=graphs if device.is_gpu else None),
    )
    gpu = Gpu.of(device.torch_device, options.device) if device.is_gpu else None
    backend = TorchBackend(model, "bfloat16" if device.is_gpu else "float32", gpu)
    resolved = resolve(
        options,
        dtype=backend.dtype,
        checkpoint_context=config.context_length,
        bytes_per_token=backend.bytes_per_token,
        free_bytes=backend.free_bytes(resolve_schedule(options.schedule, place)),
        device=place,
    )
    return assemble(backend, byte_tokenizer(shape.name, config.context_length), resolved)


def _dtype(device: Device) -> torch.dtype:
    return torch.bfloat16 if device.is_gpu else torch.float32


def _free(device: Device) -> None:
    gc.collect()
    if device.is_gpu:
        torch.cuda.empty_cache()


def _add(table: Table, name: str, shape: Shape, work: Work, run: Run, limits: Limits) -> None:
    bandwidth = shape.weights * 2 / run.between_tokens
    table.add(
        name,
        str(work.concurrency),
        f"{run.first_token * 1e3:,.1f} ms",
        f"{run.between_tokens * 1e3:,.2f} ms",
        f"{run.tokens_per_second:,.0f}",
        share(bandwidth, limits.bandwidth),
    )


def _run_ours(
    table: Table, name: str, loop: EngineLoop, shape: Shape, work: Work, limits: Limits
) -> None:
    vocab = shape.config.vocab_size
    warm = replace(work, num_output=min(4, work.num_output))
    drive.run(loop, warm, warm.prompts(vocab, seed=1), "warm")
    run = drive.run(loop, work, work.prompts(vocab), "timed")
    _add(table, name, shape, work, run, limits)


def _add_gaps(table: Table, graphs: bool, loop: EngineLoop, shape: Shape, work: Work) -> None:
    found = gaps.measure(loop, work, work.prompts(shape.config.vocab_size))
    table.add(
        "yes" if graphs else "no",
        f"{found.span:,.0f} us",
        f"{found.busy:,.0f} us",
        f"{100 * found.share:.1f} %",
        f"{found.kernels:,.0f}",
        "; ".join(f"{name[:40]} {time:,.0f} us" for name, time in found.slowest),
    )


def _run_peer(
    table: Table, device: Device, shape: Shape, work: list[Work], limits: Limits, deadline: float
) -> None:
    name = "transformers, continuous batching"
    model = of_transformers(shape.config, _dtype(device), device.torch_device)
    works = list(reversed(work)) if device.is_gpu else work[-1:]  # first what there is a goal for
    for each in works:
        if time.monotonic() > deadline - _PEER_SECONDS:
            table.add(name, str(each.concurrency), *["no time left"] * 4)
            continue
        try:
            run = transformers_peer.run(model, each, each.prompts(shape.config.vocab_size))
        except Exception as error:  # whatever stops the peer is one line of the table
            cells = [f"{type(error).__name__}: {str(error)[:80]}", "-", "-", "-"]
            table.add(name, str(each.concurrency), *cells)
        else:
            _add(table, name, shape, each, run, limits)
