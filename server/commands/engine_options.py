"""The options that every command with an engine takes, and the EngineConfig made of them."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING

from ...runtime.config import CacheOptions, EngineConfig, ModelOptions

if TYPE_CHECKING:
    from ...runtime.process import ProcessClient


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
        choices=("auto", "float32", "bfloat16"),
        help="of weights and KV cache (default: auto, what this machine is fastest at)",
    )
    group.add_argument(
        "--context-length", type=int, metavar="N", help="at most N tokens per request"
    )
    group.add_argument(
        "--max-tokens-in-cache",
        type=int,
        metavar="N",
        help="size of the KV cache (default: a quarter of the free memory, at most 3 GiB)",
    )
    group.add_argument("--threads", type=int, metavar="N", help="threads that compute")


def engine_config(args: Namespace) -> EngineConfig:
    """Raises InvalidRequest that names the option out of range."""
    return EngineConfig(
        model=ModelOptions(args.model, args.dtype, args.context_length, args.threads),
        cache=CacheOptions(args.max_tokens_in_cache),
    )


def launched(config: EngineConfig) -> ProcessClient:
    """An engine in a process of its own; fetches the default model on first use."""
    from ...runtime.launch import launch

    return launch(config)
