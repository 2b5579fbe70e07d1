"""`sapwood replay RUN.jsonl`: repeat recorded programs with no model, or ask an engine again.

Owns: the way from a recorded run to its program and arguments, and what is said of the outcome.
Runs whatever has the shape of a program, as `run` does.
"""

import inspect
from argparse import Namespace
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from types import ModuleType
from typing import Any

from ...lang.recording import answered_from
from ...runtime.errors import Diverged
from ...runtime.recording.recording import RecordedRun, Recording
from ...runtime.recording.rerun import rerun
from ...runtime.recording.runs import missing, source_digest
from .engine_options import add_engine_options, engine_config, launched
from .failure import CommandError, Parser
from .run import Program, load


def add_arguments(parser: Parser) -> None:
    parser.description = (
        "Repeat the programs of a recording (made by `with sapwood.record(...)`) with no model, "
        "their requests answered from the file; or with --rerun ask an engine each recorded "
        "request again. Exit status 1: something came out otherwise."
    )
    parser.add_argument("recording", metavar="RUN.jsonl", type=Path)
    parser.add_argument(
        "--rerun",
        action="store_true",
        help="ask an engine again, and report the first token that comes out otherwise",
    )
    add_engine_options(parser)


def run(args: Namespace) -> int:
    try:
        recording = Recording.read(args.recording)
    except OSError as error:
        raise CommandError(f"{args.recording}: {error.strerror}") from None
    if args.rerun:
        return _rerun(recording, args)
    chosen = _engine_options_in(args)
    if chosen:
        raise CommandError(f"{chosen[0]} is about an engine: it needs --rerun", 2)
    return _replay(recording)


def _engine_options_in(args: Namespace) -> list[str]:
    parser = Parser()
    add_engine_options(parser)
    defaults = vars(parser.parse_args([]))
    return [f"--{key.replace('_', '-')}" for key in defaults if getattr(args, key) != defaults[key]]


# --- with no model -----------------------------------------------------------------------------


def _replay(recording: Recording) -> int:
    runs = [run for run in recording.runs if not run.info.nested]
    differing = 0
    modules: dict[str, ModuleType] = {}
    with answered_from(recording) as client:
        for recorded in runs:
            program = _program(recorded, modules)
            _note_change(recorded, program)
            outcome, same = _repeat(program, recorded)
            differing += not same
            print(f"run {recorded.number} {recorded.info.program}: {outcome}", flush=True)
        unused = client.unused()
    for line in unused:
        print(line)
    asked = sum(len(run.asks) for run in recording.runs)
    if differing or unused:
        print(f"{len(runs)} runs, {asked} requests: not as recorded")
        return 1
    print(f"{len(runs)} runs, {asked} requests: all as recorded")
    return 0


def _repeat(program: Program, recorded: RecordedRun) -> tuple[str, bool]:
    """(what to say, whether everything was as recorded)."""
    given = _arguments(program, recorded)
    try:
        state = program.run(*given.args[1:], **given.kwargs, **recorded.info.options)
        error = state.error()
    except Exception as raised:  # the program's own: recorded programs may well fail
        error = raised
    cause = next((one for one in _chain(error) if isinstance(one, Diverged)), None)
    if cause is not None:
        return str(error), False
    if error is not None:
        return f"as recorded, up to {type(error).__name__}: {error}", True
    return "as recorded", True


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


def _program(recorded: RecordedRun, modules: dict[str, ModuleType]) -> Program:
    info = recorded.info
    elsewhere = "repeat it in Python, within `with sapwood.replay(...)`"
    if info.file is None or "<locals>" in info.program:
        raise CommandError(f"program {info.program!r} cannot be found from a file: {elsewhere}")
    if info.file not in modules:
        if not Path(info.file).is_file():
            raise CommandError(f"{info.file}, which holds {info.program!r}, is no longer there")
        modules[info.file] = load(Path(info.file))
    found: Any = modules[info.file]
    for name in info.program.split("."):
        found = getattr(found, name, None)
    if not (hasattr(found, "run") and hasattr(found, "func")):
        raise CommandError(f"{info.file} no longer holds a program {info.program!r}")
    program: Program = found
    return program


def _note_change(recorded: RecordedRun, program: Program) -> None:
    if recorded.info.source != source_digest(program.func):
        print(f"note: {recorded.info.program} was changed since it was recorded")


def _arguments(program: Program, recorded: RecordedRun) -> inspect.BoundArguments:
    info = recorded.info
    for name, value in {**info.arguments, **info.options}.items():
        if (lost := missing(value)) is not None:
            raise CommandError(
                f"run {recorded.number} of {info.program!r} was given {lost} in {name}, "
                "which a recording cannot hold: repeat it in Python, within "
                "`with sapwood.replay(...)`"
            )
    signature = inspect.signature(program.func)
    unknown = [name for name in info.arguments if name not in signature.parameters]
    if unknown:
        raise CommandError(f"{info.program} no longer has a parameter {unknown[0]!r}")
    first = next(iter(signature.parameters))
    return inspect.BoundArguments(signature, OrderedDict({first: None, **info.arguments}))


# --- with an engine ----------------------------------------------------------------------------


def _rerun(recording: Recording, args: Namespace) -> int:
    compared = differing = 0
    with closing(launched(engine_config(args))) as client:
        now = client.info()
        for engine in {run.engine.model: run.engine for run in recording.runs}.values():
            if (engine.model, engine.dtype) != (now.model, now.dtype):
                print(
                    f"note: recorded with {engine.model} in {engine.dtype}, asked again of "
                    f"{now.model} in {now.dtype}"
                )
        for one in rerun(recording, client):
            compared += 1
            if one.difference is not None:
                differing += 1
                print(f"run {one.run} {one.program}, request {one.number}: {one.difference}")
    print(f"{compared} requests asked again: {differing or 'none'} came out otherwise")
    return 1 if differing else 0
