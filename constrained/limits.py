"""How much one compilation may cost; knows nothing of what is compiled."""

import time
from dataclasses import dataclass

from .errors import GrammarError, LimitExceeded


@dataclass(frozen=True)
class CompileLimits:
    """Bounds of one compilation.

    seconds: wall time, after which it is refused;
    states: states of the machine before it runs, which bounds its memory.
    """

    seconds: float = 2.0
    states: int = 400_000

    def __post_init__(self) -> None:
        for name in ("seconds", "states"):
            if not getattr(self, name) > 0:
                raise GrammarError(f"limit {name} must be positive, not {getattr(self, name)!r}")


class Meter:
    """Counts the states that one compilation makes, and raises LimitExceeded past a limit."""

    def __init__(self, limits: CompileLimits) -> None:
        self.limits = limits
        self.states = 0
        self._deadline = time.monotonic() + limits.seconds
        self._due = 0  # at so many states it looks again

    def add(self, states: int = 1) -> None:
        self.states += states
        if self.states >= self._due:
            self._check()

    def check_time(self) -> None:
        if time.monotonic() > self._deadline:
            raise LimitExceeded(f"it took longer than {self.limits.seconds:g} s")

    def _check(self) -> None:
        if self.states > self.limits.states:
            raise LimitExceeded(f"it needs more than {self.limits.states} states")
        self._due = min(self.states + 128, self.limits.states + 1)
        self.check_time()
