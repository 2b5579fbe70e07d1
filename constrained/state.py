"""Where one request stands in its grammar; small, mutable, owned by its scheduler."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from .errors import GrammarError, LimitExceeded
from .pushdown.collection import NEVER
from .pushdown.machine import DEAD
from .pushdown.native import NO_BUDGET, NativeTokenMachine, fill_rows, last_error

if TYPE_CHECKING:
    from .compiled import CompiledGrammar
    from .pushdown.token_machine import TokenMachine


class Masking(Protocol):
    """What limits the next token."""

    def fill_mask(self, row: NDArray[np.int32], budget: int | None = None) -> None:
        """See `GrammarState.fill_mask`."""


class InUse:
    """Held by the states of a grammar; that it is alive says that one of them is."""


class GrammarState:
    """The position of one output in a `CompiledGrammar`; written by `accept` and `rollback`."""

    __slots__ = (
        *("_ended", "_failure", "_fill", "_grammar", "_history", "_in_use", "_machine", "_row"),
    )

    def __init__(self, grammar: "CompiledGrammar", machine: "TokenMachine", in_use: InUse) -> None:
        self._in_use = in_use
        self._grammar = grammar
        self._machine = machine
        self._history = [machine.start]  # and the configuration after each accepted token
        self._ended = False
        self._failure: GrammarError | None = None  # why no row could be made
        # The row that was filled last, and what fills it: mostly it is the same one again.
        self._row: NDArray[np.int32] | None = None
        self._fill: Callable[[int, int | None], None]

    @property
    def grammar(self) -> "CompiledGrammar":
        return self._grammar

    @property
    def can_finish(self) -> bool:
        """Whether the output so far is accepted: an end token is allowed, stop strings apply."""
        return self._machine.accepting(self._history[-1])

    @property
    def is_finished(self) -> bool:
        """Whether an end token was taken, or nothing but the end is possible."""
        return self._ended or self._machine.is_end(self._history[-1])

    @property
    def shortest(self) -> int:
        """Fewest tokens that complete the output from here, the end token not counted; see
        `CompiledGrammar.shortest`."""
        return 0 if self._ended else self._machine.needed(self._history[-1])

    def fill_mask(self, row: NDArray[np.int32], budget: int | None = None) -> None:
        """Write the allowed tokens into `row`; does not change the state.

        row: int32 [num_words], the caller's, overwritten as a whole: bit t % 32 of word t // 32 is
        set if token t is allowed. End tokens are allowed if and only if the state accepts.
        budget: tokens that may still be produced, the next one included and the end token not
        counted. Only tokens are kept after which the output can be completed in `budget - 1` more;
        so none is left where `budget` is less than `shortest` (which `accept` within rows made with
        a budget, begun with at least `CompiledGrammar.shortest`, never leads to).
        """
        if row is not self._row:
            self._take(row)
        if self._ended or self._failure is not None:
            _allow_end(self, row)
            return
        try:
            self._fill(self._history[-1], budget)
        except LimitExceeded as error:
            _fail(self, error, row)

    def _take(self, row: NDArray[np.int32]) -> None:
        shape = (self._grammar.vocabulary.num_words,)
        if row.shape != shape or row.dtype != np.int32 or not row.flags.c_contiguous:
            raise GrammarError(
                f"a mask row is int32 [{shape[0]}] in one piece, not {row.dtype} {list(row.shape)}"
                f" with steps of {list(row.strides)} bytes"
            )
        self._row, self._fill = row, self._machine.filler(row)

    def fill_mask_beyond(
        self, before: bytes, row: NDArray[np.int32], budget: int | None = None
    ) -> None:
        """As `fill_mask`, where the next token also spells `before`, which is no output: the tokens
        that begin with it and go on with what is allowed. Never an end token."""
        row.fill(0)
        if self._ended or self._failure is not None:
            return
        try:
            self._machine.fill_beyond(self._history[-1], before, budget, row)
        except LimitExceeded as error:
            self._failure = error
            row.fill(0)

    def row_number(self, budget: int | None = None) -> int:
        """A number that only rows with the same tokens have, of the row that `fill_mask` would
        give; 0 where that is not known before it is filled."""
        if self._ended or self._failure is not None:
            return 0
        return self._machine.row_number(self._history[-1], budget)

    def accept_text(self, text: bytes) -> bool:
        """As `accept`, of the bytes that some token spells besides what `before` was."""
        if self._failure is not None:
            raise self._failure
        reached = DEAD if self._ended else self._machine.step(self._history[-1], text)
        if reached == DEAD or self._machine.needed(reached) >= NEVER:
            return False
        self._history.append(reached)
        return True

    def accept(self, token: int) -> bool:
        """Advance by one token; False, with the state unchanged, where it is not allowed.

        Raises LimitExceeded where the machine has grown past its limits, as soon as a row was
        wanted that could not be made.
        """
        if self._failure is not None:
            raise self._failure
        vocabulary = self._grammar.vocabulary
        if self._ended or not 0 <= token < vocabulary.size:
            return False
        here = self._history[-1]
        if token in vocabulary.eos_ids:
            if not self.can_finish:
                return False
            self._ended = True
            self._history.append(here)
            return True
        reached = self._machine.accept(here, token)
        if reached == DEAD:
            return False
        self._history.append(reached)
        return True

    def rollback(self, n: int) -> None:
        """Undo the last `n` accepted tokens, an end token included."""
        if not 0 <= n < len(self._history):
            raise GrammarError(f"cannot undo {n} of {len(self._history) - 1} accepted tokens")
        if n:
            del self._history[-n:]
            self._ended = False

    def snapshot(self) -> "GrammarState":
        """A state of its own at this position, for looking ahead; it cannot go back behind it."""
        copy = GrammarState(self._grammar, self._machine, self._in_use)
        copy._history = self._history[-1:]
        copy._ended = self._ended
        return copy

    def forced_tokens(self, tail_ids: Sequence[int], budget: int | None = None) -> list[int]:
        """The tokens that must come next and that the tokenizer would choose; may be empty.

        Does not change the state: the caller accepts them one by one. tail_ids: the request's last
        tokens, prompt and output, up to 16 are read. budget: as in `fill_mask`; then so many tokens
        are given that the output can still be completed within it (the tokenizer's spelling may
        take more tokens than the shortest one).
        """
        if self._ended:
            return []
        tokens = self._grammar.forced_tokens(self._machine, self._history[-1], tail_ids)
        if budget is None:
            return tokens
        fitting, state = 0, self._history[-1]
        for count, token in enumerate(tokens, start=1):
            text = self._grammar.vocabulary.token_bytes[token] or b""
            state = self._machine.step(state, text)
            if count + self._machine.needed(state) <= budget:
                fitting = count
        return tokens[:fitting]


def fill_masks(
    states: Sequence[Masking],
    budgets: Sequence[int | None],
    rows: NDArray[np.int32],
    places: Sequence[int],
) -> None:
    """`fill_mask` of every state i into rows[places[i]], in as few calls as can be.

    rows: int32 [any, num_words]. Never raises for a single state's sake: where a row cannot be made
    it allows the end tokens only, and that state's next `accept` says why.
    """
    going: list[GrammarState] = []
    jobs: list[int] = []  # of those in `going`; see `fill_rows`
    for state, budget, place in zip(states, budgets, places, strict=True):
        if type(state) is not GrammarState:  # its rows are its own
            state.fill_mask(rows[place], budget)
            continue
        machine = state._machine
        if not isinstance(machine, NativeTokenMachine) or state._ended or state._failure:
            state.fill_mask(rows[place], budget)
            continue
        going.append(state)
        jobs += (
            machine.handle,
            state._history[-1],
            NO_BUDGET if budget is None else budget,
            place,
        )
    done = fill_rows(jobs, rows)
    while done < len(going):
        failed, place = going[done], jobs[4 * done + 3]
        _fail(failed, last_error(), rows[place])
        going, jobs = going[done + 1 :], jobs[4 * (done + 1) :]
        done = fill_rows(jobs, rows)


def _fail(state: GrammarState, error: GrammarError, row: NDArray[np.int32]) -> None:
    state._failure = error
    _allow_end(state, row)


def _allow_end(state: GrammarState, row: NDArray[np.int32]) -> None:
    """Nothing after the end; else, so that a choice can be made at all, end tokens."""
    row.fill(0)
    if not state._ended:
        for token in state._grammar.vocabulary.eos_ids:
            row.view(np.uint32)[token // 32] |= np.uint32(1 << token % 32)
