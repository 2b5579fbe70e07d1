"""The peers: which there are, how each is started, and which of its options matter here.

Owns: command lines and server dialects. Knows no process and no workload's content.
"""

import os
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from driver import Dialect
from models import ModelFiles

WORKERS = Path(__file__).parent / "workers"
SLOTS = 32  # as many requests at once as the widest workload that is timed by its rate
LONGEST = 2304  # tokens of one request, prompt and output, with room to spare
KV_GIB = 3  # of vLLM, whose own choice is most of the machine; ours takes at most as much
CORE = frozenset(("single", "streams-8", "streams-32", "shared-prefix", "chats"))
IN_PROCESS = frozenset(("single", "first-token", "prefill-1024", "prefill-2048"))


@dataclass(frozen=True)
class Server:
    """A peer over HTTP. `command` takes the port, `version` prints what it is. `only`: the
    workloads that it gets; empty: all."""

    name: str
    command: Callable[[int], list[str]]
    health: str
    dialect: Dialect
    version: list[str]
    env: Mapping[str, str] = field(default_factory=dict)
    only: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Worker:
    """A peer in process: a worker of ours under the peer's interpreter."""

    name: str
    command: list[str]
    version: list[str]
    only: frozenset[str] = frozenset()


Peer = Server | Worker


@dataclass(frozen=True)
class Places:
    """Where the peers are installed; None: not looked for."""

    transformers_python: str
    llama_python: str | None
    llama_server: str | None
    vllm_python: str | None


# What llama-cpp-python's server has for ignore_eos: SmolLM2's ends of text are out of reach.
NO_END = {"logit_bias": {"0": -100.0, "2": -100.0}}

SAPWOOD = Dialect({"ignore_eos": True}, regex=lambda work: {"regex": work.regex})
VLLM = Dialect(
    {"ignore_eos": True}, regex=lambda work: {"structured_outputs": {"regex": work.regex}}
)
LLAMA_SERVER = Dialect(
    {"ignore_eos": True},
    regex=lambda work: {"grammar": work.gbnf},
    counts_samples=False,
)
LLAMA_CPP_PYTHON = Dialect(
    NO_END,
    regex=lambda work: {"grammar": work.gbnf},
    schema=lambda schema: {"response_format": {"type": "json_object", "schema": schema}},
    offers_n=False,
)


def ours(dtypes: list[str], max_drafts: int | None, threads: int) -> list[Peer]:
    """Our server and, beside the other libraries, our engine in process. `max_drafts`: of each;
    None: as it comes."""

    version = versions(sys.executable, "sapwood", "torch")
    drafts = [] if max_drafts is None else ["--max-drafts", str(max_drafts)]

    def server(dtype: str) -> Server:
        options = ["--dtype", dtype, "--threads", str(threads), *drafts]
        return Server(
            f"sapwood-{dtype}",
            lambda port: [sys.executable, "-m", "sapwood", "serve", "--port", str(port), *options],
            "/health",
            SAPWOOD,
            version,
        )

    def worker(dtype: str) -> Worker:
        script = str(WORKERS / "sapwood_worker.py")
        command = [sys.executable, script, "--dtype", dtype, "--threads", str(threads), *drafts]
        return Worker(f"sapwood-{dtype}-in-process", command, version, IN_PROCESS)

    return [*map(server, dtypes), *map(worker, dtypes)]


