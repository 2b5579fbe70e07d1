"""`sapwood run FILE.py:function --arg value`: run a program, its text growing as it comes.

Owns: finding the program in the file, and the way from words to its arguments. Runs whatever it
finds that has the shape of a program (`arg_names`, `run`); knows no nodes.
"""

import importlib.util
import inspect
import json
import sys
from argparse import REMAINDER, SUPPRESS, ArgumentParser, Namespace, RawDescriptionHelpFormatter
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol, cast

from ...runtime.errors import InvalidRequest, SapwoodError
from ...runtime.models.errors import ModelError
from .engine_options import SAMPLING, add_engine_options, engine_config, launched, sampling_params
from .failure import CommandError, Parser, with_users_traceback


class Program(Protocol):
    """What `@function` makes."""

    func: Any
    arg_names: list[str]

    def run(self, *args: Any, **kwargs: Any) -> Any: ...


def add_arguments(parser: Parser) -> None:
    parser.hint = "options come after FILE.py:function"
    parser.usage = "sapwood run FILE.py:function [--arg value ...] [options]"
    parser.formatter_class = RawDescriptionHelpFormatter
    parser.add_argument("target", metavar="FILE.py:function")
    rest = parser.add_argument("words", nargs=REMAINDER, help=SUPPRESS)
    rest.required = False  # a message about what is missing must not name it
    options = ArgumentParser(add_help=False, usage=SUPPRESS)
    _add_options(options)
    parser.epilog = (
        "Values are JSON where they parse as JSON, else text.\n\n" + options.format_help().strip()
    )


def run(args: Namespace) -> int:
    program, target = found(args.target)
    words = _Words(program, target)
    arguments, options = words.parse(args.words)
    sampling_params(options)  # refuses what is out of range before anything is printed
    with ExitStack() as stack:
        settings: dict[str, Any] = {
            "max_new_tokens" if key == "max_tokens" else key: getattr(options, key)
            for key in SAMPLING
            if getattr(options, key, None) is not None
        }
        if words.engine_is_chosen(options):
            client = launched(engine_config(options))
            settings["backend"] = stack.enter_context(closing(client))
        work = partial(_print_json if options.json else _print_live, program, arguments | settings)
        # A refusal says by itself what is wrong; any other exception is about the user's code.
        aside = (SapwoodError, ModelError)
        with_users_traceback(work, Path(inspect.getfile(program.func)), aside)
    return 0


# --- the program -------------------------------------------------------------------------------


def found(target: str) -> tuple[Program, str]:
    """The program that `FILE.py:function` names, and its full name of that form."""
    file, _, name = target.rpartition(":") if ":" in target else (target, "", "")
    path = Path(file)
    if not path.is_file():
        raise CommandError(f"{file}: no such file")
    module = load(path)
    programs = {
        key: cast(Program, value) for key, value in vars(module).items() if _is_program(value)
    }
    if not name and len(programs) == 1:
        name = next(iter(programs))
    if name in programs:
        return programs[name], f"{file}:{name}"
    listed = ", ".join(programs) or "none"
    if not name:
        raise CommandError(f"{file}: name the program, as in {file}:NAME; it holds {listed}")
    what = "is no program" if hasattr(module, name) else "is not there"
    raise CommandError(f"{file}: {name} {what}; programs in it: {listed}")


def _is_program(value: object) -> bool:
    return hasattr(value, "arg_names") and hasattr(value, "func") and hasattr(value, "run")


def load(path: Path) -> ModuleType:
    """Import the file as Python would from its own folder; its errors are its own, and told as
    such."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise CommandError(f"{path}: not a Python file")
    sys.path.insert(0, str(path.parent.resolve()))
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    with_users_traceback(partial(spec.loader.exec_module, module), Path(module.__file__ or path))
    return module


# --- its arguments -----------------------------------------------------------------------------


class _Words:
    """The command line after the target. The program's own parameters win over our options of the
    same name, which it then does without."""

    def __init__(self, program: Program, target: str) -> None:
        self._names = program.arg_names
        parameters = inspect.signature(program.func).parameters
        self._required = [
            one for one in program.arg_names if parameters[one].default is inspect.Parameter.empty
        ]
        self._parser = Parser(
            prog=f"sapwood run {target}",
            description=inspect.getdoc(program.func),
            usage=self._usage(target),
            conflict_handler="resolve",
            argument_default=SUPPRESS,
        )
        _add_options(self._parser)
        group = self._parser.add_argument_group("the program's own")
        for one in self._names:
            flags = dict.fromkeys((_option(one), f"--{one}"))
            group.add_argument(*flags, dest=f"program {one}", type=_value, metavar="VALUE")

    def parse(self, words: list[str]) -> tuple[dict[str, Any], Namespace]:
        """(the program's arguments, our options)."""
        given = vars(self._parser.parse_args(words))
        own = {one: given[f"program {one}"] for one in self._names if f"program {one}" in given}
        missing = [one for one in self._required if one not in own]
        if missing:
            self._parser.error(f"missing {', '.join(map(_option, missing))}")
        return own, Namespace(**(_defaults() | given))

    def engine_is_chosen(self, options: Namespace) -> bool:
        """Without a choice the program runs on its own back end, or on the default one."""
        return any(getattr(options, key) != value for key, value in _engine_defaults().items())

    def _usage(self, target: str) -> str:
        shown = [
            f"{_option(one)} VALUE" if one in self._required else f"[{_option(one)} VALUE]"
            for one in self._names
        ]
        return " ".join(["sapwood run", target, *shown, "[options]"])


def _option(parameter: str) -> str:
    return f"--{parameter.replace('_', '-')}"


def _add_options(parser: ArgumentParser) -> None:
    group = parser.add_argument_group("options")
    group.add_argument("--json", action="store_true", help="print text and variables as JSON")
    group.add_argument("--seed", type=int, help="the same output each time")
    group.add_argument("--temperature", type=float, help="default of every gen; 0: greedy")
    group.add_argument("--max-tokens", type=int, help="default of every gen")
    add_engine_options(parser)


def _defaults() -> dict[str, Any]:
    parser = ArgumentParser()
    _add_options(parser)
    return vars(parser.parse_args([]))


def _engine_defaults() -> dict[str, Any]:
    parser = ArgumentParser()
    add_engine_options(parser)
    return vars(parser.parse_args([]))


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


# --- its output --------------------------------------------------------------------------------


def _print_live(program: Program, arguments: dict[str, Any]) -> None:
    state = program.run(**arguments, stream=True)
    try:
        for piece in state.text_iter():
            print(piece, end="", flush=True)
    finally:
        print(flush=True)
    error = state.error()
    if error is not None:
        raise error


def _print_json(program: Program, arguments: dict[str, Any]) -> None:
    state = program.run(**arguments)
    error = state.error()
    if error is not None:
        raise error
    variables = {name: state[name] for name in state.variables}
    try:
        text = json.dumps({"text": state.text(), "variables": variables}, ensure_ascii=False)
    except TypeError as problem:
        raise InvalidRequest(f"a variable is no JSON value: {problem}") from None
    print(text)
