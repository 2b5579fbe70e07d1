"""How a command gives up: one clear line, or the user's own traceback, and an exit status."""

import difflib
import sys
import traceback
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from ...runtime.errors import SapwoodError


class CommandError(Exception):
    """Ends the command with this line on stderr. `status`: 1, the command failed; 2, it was called
    wrongly."""

    def __init__(self, message: str, status: int = 1) -> None:
        super().__init__(message)
        self.status = status


class Parser(ArgumentParser):
    """Reads a command's words. What it cannot read ends the command, after the command's usage and
    with the nearest option there is."""

    hint = ""  # what to say of an option that is like none

    def __init__(self, **settings: Any) -> None:
        super().__init__(allow_abbrev=False, **settings)

    def parse_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: Namespace | None = None
    ) -> Namespace:
        known, unknown = self.parse_known_args(args, namespace)
        if unknown:
            self.error(self._unknown(unknown[0]))
        return known

    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        command = self.prog.removeprefix("sapwood").lstrip()
        raise CommandError(f"{command}: {message}" if command else message, 2)

    def _unknown(self, word: str) -> str:
        if not word.startswith("-"):
            return f"unexpected argument {word!r}"
        option = word.partition("=")[0]
        known = [name for name in self._option_string_actions if "_" not in name]
        near = difflib.get_close_matches(option.replace("_", "-"), known, n=1)
        hint = f"did you mean {near[0]}?" if near else self.hint
        return f"there is no option {option}" + (f": {hint}" if hint else "")


def users_traceback(error: BaseException, file: Path) -> str | None:
    """The traceback from the user's `file` on, without our frames above it; None where the error
    did not pass through that file. A refusal of ours ends in that file too."""
    told = traceback.TracebackException.from_exception(error)
    places = [at for at, frame in enumerate(told.stack) if frame.filename == str(file)]
    if places:
        end = places[-1] + 1 if isinstance(error, SapwoodError) else len(told.stack)
        told.stack = traceback.StackSummary.from_list(told.stack[places[0] : end])
    elif isinstance(error, SyntaxError) and error.filename == str(file):
        told.stack.clear()
    else:
        return None
    return "".join(told.format()).rstrip()


def with_users_traceback(work: Callable[[], Any], file: Path, aside: tuple[type, ...] = ()) -> Any:
    """The result of `work`, which runs code of the user's `file`. An exception from there ends the
    command with the user's traceback; those of the classes in `aside` pass as they are."""
    try:
        return work()
    except Exception as error:
        told = None if isinstance(error, aside) else users_traceback(error, file)
        if told is None:
            raise
        raise CommandError(f"{file} failed:\n{told}") from None
