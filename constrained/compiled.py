"""A constraint compiled for one vocabulary: immutable, shared by all requests that use it."""

import weakref
from collections.abc import Callable, Sequence
from typing import Final

from .errors import GrammarError
from .jump_forward import forced_tokens
from .pushdown.collection import NEVER
from .pushdown.machine import DEAD
from .pushdown.program import Program
from .pushdown.token_machine import TokenMachine, token_machine
from .spec import Constraint
from .state import GrammarState, InUse
from .vocabulary import Vocabulary

_MOST_JUMPS: Final = 1024
_BYTES_OF_A_JUMP: Final = 1000
_MANY_BYTES: Final = 32 << 20

_Jumps = dict[tuple[int, tuple[int, ...]], list[int]]


class CompiledGrammar:
    """What the constraint allows; `start()` makes the state of one request.

    Nothing that it answers depends on earlier calls: what it has worked out is only kept for reuse,
    and is let go of by `renew`. For any thread.
    """

    def __init__(
        self,
        spec: Constraint,
        program: Program,
        vocabulary: Vocabulary,
        seconds: float,
        when_large: "Callable[[CompiledGrammar], None] | None" = None,
    ) -> None:
        """seconds: how long it may take to set up; LimitExceeded where that is not enough.
        when_large: told by `start` that it is time to `renew`; it must not take long itself."""
        self.spec: Final = spec
        self.vocabulary: Final = vocabulary
        self._program = program
        self._seconds = seconds
        self._when_large = when_large
        self.machine: TokenMachine = token_machine(program, vocabulary, seconds)
        self._jumps: weakref.WeakKeyDictionary[TokenMachine, _Jumps] = weakref.WeakKeyDictionary()
        self._in_use: weakref.ref[InUse] | None = None
        if self.machine.start == DEAD:
            raise GrammarError("it accepts no text at all")
        self.shortest: Final = self.machine.needed(self.machine.start)
        """Fewest tokens that spell an accepted text of the fewest bytes, the end token not counted.
        (A longer text may be spelled with fewer; it is not looked for.)"""
        if self.shortest >= NEVER:
            raise GrammarError("no sequence of this vocabulary's tokens spells an accepted text")

    @property
    def num_bytes(self) -> int:
        """About how much memory it takes by now, without machines that only states still hold."""
        jumps = sum(map(len, list(self._jumps.values())))
        return self._program.num_bytes + self.machine.num_bytes + _BYTES_OF_A_JUMP * jumps

    @property
    def is_in_use(self) -> bool:
        """Whether a state of it is alive."""
        return self._in_use is not None and self._in_use() is not None

    def start(self) -> GrammarState:
        # A machine grows with every text that it has not met. Its limit is there for one text; so
        # that all of them together never come to it, new ones begin on a new machine.
        if self._when_large is not None and self.machine.num_bytes > _MANY_BYTES:
            self._when_large(self)
        in_use = self._in_use() if self._in_use is not None else None
        if in_use is None:
            in_use = InUse()
            self._in_use = weakref.ref(in_use)
        return GrammarState(self, self.machine, in_use)

    def renew(self) -> None:
        """Let new states begin on a machine that has met no text; raises LimitExceeded where that
        cannot be made in time. Takes as long as setting up did."""
        if self.machine.num_bytes > _MANY_BYTES:
            self.machine = token_machine(self._program, self.vocabulary, self._seconds)

    def matches(self, text: bytes) -> bool:
        """Whether `text` is a whole accepted output."""
        machine = self.machine
        reached = machine.step(machine.start, text)
        return reached != DEAD and machine.accepting(reached)

    def forced_tokens(
        self, machine: TokenMachine, configuration: int, tail_ids: Sequence[int]
    ) -> list[int]:
        """See `jump_forward`. machine: of the state that asks."""
        jumps = self._jumps.get(machine)
        if jumps is None:
            jumps = self._jumps.setdefault(machine, {})
        key = (configuration, tuple(tail_ids[-16:]))
        if key not in jumps:
            if len(jumps) >= _MOST_JUMPS:
                jumps.clear()
            found = forced_tokens(machine, self.vocabulary, configuration, key[1])
            jumps[key] = found
            return list(found)
        return list(jumps[key])
