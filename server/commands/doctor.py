"""`sapwood doctor`: what this machine is, which kernels will run, how memory is split, what is
missing."""

import json
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from typing import Any

from .diagnosis import diagnose
from .engine_options import add_engine_options, engine_config


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="as JSON, for other programs")
    add_engine_options(parser)


def run(args: Namespace) -> int:
    """0 where everything needed is there, 1 where something needed is missing."""
    facts = diagnose(engine_config(args))
    if args.json:
        print(json.dumps(facts, indent=2))
    else:
        print("\n".join(lines(facts)))
    return 1 if any(one["needed"] for one in facts["missing"]) else 0


def lines(facts: dict[str, Any]) -> Iterator[str]:
    machine, software, memory = facts["machine"], facts["software"], facts["memory"]
    yield f"machine    {machine['system']}, {machine['processor']}"
    yield f"           {machine['cores']} cores usable, {gigabytes(machine['memory'])} memory, " + (
        f"{gigabytes(machine['memory_available'])} of it available"
    )
    found = ", ".join(name for name, there in machine["flags"].items() if there) or "none"
    yield f"           vector instructions that matter here: {found}"
    yield f"python     {software['python']}, torch {software['torch'] or 'not installed'}" + (
        f", triton {software['triton']}" if software["triton"] else ""
    )
    yield f"kernels    {facts['kernels']['in_use']}"
    yield f"           {facts['kernels']['why']}"
    native = facts["native"]
    if native["available"]:
        yield f"           compiled at first use with {native['compiler']}"
        yield f"           into {native['cache_folder']}"
    if facts["gpu"]:
        yield f"gpu        {facts['gpu']}"
    yield f"model      {facts['model']['name']}: {facts['model']['state']}"
    if memory:
        yield from _memory_lines(memory)
    for one in facts["missing"]:
        yield f"{'MISSING' if one['needed'] else 'optional'}    {one['what']}: {one['how']}"
    if not facts["missing"]:
        yield "nothing is missing"


def _memory_lines(memory: dict[str, Any]) -> Iterator[str]:
    yield (
        f"memory     weights {gigabytes(memory['weights'])} ({memory['dtype']}), "
        f"KV cache {gigabytes(memory['kv_cache'])}, remaining {gigabytes(memory['remaining'])}"
    )
    yield (
        f"           the cache holds {memory['cache_tokens']:,} tokens of "
        f"{memory['bytes_per_token']:,} bytes; one request has at most "
        f"{min(memory['context_length'], memory['cache_tokens']):,}"
    )
    if memory["remaining"] < 0:
        yield "           that is more than is available: lower --max-tokens-in-cache"


def gigabytes(size: int) -> str:
    return f"{size / 2**30:.2f} GiB" if abs(size) < 10 << 30 else f"{size / 2**30:.0f} GiB"