def others(places: Places, files: ModelFiles, threads: int) -> tuple[list[Peer], dict[str, str]]:
    """The peers that are there, and by name why others are not."""
    peers: list[Peer] = [transformers(places.transformers_python, files, threads)]
    absent = {}
    ggufs = {"bf16": files.bf16_gguf, "q4_1": files.stored_gguf}
    server = places.llama_server or shutil.which("llama-server")
    if server:
        peers += [llama_server(server, kind, path, threads) for kind, path in ggufs.items()]
        peers.append(llama_server(server, "bf16", files.bf16_gguf, threads, defaults=True))
    else:
        absent["llama-server"] = "no --llama-server, and none on the PATH"
    if places.llama_python:
        if not server:
            peers += [
                llama_python_server(places.llama_python, kind, path, threads)
                for kind, path in ggufs.items()
            ]
        peers += [
            llama_in_process(places.llama_python, kind, path, threads)
            for kind, path in ggufs.items()
        ]
    else:
        absent["llama-cpp-python"] = "no --llama-python"
    if places.vllm_python:
        peers.append(vllm(places.vllm_python, files, threads))
    else:
        absent["vllm"] = "no --vllm-python"
    return peers, absent


def transformers(python: str, files: ModelFiles, threads: int) -> Peer:
    script = str(WORKERS / "transformers_worker.py")
    command = [python, script, str(files.hf_folder), str(threads)]
    return Worker("transformers-bf16", command, versions(python, "transformers", "torch"))


def llama_server(
    program: str, kind: str, model: Path, threads: int, *, defaults: bool = False
) -> Peer:
    """llama.cpp's own server: with a slot for every stream, or with its own number of slots."""
    slots = [] if defaults else ["-np", str(SLOTS), "-c", str(SLOTS * LONGEST)]
    options = ["-t", str(threads), "-tb", str(threads), "--offline", *slots]
    return Server(
        f"llama-server-{kind}" + ("-defaults" if defaults else ""),
        lambda port: [program, "-m", str(model), "--port", str(port), *options],
        "/health",
        LLAMA_SERVER,
        [program, "--version"],
        only=CORE if defaults else frozenset(),
    )


def llama_python_server(python: str, kind: str, model: Path, threads: int) -> Peer:
    """llama-cpp-python's server, where llama.cpp's own is not: it answers one request at a time."""
    options = ["--n_threads", str(threads), "--n_threads_batch", str(threads)]
    context = ["--n_ctx", str(2 * LONGEST)]
    return Server(
        f"llama-cpp-python-{kind}",
        lambda port: [
            *(python, "-m", "llama_cpp.server", "--model", str(model), "--port", str(port)),
            *options,
            *context,
        ],
        "/v1/models",
        LLAMA_CPP_PYTHON,
        versions(python, "llama-cpp-python"),
    )


def llama_in_process(python: str, kind: str, model: Path, threads: int) -> Peer:
    command = [python, str(WORKERS / "llama_worker.py"), str(model), str(threads)]
    version = versions(python, "llama-cpp-python")
    return Worker(f"llama-{kind}-in-process", command, version, IN_PROCESS)


def vllm(python: str, files: ModelFiles, threads: int) -> Peer:
    """vLLM's CPU build. Its own thread binding keeps a core free for its scheduler, which on two
    cores would leave one to compute: it gets all of them instead."""
    env = {
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "OMP_NUM_THREADS": str(threads),
        "VLLM_CPU_KVCACHE_SPACE": str(KV_GIB),
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1",
        # Its compiler workers and the command itself are found beside the interpreter.
        "PATH": f"{Path(python).parent}{os.pathsep}{os.environ.get('PATH', '')}",
    }
    options = ["--dtype", "bfloat16", "--max-model-len", str(2 * LONGEST)]
    return Server(
        "vllm-bf16",
        lambda port: [
            *(python, "-m", "vllm.entrypoints.openai.api_server"),
            *("--model", str(files.hf_folder), "--host", "127.0.0.1", "--port", str(port)),
            *options,
        ],
        "/health",
        VLLM,
        versions(python, "vllm-cpu", "torch"),
        env,
    )


def versions(python: str, *packages: str) -> list[str]:
    """A command that prints the versions of `packages`."""
    names = ", ".join(f"'{name} ' + version('{name}')" for name in packages)
    return [python, "-c", f"from importlib.metadata import version; print({names}, sep=', ')"]
