"""Where one request stands in its grammar; small, mutable, owned by its scheduler."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from .distance import NEVER
from .errors import GrammarError

if TYPE_CHECKING:
    from .compiled import CompiledGrammar


class GrammarState:
    """The position of one output in a `CompiledGrammar`; written by `accept` and `rollback`."""

    __slots__ = ("_ended", "_grammar", "_history")

    def __init__(self, grammar: "CompiledGrammar") -> None:
        self._grammar = grammar
        self._history = [0]  # the automaton state after each accepted token, the start first
        self._ended = False

    @property
    def grammar(self) -> "CompiledGrammar":
        return self._grammar

    @property
    def can_finish(self) -> bool:
        """Whether the output so far is accepted: an end token is allowed, stop strings apply."""
        return bool(self._grammar.automaton.accepting[self._history[-1]])

    @property
    def is_finished(self) -> bool:
        """Whether an end token was taken, or nothing but the end is possible."""
        return self._ended or self._grammar.automaton.is_end(self._history[-1])

    @property
    def shortest(self) -> int:
        """Fewest tokens that complete the output from here, the end token not counted."""
        return 0 if self._ended else self._grammar.needed(self._history[-1])

    def fill_mask(self, row: NDArray[np.int32], budget: int | None = None) -> None:
        """Write the allowed tokens into `row`; does not change the state.

        row: int32 [num_words], the caller's, overwritten as a whole: bit t % 32 of word t // 32 is
        set if token t is allowed. End tokens are allowed if and only if the state accepts.
        budget: tokens that may still be produced, the next one included and the end token not
        counted. Only tokens are kept after which the output can be completed in `budget - 1` more;
        so none is left where `budget` is less than `shortest` (which `accept` within rows made with
        a budget, begun with at least `CompiledGrammar.shortest`, never leads to).
        """
        if row.shape != (self._grammar.vocabulary.num_words,) or row.dtype != np.int32:
            raise GrammarError(
                f"a mask row is int32 [{self._grammar.vocabulary.num_words}], "
                f"not {row.dtype} {list(row.shape)}"
            )
        if self._ended:
            row.fill(0)
            return
        row[:] = self._grammar.row(self._history[-1], budget)

    def accept(self, token: int) -> bool:
        """Advance by one token; False, with the state unchanged, where it is not allowed."""
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
        text = vocabulary.token_bytes[token]
        if text is None:
            return False
        reached = self._grammar.automaton.step(here, text)
        if reached < 0 or self._grammar.needed(reached) >= NEVER:
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
        copy = GrammarState(self._grammar)
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
        tokens = self._grammar.forced_tokens(self._history[-1], tail_ids)
        if budget is None:
            return tokens
        fitting, state = 0, self._history[-1]
        for count, token in enumerate(tokens, start=1):
            text = self._grammar.vocabulary.token_bytes[token] or b""
            state = self._grammar.automaton.step(state, text)
            if count + self._grammar.needed(state) <= budget:
                fitting = count
        return tokens[:fitting]
