"""A constraint compiled for one vocabulary: immutable, shared by all requests that use it."""

import itertools
from collections.abc import Sequence

from .automaton import Automaton
from .distance import NEVER, tokens_to_accept
from .errors import GrammarError
from .jump_forward import forced_tokens
from .masks import MaskCache, MaskRow, make_row
from .spec import Constraint
from .state import GrammarState
from .token_trie import IntArray
from .token_walk import TokenWalk
from .vocabulary import Vocabulary

_serial_numbers = itertools.count()
_MOST_JUMPS = 4096


class CompiledGrammar:
    """What the constraint allows, state by state; `start()` makes the state of one request.

    Nothing that it answers depends on earlier calls: rows and jumps are only kept for reuse.
    """

    def __init__(
        self, spec: Constraint, automaton: Automaton, vocabulary: Vocabulary, masks: MaskCache
    ) -> None:
        self._spec = spec
        self._automaton = automaton
        self._vocabulary = vocabulary
        self._walk = TokenWalk(vocabulary.trie, automaton)
        self._distance, self._exact = tokens_to_accept(self._walk, vocabulary)
        self._masks = masks
        self._serial = next(_serial_numbers)
        self._jumps: dict[tuple[int, tuple[int, ...]], list[int]] = {}
        if self.shortest >= NEVER:
            raise GrammarError("no sequence of this vocabulary's tokens spells an accepted text")

    @property
    def spec(self) -> Constraint:
        return self._spec

    @property
    def vocabulary(self) -> Vocabulary:
        return self._vocabulary

    @property
    def automaton(self) -> Automaton:
        return self._automaton

    @property
    def num_states(self) -> int:
        return self._automaton.num_states

    @property
    def shortest(self) -> int:
        """Fewest tokens of any accepted output, the end token not counted.

        For huge automata an upper bound of that, see `distance`; `is_shortest_exact` says which.
        """
        return int(self._distance[0])

    @property
    def is_shortest_exact(self) -> bool:
        return self._exact

    def start(self) -> GrammarState:
        return GrammarState(self)

    def matches(self, text: bytes) -> bool:
        """Whether `text` is a whole accepted output."""
        return self._automaton.accepts(text)

    def needed(self, state: int) -> int:
        """Fewest tokens (or the bound of `shortest`) from an automaton state to the end."""
        return int(self._distance[state])

    def row(self, state: int, budget: int | None) -> IntArray:
        """The packed row of an automaton state, int32 [num_words], not to be written to.

        budget: tokens that may still be produced, the next one included; None: any number.
        """
        key = (self._serial, state)
        row = self._masks.get(key)
        if row is None:
            row = self._make_row(state, NEVER)
            row.words.flags.writeable = False
            self._masks.put(key, row)
        if budget is None or budget > row.most_needed:
            return row.words
        return self._make_row(state, budget - 1).words

    def _make_row(self, state: int, most_after: int) -> MaskRow:
        return make_row(self._walk, self._vocabulary, self._distance, state, most_after)

    def forced_tokens(self, state: int, tail_ids: Sequence[int]) -> list[int]:
        """See `jump_forward`."""
        if self._automaton.run_of[state] < 0:
            return []
        key = (state, tuple(tail_ids[-16:]))
        if key not in self._jumps:
            if len(self._jumps) >= _MOST_JUMPS:
                self._jumps.clear()
            self._jumps[key] = forced_tokens(self._automaton, self._vocabulary, state, key[1])
        return list(self._jumps[key])
