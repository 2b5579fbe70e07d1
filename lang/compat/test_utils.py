"""The command line that SGLang's benchmarks share.

Owns: its options and the back end that they choose.
"""

from argparse import ArgumentParser, Namespace

from ..backends import OpenAI, RuntimeEndpoint
from ..global_config import global_config

__test__ = False  # the name is SGLang's: there is nothing here for pytest


def add_common_sglang_args_and_parse(parser: ArgumentParser) -> Namespace:
    """Adds the options and reads the process's arguments."""
    parser.add_argument("--parallel", type=int, default=64)
    parser.add_argument("--host", type=str, default="127.0.0.1")
    parser.add_argument("--port", type=int, default=30000)
    parser.add_argument("--backend", type=str, default="srt")
    parser.add_argument("--device", type=str, default="auto")
    parser.add_argument("--result-file", type=str, default="result.jsonl")
    parser.add_argument("--raw-result-file", type=str)
    return parser.parse_args()


def select_sglang_backend(args: Namespace) -> RuntimeEndpoint | OpenAI:
    """A server for "srt..." ("srt-no-parallel" joins forks by their text, as we always do), OpenAI
    for "gpt-...". ValueError for anything else."""
    if args.backend.startswith("srt"):
        if args.backend == "srt-no-parallel":
            global_config.enable_parallel_encoding = False
        host = args.host if "://" in args.host else f"http://{args.host}"
        return RuntimeEndpoint(f"{host}:{args.port}")
    if args.backend.startswith("gpt-"):
        return OpenAI(args.backend)
    raise ValueError(f"backend: {args.backend!r} is neither srt... nor gpt-...")
