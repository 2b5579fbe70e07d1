"""What is true of a constraint whatever the model: whether it can be met, and what its texts hold.

Owns: the questions that a check of a program asks of its constraints before it runs. Knows no
vocabulary; every answer is bounded in time and says so where the bound was too small.
"""

from collections import deque
from dataclasses import dataclass
from typing import Final, Literal

from ..constrained import CompileLimits, GrammarError, LimitExceeded
from ..constrained.lower import lower
from ..constrained.pushdown.machine import DEAD, Machine
from .protocol import Constraint

_SECONDS: Final = 2.0  # as long as an engine tries
_MOST_CONFIGURATIONS: Final = 4_000
_LONGEST: Final = 4_096  # bytes of a text that is made


@dataclass(frozen=True)
class ConstraintFault:
    """Why a constraint cannot be used. "costly": it passes the limits of time or states."""

    kind: Literal["invalid", "costly"]
    message: str


@dataclass(frozen=True)
class ConstraintFacts:
    """fault: None where an engine would take it; then there is a machine."""

    fault: ConstraintFault | None
    machine: Machine | None = None

    def stops_at(self, stop: str) -> bool | None:
        """Whether an output can end at this stop text: after some accepted text it may follow.
        None: not found out within the bounds."""
        machine, data = self.machine, stop.encode()
        if machine is None:
            return None
        seen, waiting = {machine.start}, deque([machine.start])
        try:
            while waiting:
                configuration = waiting.popleft()
                if machine.accepting(configuration) and _may_follow(machine, configuration, data):
                    return True
                if len(seen) > _MOST_CONFIGURATIONS:
                    return None
                for byte in range(256):
                    after = machine.step(configuration, byte)
                    if after != DEAD and after not in seen:
                        seen.add(after)
                        waiting.append(after)
        except LimitExceeded:
            return None
        return False

    def shortest_text(self) -> str | None:
        """An accepted text of the fewest bytes; None where it is too long or there is none."""
        machine = self.machine
        if machine is None:
            return None
        text = bytearray()
        configuration = machine.start
        while not machine.accepting(configuration):
            if len(text) > _LONGEST:
                return None
            left = machine.shortest(configuration)
            steps = ((byte, machine.step(configuration, byte)) for byte in _PREFERRED)
            byte, configuration = next(
                (byte, after)
                for byte, after in steps
                if after != DEAD and machine.shortest(after) == left - 1
            )
            text.append(byte)
        return text.decode("utf-8", "replace")


# Letters before digits before signs before what cannot be shown.
_PREFERRED: Final = sorted(
    range(256), key=lambda byte: (not chr(byte).isalpha() or byte > 127, not 32 < byte < 127, byte)
)


def constraint_facts(constraint: Constraint, seconds: float = _SECONDS) -> ConstraintFacts:
    try:
        program = lower(constraint, CompileLimits(seconds=seconds))
        machine = Machine(program, seconds)
    except LimitExceeded as error:
        return ConstraintFacts(ConstraintFault("costly", str(error)))
    except GrammarError as error:
        return ConstraintFacts(ConstraintFault("invalid", str(error)))
    if machine.start == DEAD:
        return ConstraintFacts(ConstraintFault("invalid", "it accepts no text at all"))
    return ConstraintFacts(None, machine)


def _may_follow(machine: Machine, configuration: int, data: bytes) -> bool:
    for byte in data:
        configuration = machine.step(configuration, byte)
        if configuration == DEAD:
            return False
    return True
