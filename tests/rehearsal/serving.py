"""An engine of some shape on "cuda", and requests of every kind for it. Knows nothing of pretence
but that a step must not wait."""

import argparse
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

import torch

from sapwood.constrained import Regex
from sapwood.runtime.config import (
    CacheOptions,
    DeviceOptions,
    EngineConfig,
    ModelOptions,
    ScheduleOptions,
    resolve,
    resolve_schedule,
)
from sapwood.runtime.loop import assemble
from sapwood.runtime.models.llama import LlamaModel
from sapwood.runtime.models.source import resolve_model
from sapwood.runtime.protocol import LogprobOptions, SamplingParams
from sapwood.runtime.torch_backend import Gpu, TorchBackend
from sapwood.runtime.wire import Failed, TokenRequest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
from on_gpu import models


class Strict(Protocol):
    def strict(self) -> AbstractContextManager[None]: ...


def serve(args: argparse.Namespace, gpu: Strict, on_ready: Callable[[], None]) -> int:
    """Requests of every kind, all at once; returns the number of steps. on_ready: called before the
    first."""
    shapes = {"8b": models.LLAMA_8B, "7b": models.QWEN_7B, "smollm2": models.SMOLLM2}
    device = torch.device("cuda", 0)
    options = EngineConfig(
        model=ModelOptions(dtype=args.dtype),
        cache=CacheOptions(max_tokens=1 << 17, kv_dtype=args.kv_dtype),
        schedule=ScheduleOptions(max_running=16),
        device=DeviceOptions("cuda", cuda_graphs=not args.no_graphs),
    )
    if args.shape == "real":
        backend = TorchBackend.load(resolve_model(None), options, "cuda")
    else:
        model = LlamaModel.random(shapes[args.shape], torch.bfloat16, seed=0, device=device)
        gpu_options = Gpu.of(device, options.device)
        backend = TorchBackend(model, "bfloat16", gpu_options, options.cache.kv_dtype)
    config = backend.config
    resolved = resolve(
        options,
        dtype=backend.dtype,
        checkpoint_context=config.context_length,
        bytes_per_token=backend.bytes_per_token,
        free_bytes=backend.free_bytes(resolve_schedule(options.schedule, "cuda")),
        device="cuda",
    )
    loop = assemble(backend, models.byte_tokenizer("pretended", config.context_length), resolved)
    on_ready()
    kinds: list[dict[str, Any]] = [
        {"temperature": 0.0},
        {"temperature": 0.8, "top_k": 20, "top_p": 0.9, "min_p": 0.01},
        {"temperature": 0.0, "frequency_penalty": 0.5, "repetition_penalty": 1.1},
        {"temperature": 0.0, "logit_bias": ((5, 1.0),)},
        {"temperature": 0.0, "constraint": Regex("[a-z\\x00 !]*")},
    ]
    common = tuple(range(300, 2_400))
    for number, kind in enumerate(kinds * 2):
        sampling = SamplingParams(max_tokens=12, ignore_eos=True, **kind)
        logprobs = LogprobOptions(0, 3) if number == 3 else None
        prompt = (*common[: 40 if number < 5 else 2_100], number)
        loop.submit(TokenRequest(f"r{number}", prompt, sampling, number, logprobs))
    steps = 0
    while loop.has_work:
        with gpu.strict():
            messages = loop.step()
        steps += 1
        for message in messages:
            if isinstance(message, Failed):
                raise message.error
    loop.control("check_integrity")
    loop.close()
    return steps
