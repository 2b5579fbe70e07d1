"""A machine beside a vocabulary: which tokens may come next, what must, and how far the end is.

Owns: the interface, its version in Python, and the choice between that and `native`. Knows nothing
of requests, nor of how a tokenizer would spell what must come.
"""

import logging
from collections.abc import Callable
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from ..._native import NativeUnavailable
from ..errors import LimitExceeded
from ..token_trie import TokenTrie
from ..vocabulary import Vocabulary
from .collection import NEVER
from .machine import DEAD, Machine
from .program import Program

_log = logging.getLogger(__name__)

Row = NDArray[np.int32]
"""int32 [num_words]: bit t % 32 of word t // 32 stands for token t."""

_MOST_FORCED: Final = 1 << 16
_MOST_ROWS: Final = 1024


class TokenMachine(Protocol):
    """Configurations are numbers; DEAD is none. For any thread. Where the machine grows past its
    limits a method raises LimitExceeded."""

    @property
    def start(self) -> int:
        """Where the text begins; DEAD where no text is accepted."""

    @property
    def num_configurations(self) -> int:
        """How many have been met so far."""

    @property
    def num_bytes(self) -> int:
        """About how much memory it takes by now."""

    def step(self, configuration: int, text: bytes) -> int:
        """The configuration after `text`, or DEAD."""

    def accept(self, configuration: int, token: int) -> int:
        """The configuration after a token; DEAD where it is not allowed."""

    def accepting(self, configuration: int) -> bool: ...

    def is_end(self, configuration: int) -> bool:
        """Whether it accepts and nothing may follow."""

    def needed(self, configuration: int) -> int:
        """Fewest tokens that spell a shortest text (in bytes) to the end; NEVER where none do.

        Some token leads to a configuration that needs one less.
        """

    def next_bytes(self, configuration: int) -> list[int]:
        """The bytes that may follow, ascending."""

    def forced(self, configuration: int) -> tuple[bytes, int]:
        """The bytes that must follow, and the configuration after them."""

    def crosses(self, configuration: int, text: bytes, place: int) -> bool:
        """Whether some token could lie across a place within or at the end of `text`, which is
        followed by what may follow the configuration."""

    def fill(self, configuration: int, budget: int | None, row: Row) -> None:
        """Write the allowed tokens into `row`, end tokens where it accepts. budget: tokens that may
        still come, this one included; only those are allowed after which the end is in reach."""

    def filler(self, row: Row) -> Callable[[int, int | None], None]:
        """`fill` of this row, which must be in one piece."""

    def row_number(self, configuration: int, budget: int | None) -> int:
        """A number that only rows with the same tokens have, of all machines of a vocabulary, of
        the row that `fill` would give; 0 where it would have to be made."""

    def fill_beyond(self, configuration: int, before: bytes, budget: int | None, row: Row) -> None:
        """Write into `row` the tokens that begin with `before` and go on with what is allowed: the
        configuration stands after `before`."""


def token_machine(program: Program, vocabulary: Vocabulary, seconds: float) -> TokenMachine:
    """In C++ where that can be had. seconds: how long it may take; LimitExceeded after that."""
    from .native import NativeTokenMachine

    try:
        return NativeTokenMachine(program, vocabulary, seconds)
    except NativeUnavailable:
        return PythonTokenMachine(program, vocabulary, seconds)


def warm_up(vocabulary: Vocabulary) -> None:
    """What a first machine of a vocabulary would wait for: the library, compiled once for this
    computer, and the trie."""
    from .native import load_trie

    try:
        load_trie(vocabulary)
    except NativeUnavailable as error:
        _log.info("constraints run in Python, which is slower: %s", error)
        vocabulary.trie  # noqa: B018 (kept by the vocabulary)


