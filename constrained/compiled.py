"""A constraint compiled for one vocabulary: immutable, shared by all requests that use it."""

from collections.abc import Sequence
from typing import Final

from .errors import GrammarError
from .jump_forward import forced_tokens
from .pushdown.collection import NEVER
from .pushdown.machine import DEAD
from .pushdown.program import Program
from .pushdown.token_machine import TokenMachine, token_machine
from .spec import Constraint
from .state import GrammarState
from .vocabulary import Vocabulary

_MOST_JUMPS: Final = 4096
_MANY_CONFIGURATIONS: Final = 50_000


class CompiledGrammar:
    """What the constraint allows; `start()` makes the state of one request.

    Nothing that it answers depends on earlier calls: what it has worked out is only kept for reuse.
    For any thread.
    """

    def __init__(
        self, spec: Constraint, program: Program, vocabulary: Vocabulary, seconds: float
    ) -> None:
        """seconds: how long it may take to set up; LimitExceeded where that is not enough."""
        self.spec: Final = spec
        self.vocabulary: Final = vocabulary
        self._program = program
        self._seconds = seconds
        self.machine: TokenMachine = token_machine(program, vocabulary, seconds)
        self._jumps: dict[tuple[int, int, tuple[int, ...]], list[int]] = {}
        if self.machine.start == DEAD:
            raise GrammarError("it accepts no text at all")
        self.shortest: Final = self.machine.needed(self.machine.start)
        """Fewest tokens that spell an accepted text of the fewest bytes, the end token not counted.
        (A longer text may be spelled with fewer; it is not looked for.)"""
        if self.shortest >= NEVER:
            raise GrammarError("no sequence of this vocabulary's tokens spells an accepted text")

    def start(self) -> GrammarState:
        # A machine grows with every text that it has not met. Its limit is there for one text; so
        # that all of them together never come to it, new ones begin on a new machine.
        if self.machine.num_configurations > _MANY_CONFIGURATIONS:
            self.machine = token_machine(self._program, self.vocabulary, self._seconds)
            self._jumps.clear()
        return GrammarState(self, self.machine)

    def matches(self, text: bytes) -> bool:
        """Whether `text` is a whole accepted output."""
        reached = self.machine.step(self.machine.start, text)
        return reached != DEAD and self.machine.accepting(reached)

    def forced_tokens(
        self, machine: TokenMachine, configuration: int, tail_ids: Sequence[int]
    ) -> list[int]:
        """See `jump_forward`. machine: of the state that asks."""
        key = (id(machine), configuration, tuple(tail_ids[-16:]))
        if key not in self._jumps:
            if len(self._jumps) >= _MOST_JUMPS:
                self._jumps.clear()
            found = forced_tokens(machine, self.vocabulary, configuration, key[2])
            self._jumps[key] = found
            return list(found)
        return list(self._jumps[key])
