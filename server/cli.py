"""The `sapwood` command: finds the command, runs it, turns errors into one line and an exit status.

Owns: the list of commands. What a command does, and what it must import for that, is its own
file's.
"""

import difflib
import importlib
import os
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from typing import Final, NoReturn, Protocol, cast

from ..runtime.errors import SapwoodError
from ..runtime.models.errors import ModelError
from .commands.failure import CommandError, Parser
from .version import VERSION

COMMANDS: Final = {
    "serve": "serve a model over HTTP (OpenAI's API and the native one)",
    "run": "run a program: sapwood run FILE.py:function --arg value",
    "lint": "check programs before they run: sapwood lint FILE.py",
    "chat": "talk to a model in the terminal",
    "replay": "repeat a recording with no model, or ask an engine again",
    "pull": "fetch a model's weights",
    "doctor": "what this machine can do, and what is missing",
}


class Command(Protocol):
    """A module in `commands/`."""

    def add_arguments(self, parser: Parser) -> None: ...

    def run(self, args: Namespace) -> int: ...


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit status. `argv` None: the process's own arguments."""
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        try:
            return _run(words)
        finally:
            if sys.stdout is not None:
                sys.stdout.flush()  # here, where a failure can still be told
    except CommandError as error:
        return _say(str(error), error.status)
    except (SapwoodError, ModelError) as error:
        return _say(str(error), 1)
    except BrokenPipeError:  # the reader of our output has left, as `| head` does
        _drop_output()
        return 1
    except OSError as error:
        _drop_output()
        named = f": {error.filename}" if error.filename else ""
        return _say((error.strerror or str(error)) + named, 1)
    except KeyboardInterrupt:
        return _say("interrupted", 130)


def _run(words: list[str]) -> int:
    name = words[0] if words else ""
    if not name.startswith("-") and name not in COMMANDS:
        _unknown(name)
    if name.startswith("-"):
        _overview().parse_args(words[:1])
        _unknown("")
    command, purpose = _command(name), COMMANDS[name]
    parser = Parser(prog=f"sapwood {name}", description=purpose[0].upper() + purpose[1:] + ".")
    command.add_arguments(parser)
    return command.run(parser.parse_args(words[1:]))


def _overview() -> ArgumentParser:
    """What stands before any command: --help and --version."""
    parser = Parser(prog="sapwood", description="Structured generation, fast.")
    parser.add_argument("--version", action="version", version=f"sapwood {VERSION}")
    commands = parser.add_subparsers(metavar="COMMAND")
    for name, purpose in COMMANDS.items():
        commands.add_parser(name, help=purpose)
    return parser


def _command(name: str) -> Command:
    module = importlib.import_module(f".commands.{name}", __package__)
    return cast(Command, module)


def _unknown(name: str) -> NoReturn:
    known = ", ".join(COMMANDS)
    if not name:
        raise CommandError(f"which command? One of {known} (sapwood --help says more)", 2)
    near = difflib.get_close_matches(name, COMMANDS, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"the commands are {known}"
    raise CommandError(f"there is no command {name!r}: {hint}", 2)


def _drop_output() -> None:
    """Nobody can read it: without this, what is still buffered would fail anew at the very end."""
    if sys.stdout is None:  # it was closed before we began
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


def _say(message: str, status: int) -> int:
    print(f"sapwood: {message}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
