"""What a program's reader meets when a step of the program failed.

Owns: ProgramError and the record that it is made from. Knows nothing of how steps run.
"""

from dataclasses import dataclass

from ..runtime.errors import SapwoodError

_TAIL_CHARS = 80


class ProgramError(SapwoodError):
    """A step of a program failed; `__cause__` is the original error.

    `program`: the function's name; `location`: "file:line" of the step; `variable`: the name it
    was to fill; `prompt_tail`: the end of the text before it; `request_id`: the engine's name for
    it. Each is None where it does not apply.
    """

    def __init__(
        self,
        message: str,
        *,
        program: str,
        variable: str | None = None,
        location: str | None = None,
        prompt_tail: str | None = None,
        request_id: str | None = None,
    ) -> None:
        super().__init__(message)
        self.program = program
        self.variable = variable
        self.location = location
        self.prompt_tail = prompt_tail
        self.request_id = request_id


class ProgramTimeout(ProgramError, TimeoutError):
    """A step took longer than its gen's `timeout`, or than the `timeout` of the whole run."""


@dataclass(frozen=True)
class Failure:
    """Why a branch of a program stopped. Every access raises an error of its own made from this,

    so that one reader's traceback never grows into another's.
    """

    cause: BaseException
    program: str
    variable: str | None = None
    location: str | None = None
    prompt_tail: str | None = None
    request_id: str | None = None

    def error(self) -> ProgramError:
        where = [f"program {self.program!r}"]
        if self.location is not None:
            where.append(self.location)
        if self.variable is not None:
            where.append(f"variable {self.variable!r}")
        message = f"{', '.join(where)}: {type(self.cause).__name__}: {self.cause}"
        if self.prompt_tail:
            message += f" (the text before it ended with {self.prompt_tail!r})"
        kind = ProgramTimeout if isinstance(self.cause, TimeoutError) else ProgramError
        error = kind(
            message,
            program=self.program,
            variable=self.variable,
            location=self.location,
            prompt_tail=self.prompt_tail,
            request_id=self.request_id,
        )
        error.__cause__ = self.cause
        return error


def tail_of(text: str) -> str:
    """The end of a prompt, as much of it as an error message shows."""
    return text if len(text) <= _TAIL_CHARS else "…" + text[-_TAIL_CHARS:]
