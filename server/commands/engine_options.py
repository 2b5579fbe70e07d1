"""The options that every command with an engine takes, and the EngineConfig made of them."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, BooleanOptionalAction, Namespace
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, get_args

from ...runtime.config import (
    CacheOptions,
    Device,
    DeviceOptions,
    Dtype,
    EngineConfig,
    KvDtype,
    ModelOptions,
    ScheduleOptions,
)
from ...runtime.errors import InvalidRequest
from ...runtime.native_format import renamed
from ...runtime.protocol import SamplingParams
from .failure import CommandError

if TYPE_CHECKING:
    from ...runtime.process import ProcessClient


SAMPLING: Final = {
    "seed": "--seed",
    "temperature": "--temperature",
    "max_tokens": "--max-tokens",
}
"""Field of SamplingParams -> the option that sets it, in the commands that generate."""


def add_engine_options(parser: ArgumentParser) -> None:
    group = parser.add_argument_group("engine")
    group.add_argument(
        "--model",
        help="a known name, a folder in Hugging Face format, a .gguf file or a hub id "
        "(default: smollm2-135m-instruct)",
    )
    group.add_argument(
        "--dtype",
        default="auto",
        choices=get_args(Dtype),
        help="of the weights: fp32, bf16, groups of int8 or q4, or on a GPU fp8 (default: auto, a "
        "quantized file's own numbers, or else what this machine is fastest at)",
    )
    group.add_argument(
        "--context-length", type=int, metavar="N", help="at most N tokens per request"
    )
    group.add_argument(
        "--max-tokens-in-cache",
        type=int,
        metavar="N",
        help="size of the KV cache (default: a quarter of the free memory, at most 3 GiB; "
        "on a GPU what --memory-fraction leaves)",
    )
    group.add_argument(
        "--kv-dtype",
        default="auto",
        choices=get_args(KvDtype),
        help="of the KV cache: auto is fp32 with fp32 weights, or else bf16; int8 and, on GPUs "
        "that have it, fp8 hold nearly twice the tokens (default: auto)",
    )
    group.add_argument(
        "--max-drafts",
        type=int,
        default=ScheduleOptions.max_drafts,
        metavar="N",
        help="tokens of one request that a step may guess and check, where that pays "
        "(default: %(default)s; 0: none; outputs are the same)",
    )
    group.add_argument(
        "--device",
        default=DeviceOptions.device,
        choices=get_args(Device),
        help="what computes (default: auto, the GPU where there is one that torch can use)",
    )
    group.add_argument(
        "--memory-fraction",
        type=float,
        metavar="F",
        help="of the GPU's memory for weights, activations and the KV cache (default: 0.9)",
    )
    group.add_argument(
        "--cuda-graphs",
        action=BooleanOptionalAction,
        help="record the launches of a step on the GPU once and replay them (default: yes)",
    )
    group.add_argument(
        "--deterministic",
        action=BooleanOptionalAction,
        default=DeviceOptions.deterministic,
        help="on the GPU, cut a request's work as if it were alone (default: yes)",
    )
    group.add_argument(
        "--tensor-parallel",
        type=int,
        default=DeviceOptions.tensor_parallel,
        metavar="N",
        help="GPUs that compute the model together, each holding its share of every layer "
        "(default: %(default)s; with --device cpu: processes, for tests)",
    )
    group.add_argument("--threads", type=int, metavar="N", help="threads that compute")


def engine_config(args: Namespace) -> EngineConfig:
    """Raises InvalidRequest or CommandError that names the option out of range."""
    config = EngineConfig(
        model=ModelOptions(args.model, args.dtype, args.context_length, args.threads),
        cache=CacheOptions(args.max_tokens_in_cache, kv_dtype=args.kv_dtype),
        schedule=ScheduleOptions(max_drafts=args.max_drafts),
        device=DeviceOptions(
            args.device,
            args.memory_fraction,
            args.cuda_graphs,
            args.deterministic,
            args.tensor_parallel,
        ),
    )
    tokens, page = config.cache.max_tokens, config.cache.page_size
    if tokens is not None and tokens < page:
        raise CommandError(
            f"--max-tokens-in-cache: {tokens} is less than one page of the cache ({page} tokens)"
        )
    return config


def sampling_params(args: Namespace) -> SamplingParams:
    """What the sampling options ask for; those that `args` lacks, or None, stay at their defaults.
    Raises InvalidRequest that names the option out of range."""
    given = {name: getattr(args, name, None) for name in SAMPLING}
    try:
        return SamplingParams(**{name: value for name, value in given.items() if value is not None})
    except InvalidRequest as error:
        raise renamed(error, SAMPLING) from None


def launched(config: EngineConfig, meanwhile: Callable[[], object] | None = None) -> ProcessClient:
    """An engine in a process of its own; fetches the default model on first use. Says on stderr
    where the cache is too small for a request as long as the context. `meanwhile`: see `launch`."""
    from ...runtime.launch import launch

    client = launch(config, meanwhile)
    info = client.info()
    if info.max_tokens_in_cache < info.context_length:
        print(
            f"note: the KV cache holds {info.max_tokens_in_cache} tokens, fewer than the context "
            f"length of {info.context_length}: longer requests are refused",
            file=sys.stderr,
            flush=True,
        )
    return client
