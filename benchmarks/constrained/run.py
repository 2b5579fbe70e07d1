"""Our constraints next to llguidance, XGrammar and outlines-core: same schemas, same documents.

    python benchmarks/constrained/run.py --peers-python PATH [--engines sapwood,llguidance]

Every engine runs in a process of its own, one thread, one after the other, and takes every schema
of this folder: compile, first mask, and then each document token by token. An engine that is not
installed is named and left out; how to install them: benchmarks/README.md.

Owns: the order of things and the files of results.
"""

import argparse
import json
import os
import platform
import signal
import sys
import tempfile
from datetime import date
from pathlib import Path
from types import FrameType
from typing import Any

HERE = Path(__file__).parent
sys.path.append(str(HERE.parent / "peers"))  # processes.py

from adapters import ENGINES, OURS, Tokens  # noqa: E402
from corpus import KEYWORDS, Case, load, schema_files  # noqa: E402
from engine_process import EngineAbsent, EngineProcess  # noqa: E402
from summary import Judged, Run, figures, markdown, wrong  # noqa: E402

from sapwood.runtime.models.source import resolve_model  # noqa: E402
from sapwood.runtime.tokenizer import load_tokenizer  # noqa: E402


def main() -> int:
    options = arguments()
    signal.signal(signal.SIGTERM, _interrupt)  # so that the workers are ended too
    cases = load(options.files or None)[: options.limit]
    runs: dict[str, Run] = {}
    absent: dict[str, str] = {}
    interrupted = False
    with tempfile.TemporaryDirectory(prefix="sapwood-constrained-") as folder:
        files = load_tokenizer(resolve_model(None))
        Tokens.write(Path(folder), files.tokenizer, files.vocabulary.token_bytes, files.eos_ids)
        try:
            for name in options.engines:
                measure(name, command(name, folder, options), cases, options, runs, absent)
        except KeyboardInterrupt:
            interrupted = True
            print("interrupted: what was measured so far follows", file=sys.stderr)
    tables = markdown(facts(options, len(cases)), runs, absent, options.compile_seconds)
    print(tables)
    for name in options.list_wrong:
        if name in runs:
            print(f"\nwhat {name} is not right about:\n\n{wrong(runs[name])}")
    if options.output is not None:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        body = to_json(facts(options, len(cases)), runs, absent, options.compile_seconds)
        options.output.with_suffix(".json").write_text(json.dumps(body, indent=1) + "\n")
        options.output.with_suffix(".md").write_text(tables)
    return 130 if interrupted else 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--engines", type=chosen(ENGINES), default=list(ENGINES))
    parser.add_argument(
        "--files",
        type=chosen([*schema_files(), KEYWORDS]),
        default=[],
        help="comma-separated stems (all)",
    )
    parser.add_argument("--limit", type=int, help="the first so many cases")
    parser.add_argument(
        "--peers-python",
        metavar="PATH",
        default=os.environ.get("GRAMMAR_PEERS_PYTHON", sys.executable),
        help="has llguidance, xgrammar and outlines-core (GRAMMAR_PEERS_PYTHON)",
    )
    parser.add_argument("--compile-seconds", type=float, default=20.0, help="limit (%(default)s)")
    parser.add_argument("--memory-gib", type=float, default=12.0, help="of a process")
    parser.add_argument("--list-wrong", type=chosen(ENGINES), default=[], metavar="ENGINE")
    parser.add_argument("--output", type=Path, help="where to write, without suffix")
    return parser.parse_args()


def chosen(known: Any) -> Any:
    def parse(text: str) -> list[str]:
        names = [name for name in text.split(",") if name]
        for name in names:
            if name not in known:
                raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(known)}")
        return names

    return parse


def command(name: str, folder: str, options: argparse.Namespace) -> list[str]:
    python = sys.executable if name in OURS else options.peers_python
    return [python, str(HERE / "worker.py"), name, folder, str(options.memory_gib)]


def measure(
    name: str,
    worker: list[str],
    cases: list[Case],
    options: argparse.Namespace,
    runs: dict[str, Run],
    absent: dict[str, str],
) -> None:
    """One engine's turn; what it did is in `runs` as soon as it did it."""
    try:
        with EngineProcess(worker, compile_seconds=options.compile_seconds) as engine:
            run = runs[name] = Run(engine.version)
            for number, case in enumerate(cases, start=1):
                run.judged.append(Judged.of(case, engine.observe(case)))
                if number % 50 == 0 or number == len(cases):
                    right = sum(each.verdict.right for each in run.judged)
                    told = f"{name}: {number} of {len(cases)}, {right} right"
                    print(told, file=sys.stderr, flush=True)
    except EngineAbsent as why:
        absent[name] = str(why)
        print(f"{name} is left out: {why}", file=sys.stderr, flush=True)


def facts(options: argparse.Namespace, num_cases: int) -> dict[str, str]:
    return {
        "date": date.today().isoformat(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "python": platform.python_version(),
        "tokenizer": "SmolLM2-135M-Instruct",
        "cases": str(num_cases),
        "limit for compiling": f"{options.compile_seconds:.0f} s",
    }


def to_json(
    told: dict[str, str], runs: dict[str, Run], absent: dict[str, str], limit_seconds: float
) -> dict[str, Any]:
    """Figures and verdicts; not the time of every single mask."""
    engines = {
        name: {
            "version": run.version,
            "schemas": figures([j for j in run.judged if j.case.file != KEYWORDS], limit_seconds),
            "keywords": figures([j for j in run.judged if j.case.file == KEYWORDS], limit_seconds),
            "cases": [_case_json(each) for each in run.judged],
        }
        for name, run in runs.items()
    }
    return {"facts": told, "absent": absent, "engines": engines}


def _case_json(judged: Judged) -> dict[str, Any]:
    verdict, seen = judged.verdict, judged.seen
    return {
        "file": judged.case.file,
        "name": judged.case.name,
        "right": verdict.right,
        "accepts_invalid": verdict.accepts_invalid,
        "problems": list(verdict.problems),
        "refused": verdict.refused,
        "first_mask_seconds": seen.seconds,
        "slowest_mask_ns": max(seen.walked.get("cold_ns", ()), default=None),
        "jumped": seen.jumped,
    }


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