class PythonTokenMachine:
    """The definition of what the C++ version does; slower by one to two orders of magnitude."""

    def __init__(self, program: Program, vocabulary: Vocabulary, seconds: float = 60.0) -> None:
        spelled = [text[0] for text in vocabulary.spelled if len(text) == 1]
        self._machine = Machine(program, seconds, spelled)
        self._vocabulary = vocabulary
        self.start: Final = self._machine.start
        self._steps = _Steps(self._machine, vocabulary.trie)
        self._ways: dict[int, tuple[int, int]] = {}  # next byte and configuration to the end
        self._needed: dict[int, int] = {}
        self._rows: dict[int, tuple[Row, int]] = {}  # and the most tokens that one of it leaves

    @property
    def num_configurations(self) -> int:
        return self._machine.num_configurations

    @property
    def num_bytes(self) -> int:
        rows = len(self._rows) * (4 * self._vocabulary.num_words + 200)
        return self._machine.num_bytes + rows + 150 * (len(self._ways) + len(self._needed))

    def step(self, configuration: int, text: bytes) -> int:
        self._machine.begin_work()
        return self._step(configuration, text)

    def _step(self, configuration: int, text: bytes) -> int:
        for byte in text:
            if configuration == DEAD:
                break
            configuration = self._machine.step(configuration, byte)
        return configuration

    def accept(self, configuration: int, token: int) -> int:
        text = self._vocabulary.token_bytes[token] if 0 <= token < self._vocabulary.size else None
        if not text:
            return DEAD
        reached = self.step(configuration, text)
        if reached == DEAD or self._machine.only_spelled or self._tokens_to_end(reached) < NEVER:
            return reached
        return DEAD

    def accepting(self, configuration: int) -> bool:
        return self._machine.accepting(configuration)

    def is_end(self, configuration: int) -> bool:
        return self.accepting(configuration) and not self.next_bytes(configuration)

    def next_bytes(self, configuration: int) -> list[int]:
        self._machine.begin_work()
        return self._next_bytes(configuration)

    def _next_bytes(self, configuration: int) -> list[int]:
        return [byte for byte in range(256) if self._machine.step(configuration, byte) != DEAD]

    def forced(self, configuration: int) -> tuple[bytes, int]:
        self._machine.begin_work()
        out = bytearray()
        while not self.accepting(configuration) and len(out) < _MOST_FORCED:
            following = self._next_bytes(configuration)
            if len(following) > 1:
                break
            out.append(following[0])
            configuration = self._machine.step(configuration, following[0])
        return bytes(out), configuration

    def crosses(self, configuration: int, text: bytes, place: int) -> bool:
        trie = self._vocabulary.trie
        self._machine.begin_work()
        for start in range(place - 1, max(place - self._vocabulary.longest, 0) - 1, -1):
            node = 0
            for at in range(start, len(text)):
                node = trie.child(node, text[at])
                if node < 0:
                    break
                if at >= place and trie.token[node] >= 0:
                    return True
            if node >= 0 and self._has_token_below(node, configuration):
                return True
        return False

    def _has_token_below(self, node: int, configuration: int) -> bool:
        trie, stack = self._vocabulary.trie, [(node, configuration)]
        while stack:
            node, here = stack.pop()
            for child in range(trie.first_child[node], trie.first_child[node + 1]):
                self._machine.spend(1)
                reached = self._machine.step(here, int(trie.byte[child]))
                if reached != DEAD:
                    if trie.token[child] >= 0:
                        return True
                    stack.append((child, reached))
        return False

    def needed(self, configuration: int) -> int:
        self._machine.begin_work()
        return self._tokens_to_end(configuration)

    def _tokens_to_end(self, configuration: int) -> int:
        # Within unique items it is bytes, for rows forget what tokens would be told apart by.
        if self._machine.reads_unique(configuration):
            return self._machine.shortest(configuration)
        way = [configuration]  # along the shortest text, to what is known
        while way[-1] not in self._needed and not self.accepting(way[-1]):
            if self._machine.reads_unique(way[-1]):
                self._needed[way[-1]] = self._machine.shortest(way[-1])
                break
            self._ways[way[-1]] = self._shortest_step(way[-1])
            way.append(self._ways[way[-1]][1])
            if len(way) > _MOST_FORCED:
                raise LimitExceeded("no way to its end was found")
        for here in reversed(way):
            if here not in self._needed:
                self._needed[here] = self._split(here)
        return self._needed[configuration]

    def _shortest_step(self, configuration: int) -> tuple[int, int]:
        machine = self._machine
        steps = [(byte, machine.step(configuration, byte)) for byte in machine.ending_bytes]
        alive = [(self._machine.shortest(to), byte, to) for byte, to in steps if to != DEAD]
        _, byte, reached = min(alive)
        return byte, reached

    def _split(self, configuration: int) -> int:
        if self.accepting(configuration):
            return 0
        best, text, here = NEVER, b"", configuration
        for _ in range(self._vocabulary.longest):
            if here not in self._ways or self.accepting(here):
                break
            byte, here = self._ways[here]
            text += bytes([byte])
            if text in self._vocabulary.spelled:
                best = min(best, self._needed[here] + 1)
        return best

    def filler(self, row: Row) -> Callable[[int, int | None], None]:
        return lambda configuration, budget: self.fill(configuration, budget, row)

    def fill(self, configuration: int, budget: int | None, row: Row) -> None:
        self._machine.begin_work()
        configuration = self._machine.outline(configuration)
        if configuration not in self._rows:
            if len(self._rows) >= _MOST_ROWS:
                self._rows.clear()
            self._rows[configuration] = self._make_row(configuration, NEVER)
        found, most = self._rows[configuration]
        if budget is not None and budget <= most:
            found, _ = self._make_row(configuration, budget - 1)
        row[:] = found

    def _make_row(self, configuration: int, most_after: int) -> tuple[Row, int]:
        words, most = self._pack(*self._steps.tokens(configuration), most_after)
        if self.accepting(configuration):
            for token in self._vocabulary.eos_ids:
                words.view(np.uint32)[token // 32] |= np.uint32(1 << token % 32)
        return words, most

    def row_number(self, configuration: int, budget: int | None) -> int:
        return 0  # all rows are kept by their own machines

    def fill_beyond(self, configuration: int, before: bytes, budget: int | None, row: Row) -> None:
        self._machine.begin_work()
        trie, node = self._vocabulary.trie, 0
        for byte in before:
            node = trie.child(node, byte) if node >= 0 else node
        row.fill(0)
        if node >= 0:
            found = self._steps.tokens(self._machine.outline(configuration), node)
            row[:], _ = self._pack(*found, NEVER if budget is None else budget - 1)

    def _pack(self, tokens: Row, reached: Row, most_after: int) -> tuple[Row, int]:
        vocabulary = self._vocabulary
        distinct, which = np.unique(reached, return_inverse=True)
        needed = np.array([self._tokens_to_end(each) for each in distinct.tolist()], np.int32)[
            which
        ]
        fits = needed <= min(most_after, NEVER - 1)
        allowed = np.zeros(vocabulary.num_words * 32, np.bool_)
        allowed[tokens[fits]] = True
        twins = vocabulary.trie.twins
        allowed[twins[:, 1]] = allowed[twins[:, 0]]
        words: Row = np.packbits(allowed, bitorder="little").view("<i4")
        return words, int(needed[fits].max(initial=0))


class _Steps:
    """The machine's rows as one growing table, so that a level of the trie is walked at once."""

    def __init__(self, machine: Machine, trie: TokenTrie) -> None:
        self._machine = machine
        self._trie = trie
        self._columns = np.array(machine.byte_class, np.int32)[trie.byte]
        self._byte_of = [machine.byte_class.index(c) for c in range(machine.num_classes)]
        self._table = np.full((64, machine.num_classes), -2, np.int32)

    def tokens(self, configuration: int, top: int = 0) -> tuple[Row, Row]:
        """The tokens below the node `top`, where the configuration stands, that may come, and where
        each leads (of twins only the first)."""
        trie = self._trie
        node, state = np.array([top], np.intp), np.array([configuration], np.int32)
        tokens, reached = [np.zeros(0, np.int32)], [np.zeros(0, np.int32)]
        while len(node):
            begin = trie.first_child[node]
            count = trie.first_child[node + 1] - begin
            ends = np.cumsum(count)
            node = np.arange(ends[-1]) + np.repeat(begin - (ends - count), count)
            state = self._step(np.repeat(state, count), self._columns[node])
            node, state = node[state != DEAD], state[state != DEAD]
            found = trie.token[node] >= 0
            tokens.append(trie.token[node[found]])
            reached.append(state[found])
        return np.concatenate(tokens), np.concatenate(reached)

    def _step(self, state: Row, column: NDArray[np.int32]) -> Row:
        if len(state) and (most := int(state.max())) >= len(self._table):
            grown = np.full((2 * most + 2, self._table.shape[1]), -2, np.int32)
            grown[: len(self._table)] = self._table
            self._table = grown
        after: Row = self._table[state, column]
        unknown = after == -2
        if unknown.any():
            width = self._table.shape[1]
            pairs = np.unique(state[unknown].astype(np.int64) * width + column[unknown])
            for here, byte_class in zip(
                *(p.tolist() for p in np.divmod(pairs, width)), strict=True
            ):
                to = self._machine.step(here, self._byte_of[byte_class])
                self._table[here, byte_class] = to
            after = self._table[state, column]
        return after
