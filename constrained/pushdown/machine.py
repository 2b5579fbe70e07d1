"""A machine at work, in Python: what `native` does in C++, line by line, and the judge of it.

A configuration is everything that may be true of the text so far: a set of (state, frame) pairs,
each a state that reads the next byte, on top of the calls that wait below it. A frame is a set of
(state, frame) pairs as well: where its callers go on. Configurations and frames are interned, so
that equal futures have equal numbers; the row of a configuration, which says where each byte
leads, is made byte by byte when it is asked for. So the machine is a deterministic automaton that
exists as far as texts have gone.

A state that still counts (a repetition, a collection, a product) is a number too: interned with
what it has counted. States from which no end can be reached are never entered: every configuration
has a way to the end, and `shortest` is its length in bytes.
"""

import heapq
import math
import time
from collections.abc import Collection, Iterable, Sequence
from itertools import accumulate
from typing import Final

import numpy as np

from ..errors import LimitExceeded
from .builder import FINAL, Member
from .collection import AFTER_MEMBER, NEVER, CollectionRules, Progress
from .program import NO_BOUND, Kind, Program

DEAD: Final = -1
"""The configuration in which no text is accepted."""
BOTTOM: Final = 0
"""The frame below the first rule."""

# What of a `Unique` is being read, and whether its texts are kept (see `outline`).
_ITEM, _AFTER_ITEM, _COMMA = range(3)
_KEEPS, _FORGETS, _ENDED = range(3)
_ELSE: Final = -1  # the text of an item that none of the earlier ones begins with

_UNKNOWN: Final = -2
_MOST_CONFIGURATIONS: Final = 200_000
_MOST_AT_ONCE: Final = 100_000
_MOST_PRODUCT_STATES: Final = 100_000
_MOST_BYTES: Final = 128 << 20
_BYTES_OF_A_LIST: Final = 300  # its places in tables included
_BYTES_OF_A_PAIR: Final = 130
_MOST_WORK: Final = 1 << 19  # fewer than in C++, for each takes longer
_WORK_OF_A_MOMENT: Final = 1 << 10
_MANY: Final = 64  # frames: more are not compared
_MOST_KNOWN: Final = 1 << 16
_DEEP: Final = 8
_ENOUGH_TEXTS: Final = 100

Item = tuple[int, int]
"""(state, frame)."""


class Machine:
    """Configurations are numbers from 0, where the text begins. Not safe for threads."""

    def __init__(
        self,
        program: Program,
        seconds: float = 60.0,
        spelled: Collection[int] = range(256),
    ) -> None:
        """seconds: how long it may take; LimitExceeded is raised after that. spelled: the bytes
        that are tokens by themselves."""
        self._program = program
        self._spelled = frozenset(spelled)
        self._num_bytes = 0
        self._deadline = time.monotonic() + seconds
        self._work = _WORK_OF_A_MOMENT
        self._num_states = program.num_states
        self._edges = _lists(
            program.edge_begin,
            [(low, high, target) for low, high, target in program.edge.tolist()],
        )
        self._jumps = _lists(program.jump_begin, program.jump_target.tolist())
        self._kind: list[int] = program.kind.tolist()
        self._operands: list[list[int]] = program.operands.tolist()
        self._starts: list[int] = program.rule_start.tolist()
        self._parts = _lists(
            program.part_begin,
            [(rule, bool(negated)) for rule, negated in program.part.tolist()],
        )
        self.byte_class, self.num_classes = _byte_classes(program)
        self._class_byte = [0] * self.num_classes
        for byte in range(255, -1, -1):
            self._class_byte[self.byte_class[byte]] = byte
        spelled_classes = {self.byte_class[byte] for byte in self._spelled}
        self._spelled_class_bytes = [self._class_byte[c] for c in sorted(spelled_classes)]
        # What counts: (state, what it has counted), numbered after the states of the program.
        self._counting: list[tuple[int, object]] = []
        self._counting_numbers: dict[tuple[int, object], int] = {}
        self._frames: list[tuple[Item, ...]] = [()]
        self._frame_numbers: dict[tuple[Item, ...], int] = {}
        self._frame_shortest: list[int] = [0]
        self._above: list[int] = [BOTTOM]  # of each frame one that covers it
        self._not_above: set[tuple[int, int]] = set()
        self._items: list[tuple[Item, ...]] = []
        self._accepting: list[bool] = []
        self._rows: list[list[int] | None] = []
        self._numbers: dict[tuple[tuple[Item, ...], bool], int] = {}
        self._rule_configurations: dict[int, int] = {}
        self._product_shortest: dict[tuple[int, tuple[int, ...]], int] = {}
        # Texts of unique items as (text before, byte), numbered from 0, the empty one.
        self._texts: list[tuple[int, int]] = [(_ELSE, 0)]
        self._text_numbers: dict[tuple[int, int], int] = {}
        self._inner: dict[int, int] = {}  # of products, and of unique items without the commas
        self._most_items: dict[int, int] = {}  # of unique items: `high`, or how many there are
        self._item_bytes: dict[int, list[int]] = {}  # [n]: of the n shortest ones together
        self._need = [0] + [NEVER] * (self._num_states - 1)
        self._of_spelled = False  # whether `_need` counts only bytes that are tokens
        self._rules: list[CollectionRules | None] = [None] * len(program.collection)
        self._settle_needs()
        self.only_spelled: Final = self._prefer_spelled()
        """Whether as many tokens as `shortest` says bytes are enough from every configuration."""
        self.start: Final = self._start_of(int(program.root[0]))
        self._deadline = math.inf
        self._work = _MOST_WORK

    # Work

    def begin_work(self) -> None:
        """One call begins: it may do so much work (`spend`) and no more."""
        self._work = _MOST_WORK

    def spend(self, units: int) -> None:
        """Count work: items of a closure, edges tried, states of a search."""
        self._work -= units
        if self._work >= 0:
            return
        # While the machine is set up time is the limit, and is looked at now and then.
        if self._deadline == math.inf:
            raise LimitExceeded(
                f"a single step of it takes more work than the limit of {_MOST_WORK}"
            )
        if time.monotonic() > self._deadline:
            raise LimitExceeded("it took too long")
        self._work = _WORK_OF_A_MOMENT

    def _grow(self, pairs: int) -> None:
        self._num_bytes += _BYTES_OF_A_LIST + _BYTES_OF_A_PAIR * pairs
        if self._num_bytes > _MOST_BYTES:
            raise LimitExceeded(f"it needs more than {_MOST_BYTES >> 20} MiB")

    # Questions

    @property
    def num_configurations(self) -> int:
        return len(self._items)

    @property
    def num_bytes(self) -> int:
        """About how much memory it takes by now."""
        return self._num_bytes

    def step(self, configuration: int, byte: int) -> int:
        """Where `byte` leads, or DEAD."""
        row = self._rows[configuration]
        if row is None:
            row = self._rows[configuration] = [_UNKNOWN] * self.num_classes
            self._num_bytes += 8 * self.num_classes + _BYTES_OF_A_LIST
        column = self.byte_class[byte]
        if row[column] == _UNKNOWN:
            row[column] = self._make_step(configuration, byte)
        return row[column]

    def accepting(self, configuration: int) -> bool:
        """Whether the text may end here."""
        return self._accepting[configuration]

    def shortest(self, configuration: int) -> int:
        """Fewest bytes with which the text can end."""
        if self._accepting[configuration]:
            return 0
        return min(self._item_shortest(item) for item in self._items[configuration])

    @property
    def ending_bytes(self) -> Collection[int]:
        """The bytes that `shortest` counts."""
        return self._spelled if self.only_spelled else range(256)

    # Steps

    def _make_step(self, configuration: int, byte: int) -> int:
        reached: list[Item] = []
        self.spend(1)
        for state, frame in self._items[configuration]:
            if state < self._num_states:
                self.spend(len(self._edges[state]))
                for low, high, target in self._edges[state]:
                    if low <= byte <= high:
                        reached.append((target, frame))
            elif self._reads_by_itself(state):
                origin, times = self._counting[state - self._num_states]
                assert isinstance(times, int)
                for low, high, _ in self._edges[self._starts[self._operands[origin][0]]]:
                    if low <= byte <= high:
                        reached.append((self._count(origin, self._once_more(origin, times)), frame))
            else:
                product, parts = self._counting[state - self._num_states]
                assert isinstance(parts, tuple)
                if self._kind[product] == Kind.UNIQUE:
                    read = self._step_unique(parts, byte)
                    if read is not None:
                        reached.append((self._count(product, read), frame))
                    continue
                after = self._step_parts(product, parts, byte)
                if after is not None:
                    reached.append((self._count(product, after), frame))
        return self._intern(reached)

    def _step_parts(
        self, product: int, parts: tuple[int, ...], byte: int
    ) -> tuple[int, ...] | None:
        """None where a text that a part wants is out of reach."""
        after = tuple(part if part == DEAD else self.step(part, byte) for part in parts)
        negated = self._negated(product)
        if any(part == DEAD and not no for part, no in zip(after, negated, strict=True)):
            return None
        return after

    def _intern(self, items: Iterable[Item], *, accepting: bool = False) -> int:
        """The configuration of what is reached from `items` by empty steps."""
        found, ends = self._closure(items)
        reading = tuple(self._uncovered(found))
        accepting |= ends
        if not reading and not accepting:
            return DEAD
        key = (reading, accepting)
        number = self._numbers.get(key)
        if number is None:
            number = len(self._items)
            if number >= _MOST_CONFIGURATIONS:
                raise LimitExceeded(f"it needs more than {_MOST_CONFIGURATIONS} states")
            self._grow(len(reading))
            self._numbers[key] = number
            self._items.append(reading)
            self._accepting.append(accepting)
            self._rows.append(None)
        return number

    def _closure(self, items: Iterable[Item]) -> tuple[list[Item], bool]:
        """The pairs that read a byte, and whether the text may end.

        All calls of one rule share a frame, which grows while the closure is made and gets its
        number at the end; until then its number is negative.
        """
        stack = list(items)
        seen = set(stack)
        reading: list[Item] = []
        growing: dict[int, int] = {}  # rule -> the (negative) number of its frame
        callers: dict[int, dict[Item, None]] = {}
        ended: set[int] = set()  # growing frames whose rule ended at once
        accepting = False

        def push(item: Item) -> None:
            self.spend(1)
            if item not in seen and self._state_need(item[0]) < NEVER:
                if len(seen) >= _MOST_AT_ONCE:
                    raise LimitExceeded("there are too many ways to read it at once")
                seen.add(item)
                stack.append(item)

        def call(rule: int, then: int, frame: int, *, may_be_empty: bool = True) -> None:
            start = self._starts[rule]
            self.spend(1)
            if self._need[start] >= NEVER:
                return
            number = growing.get(rule)
            if number is None:
                number = growing[rule] = -1 - len(growing)
                callers[number] = {}
                push((start, number))
            if (then, frame) not in callers[number]:
                if len(callers[number]) >= _MOST_AT_ONCE:
                    raise LimitExceeded("there are too many ways to read it at once")
                callers[number][then, frame] = None
                if number in ended and may_be_empty:
                    push((then, frame))

        stack = [item for item in seen if self._state_need(item[0]) < NEVER]
        while stack:
            state, frame = stack.pop()
            if state == FINAL:
                if frame == BOTTOM:
                    accepting = True
                elif frame < 0:
                    ended.add(frame)
                    for caller in list(callers[frame]):
                        if not self._is_repeat(caller[0]):
                            push(caller)
                else:
                    for caller in self._frames[frame]:
                        push(caller)
                continue
            if state < self._num_states:
                if self._edges[state]:
                    reading.append((state, frame))
                for target in self._jumps[state]:
                    push((target, frame))
                kind = self._kind[state]
                if kind == Kind.CALL:
                    call(self._operands[state][0], self._operands[state][1], frame)
                elif kind != Kind.PLAIN:
                    push((self._begin_counting(state), frame))
                continue
            origin, counted = self._counting[state - self._num_states]
            then = self._operands[origin][1]
            match self._kind[origin]:
                case Kind.REPEAT:
                    assert isinstance(counted, int)
                    rule, _, low, high, _ = self._operands[origin]
                    if counted >= low:
                        push((then, frame))
                    if high != NO_BOUND and counted >= high:
                        continue
                    if self._counts_bytes(origin):
                        reading.append((state, frame))
                    else:
                        more = self._count(origin, self._once_more(origin, counted))
                        call(rule, more, frame, may_be_empty=False)
                case Kind.PRODUCT:
                    assert isinstance(counted, tuple)
                    if self._parts_accept(origin, counted):
                        push((then, frame))
                    reading.append((state, frame))
                case Kind.UNIQUE:
                    assert isinstance(counted, tuple)
                    if counted[0] != _AFTER_ITEM:
                        reading.append((state, frame))
                    for after in self._after_unique(origin, counted):
                        push((after, frame))
                case Kind.COLLECTION:
                    assert isinstance(counted, Progress)
                    rules = self._collection(origin)
                    self.spend(rules.work)
                    if rules.may_end(counted):
                        push((then, frame))
                    if counted.phase == AFTER_MEMBER:
                        comma = int(self._program.collection[self._operands[origin][0]][0])
                        read = rules.after_comma(counted)
                        if rules.shortest(read) < NEVER:
                            call(comma, self._count(origin, read), frame)
                    else:
                        for member in rules.available(counted):
                            after = self._count(origin, rules.after(counted, member))
                            call(rules.members[member].rule, after, frame)
        settled = self._settled_frames(callers)
        pairs = {(state, settled.get(frame, frame)) for state, frame in reading}
        return sorted(pairs), accepting

    def _counts_bytes(self, repeat: int) -> bool:
        """Whether what is repeated is one byte of a set: then the state that counts reads it, and
        its rule is not called."""
        start = self._starts[self._operands[repeat][0]]
        is_plain = self._kind[start] == Kind.PLAIN and not self._jumps[start]
        return is_plain and all(target == FINAL for _, _, target in self._edges[start])

    def _reads_by_itself(self, state: int) -> bool:
        return self._is_repeat(state) and self._counts_bytes(
            self._counting[state - self._num_states][0]
        )

    def _once_more(self, repeat: int, times: int) -> int:
        _, _, low, high, _ = self._operands[repeat]
        return times + 1 if high != NO_BOUND else min(times + 1, low)

    def _is_repeat(self, state: int) -> bool:
        """A repetition's body that ends without a byte does not count as one more."""
        at = state - self._num_states
        return at >= 0 and self._kind[self._counting[at][0]] == Kind.REPEAT

    def _settled_frames(self, callers: dict[int, dict[Item, None]]) -> dict[int, int]:
        """The numbers of the frames that have grown; one only called for its end is its caller."""
        settled: dict[int, int] = {}
        stack = list(callers)  # by hand: rules may call each other in a long row
        while stack:
            number = stack[-1]
            frames = {frame for _, frame in callers[number]}
            waits_for = [frame for frame in frames if frame < 0 and frame not in settled]
            if waits_for:
                stack += waits_for
                continue
            stack.pop()
            if number not in settled:
                found = {(then, settled.get(frame, frame)) for then, frame in callers[number]}
                self.spend(len(found))
                pairs = self._uncovered(sorted(found))
                is_tail = len(pairs) == 1 and pairs[0][0] == FINAL
                settled[number] = pairs[0][1] if is_tail else self._frame(tuple(pairs))
        return settled

    def _frame(self, pairs: tuple[Item, ...]) -> int:
        number = self._frame_numbers.get(pairs)
        if number is None:
            shortest = min(map(self._item_shortest, pairs))  # first, for it may fail
            self._grow(len(pairs))
            number = self._frame_numbers[pairs] = len(self._frames)
            self._frames.append(pairs)
            self._frame_shortest.append(shortest)
            self._above.append(number)
        return number

    # What need not be held: of two pairs with the same state one whose frame is covered by the
    # other's. An ambiguous grammar has as many frames as bytes were read, each covering the last.

    def _uncovered(self, items: list[Item]) -> list[Item]:
        """`items` are sorted. The youngest frames, which cover most, come first."""
        kept: dict[int, list[int]] = {}  # frames of each state
        for state, frame in reversed(items):
            frames = kept.setdefault(state, [])
            if len(frames) < _MANY:
                if any(self._covers(by, frame, _DEEP) for by in frames):
                    continue
                frames[:] = [old for old in frames if not self._covers(frame, old, _DEEP)]
            frames.append(frame)
        return sorted((state, frame) for state, frames in kept.items() for frame in frames)

    def _covers(self, frame: int, other: int, depth: int) -> bool:
        """Whether every text that leads from one frame to the end leads there from the other as
        well; where that takes long to find out, False."""
        above, key = self._above, (frame, other)
        if frame == other or above[other] == frame:
            return True
        if other == BOTTOM:
            return self._frame_shortest[frame] == 0
        if frame == BOTTOM or not depth or key in self._not_above:
            return False
        if (above[other] != other and self._covers(frame, above[other], depth - 1)) or (
            self._covers_pairs(frame, other, depth - 1)
        ):
            above[other] = frame
            return True
        if len(self._not_above) > _MOST_KNOWN:
            self._not_above.clear()
        self._not_above.add(key)
        return False

    def _covers_pairs(self, frame: int, other: int, depth: int) -> bool:
        have, wanted = self._frames[frame], self._frames[other]
        if 4 * len(have) * len(wanted) > _MANY * _MANY:
            return False
        for state, its in wanted:
            self.spend(len(have))
            if not any(state == mine and self._covers(below, its, depth) for mine, below in have):
                return False
        return True

    # Counting

    def _count(self, origin: int, counted: object) -> int:
        key = (origin, counted)
        number = self._counting_numbers.get(key)
        if number is None:
            self._grow(2)
            number = self._counting_numbers[key] = self._num_states + len(self._counting)
            self._counting.append(key)
        return number

    def _begin_counting(self, state: int) -> int:
        match self._kind[state]:
            case Kind.REPEAT:
                return self._count(state, 0)
            case Kind.PRODUCT:
                return self._count(state, self._first_parts(state))
            case Kind.UNIQUE:
                return self._count(state, (_AFTER_ITEM, 0, (), 0, 0, _KEEPS))
            case _:
                return self._count(state, self._collection(state).begin)

    def _first_parts(self, product: int) -> tuple[int, ...]:
        return tuple(self._start_of(rule) for rule, _ in self._parts[self._operands[product][0]])

    def _start_of(self, rule: int) -> int:
        if rule not in self._rule_configurations:
            start = self._starts[rule]
            alive = self._need[start] < NEVER
            found = self._intern([(start, BOTTOM)]) if alive else DEAD
            self._rule_configurations[rule] = found
        return self._rule_configurations[rule]

    def _negated(self, product: int) -> list[bool]:
        return [negated for _, negated in self._parts[self._operands[product][0]]]

    def _parts_accept(self, product: int, parts: tuple[int, ...]) -> bool:
        return all(
            (part != DEAD and self._accepting[part]) != negated
            for part, negated in zip(parts, self._negated(product), strict=True)
        )

    # Unique items: (what is read, count, texts before, configuration, text, whether texts are kept)

    def outline(self, configuration: int) -> int:
        """The configuration with the text of a unique item forgotten, as far as it differs from
        those before: what lies ahead within one token is the same, and there are far fewer of them.

        Once an item has ended, the next one does not end within the same token: whether it may is
        not known.
        """
        items = self._items[configuration]
        outlined = tuple((self._outline_state(state), frame) for state, frame in items)
        if outlined == items:
            return configuration
        return self._intern(outlined, accepting=self._accepting[configuration])

    def reads_unique(self, configuration: int) -> bool:
        """Whether items are being read of which no two may be equal."""
        return any(
            state >= self._num_states
            and self._kind[self._counting[state - self._num_states][0]] == Kind.UNIQUE
            for state, _ in self._items[configuration]
        )

    def _outline_state(self, state: int) -> int:
        if state < self._num_states:
            return state
        origin, counted = self._counting[state - self._num_states]
        if self._kind[origin] != Kind.UNIQUE:
            return state
        assert isinstance(counted, tuple)
        phase, count, before, inner, text, _ = counted
        return self._count(
            origin, (phase, count, before, inner, self._known_text(before, text), _FORGETS)
        )

    def _known_text(self, before: tuple[int, ...], text: int) -> int:
        """`text` where one of the texts begins with it, else _ELSE."""
        for each in before:
            while each > text:  # a text is numbered after those it begins with
                each = self._texts[each][0]
            if each == text:
                return text
        return _ELSE

    def _step_unique(self, counted: tuple, byte: int) -> tuple | None:  # type: ignore[type-arg]
        phase, count, before, inner, text, keeps = counted
        inner = self.step(inner, byte)
        if inner == DEAD:
            return None
        if phase == _ITEM and text != _ELSE:
            if keeps == _KEEPS:
                text = self._text_numbers.setdefault((text, byte), len(self._texts))
                if text == len(self._texts):
                    self._texts.append((counted[4], byte))
            else:
                text = self._known_text(before, self._text_numbers.get((text, byte), _ELSE))
        return (phase, count, before, inner, text, keeps)

    def _after_unique(self, origin: int, counted: tuple) -> list[int]:  # type: ignore[type-arg]
        """The states that follow by an empty step."""
        phase, count, before, inner, text, keeps = counted
        rule, then, low, _, comma = self._operands[origin]
        high = self._most_items[origin]
        most = max(low, high, 0)
        if phase == _ITEM:
            if not self._accepting[inner] or text in before or keeps == _ENDED:
                return []
            kept = keeps == _KEEPS
            texts = tuple(sorted((*before, text))) if kept else before
            after = (_AFTER_ITEM, min(count + 1, most), texts, 0, 0, _KEEPS if kept else _ENDED)
            return [self._count(origin, after)]
        item = (_ITEM, count, before, self._start_of(rule), 0, keeps)
        if phase == _COMMA:
            return [self._count(origin, item)] if self._accepting[inner] else []
        states = [then] if count >= low else []
        if high == NO_BOUND or count < high:
            if not before and keeps != _ENDED:
                states.append(self._count(origin, item))
            else:
                reads_comma = (_COMMA, count, before, self._start_of(comma), 0, keeps)
                states.append(self._count(origin, reads_comma))
        return states

    def _begin_unique(self, state: int) -> int:
        """The bytes of as many items as there must be; notes how many there may be, and the bytes
        of the shortest of them."""
        rule, _, low, high, _ = self._operands[state]
        enough = max(low, _ENOUGH_TEXTS)
        lengths = self._shortest_lengths(rule, enough)
        is_scarce = len(lengths) < enough and (high == NO_BOUND or len(lengths) < high)
        self._most_items[state] = len(lengths) if is_scarce else high
        if len(lengths) < low:
            return NEVER
        self._item_bytes[state] = list(accumulate(lengths[:low], initial=0))
        return self._item_bytes[state][low]

    def _shortest_lengths(self, rule: int, enough: int) -> list[int]:
        """The lengths of the shortest texts that a rule reads."""
        start = self._start_of(rule)
        layer = {} if start == DEAD else {start: 1}  # configuration: texts that lead to it
        lengths: list[int] = []
        depth = 0
        while layer and len(lengths) < enough:
            found = sum(count for here, count in layer.items() if self._accepting[here])
            lengths += [depth] * min(found, enough - len(lengths))
            following: dict[int, int] = {}
            for here, count in layer.items():
                for byte in range(256):
                    after = self.step(here, byte)
                    if after != DEAD:
                        following[after] = min(following.get(after, 0) + count, enough)
            self.spend(256 * len(following))
            layer, depth = following, depth + 1
        return lengths

    def _shortest_unique(self, origin: int, counted: tuple) -> int:  # type: ignore[type-arg]
        """Bytes that are enough to come to the end of the items.

        Of the shortest texts so many may be taken as items have come: the next ones are there.
        """
        phase, _, before, inner, text, keeps = counted
        count: int = counted[1]
        rule, _, low, _, comma = self._operands[origin]
        sign, total = self._need[self._starts[comma]], self._item_bytes[origin]
        if phase == _AFTER_ITEM:
            more = max(low - count, 0)
            signs = more - (count == 0) if more else 0
            return total[low] - total[min(count, low)] + signs * sign
        rest = total[low] - total[min(count + 1, low)] + max(low - count - 1, 0) * sign
        # After a text that has been forgotten the next one might be the same, but not two of them.
        skipped = int(keeps == _ENDED)
        if phase == _COMMA:
            item = self._shortest_item(self._start_of(rule), before, 0, skipped)
            return self.shortest(inner) + item + rest
        return self._shortest_item(inner, before, text, skipped) + rest

    def _shortest_item(self, inner: int, before: tuple[int, ...], text: int, skipped: int) -> int:
        """Fewest bytes to the end of an item that is none of the texts before, nor one of so many
        shorter ones."""
        layer, depth, found, best = {(inner, self._known_text(before, text)): 1}, 0, 0, NEVER
        while layer and depth < best:
            following: dict[tuple[int, int], int] = {}
            for (here, known), count in layer.items():
                if known == _ELSE and not skipped:
                    best = min(best, depth + self.shortest(here))
                    continue
                if self._accepting[here] and known not in before:
                    found += count
                for byte in range(256):
                    after = self.step(here, byte)
                    if after != DEAD:
                        number = self._text_numbers.get((known, byte), _ELSE)
                        next_item = (after, self._known_text(before, number))
                        following[next_item] = min(following.get(next_item, 0) + count, 2)
            if found > skipped:
                best = min(best, depth)
            self.spend(256 * len(following))
            layer, depth = following, depth + 1
        return best

    def _collection(self, state: int) -> CollectionRules:
        number = self._operands[state][0]
        rules = self._rules[number]
        if rules is None:
            rules = self._rules[number] = self._make_rules(number, self._need)
        return rules

    def _make_rules(self, number: int, need: Sequence[int]) -> CollectionRules:
        program = self._program
        comma, ordered, low, high = program.collection[number].tolist()
        begin, end = program.member_begin[number : number + 2].tolist()
        members = program.member[begin:end].tolist()
        begin, end = program.need_begin[number : number + 2].tolist()
        needs = program.need[begin:end].tolist()
        begin, end = program.counter_begin[number : number + 2].tolist()
        counters = program.counter[begin:end].tolist()
        return CollectionRules(
            tuple(Member(rule, bool(once), counter) for rule, once, counter, _ in members),
            [need[self._starts[rule]] for rule, *_ in members],
            need[self._starts[comma]],
            ordered=bool(ordered),
            required=frozenset(n for n, (*_, required) in enumerate(members) if required),
            needs=tuple((a, b) for a, b in needs),
            low=low,
            high=None if high == NO_BOUND else high,
            counters=tuple((a, None if b == NO_BOUND else b) for a, b in counters),
        )

    # The way to the end

    def _settle_needs(self) -> None:
        """Fewest bytes from each state to the end of its rule: the least solution of the equations
        that each state's parts make, from NEVER down. Products and unique items come last, one
        after the other, for they are searched, which takes their parts' needs."""
        self._relax(1, self._num_states)
        searched = [s for s, kind in enumerate(self._kind) if kind in (Kind.PRODUCT, Kind.UNIQUE)]
        for state, following in zip(searched, [*searched[1:], self._num_states], strict=False):
            if self._kind[state] == Kind.PRODUCT:
                self._inner[state] = self._shortest_product(state, self._first_parts(state))
            else:
                self._inner[state] = self._begin_unique(state)
            # The parts of the next one may hold this one: they were built between the two.
            self._relax(state, following)
        self._relax(1, self._num_states)

    def _prefer_spelled(self) -> bool:
        """Where every state's end can be reached by bytes that are tokens, only these count from
        now on."""
        before = self._need
        self._need = [0] + [NEVER] * (self._num_states - 1)
        self._of_spelled = True
        self._relax(1, self._num_states)
        found = all(
            new < NEVER or old >= NEVER for new, old in zip(self._need, before, strict=True)
        )
        if not found:
            self._need, self._of_spelled = before, False
        self._rules = [None] * len(self._rules)
        self._frame_shortest = [0]
        for pairs in self._frames[1:]:
            self._frame_shortest.append(min(map(self._item_shortest, pairs)))
        return found

    def _is_spelled(self, low: int, high: int) -> bool:
        return not self._of_spelled or any(byte in self._spelled for byte in range(low, high + 1))

    def _relax(self, first: int, last: int) -> None:
        need, changed = self._need, True
        while changed:
            changed = False
            for state in range(first, last):
                self.spend(8 + len(self._edges[state]))
                best = self._equation(state)
                if best < need[state]:
                    need[state], changed = best, True

    def _equation(self, state: int) -> int:
        need = self._need
        best = need[state]
        for target in self._jumps[state]:
            best = min(best, need[target])
        for low, high, target in self._edges[state]:
            if need[target] + 1 < best and self._is_spelled(low, high):
                best = need[target] + 1
        first, then, least, _, comma = self._operands[state]
        match self._kind[state]:
            case Kind.CALL:
                best = min(best, need[self._starts[first]] + need[then])
            case Kind.REPEAT:
                inner = need[self._starts[first]] * least if least else 0
                best = min(best, inner + need[then])
            case Kind.PRODUCT:
                best = min(best, self._inner.get(state, NEVER) + need[then])
            case Kind.UNIQUE:
                commas = need[self._starts[comma]] * (least - 1) if least > 1 else 0
                best = min(best, self._inner.get(state, NEVER) + commas + need[then])
            case Kind.COLLECTION:
                rules = self._make_rules(first, need)
                self.spend(8 * len(rules.members))
                best = min(best, rules.shortest(rules.begin) + need[then])
        return min(best, NEVER)

    def _state_need(self, state: int) -> int:
        """Fewest bytes from a state, counting or not, to the end of its rule."""
        if state < self._num_states:
            return self._need[state]
        origin, counted = self._counting[state - self._num_states]
        rule, then, low, _, _ = self._operands[origin]
        match self._kind[origin]:
            case Kind.REPEAT:
                assert isinstance(counted, int)
                more = max(low - counted, 0)
                inner = more * self._need[self._starts[rule]] if more else 0
            case Kind.PRODUCT:
                assert isinstance(counted, tuple)
                inner = self._shortest_product(origin, counted)
            case Kind.UNIQUE:
                assert isinstance(counted, tuple)
                inner = self._shortest_unique(origin, counted)
            case _:
                assert isinstance(counted, Progress)
                rules = self._collection(origin)
                self.spend(len(rules.members))
                inner = rules.shortest(counted)
        return min(inner + self._need[then], NEVER)

    def _item_shortest(self, item: Item) -> int:
        state, frame = item
        return self._state_need(state) + self._frame_shortest[frame]

    def _shortest_product(self, product: int, parts: tuple[int, ...]) -> int:
        """Fewest bytes after which all parts agree, by a search that goes on from what is known.
        The most hopeful states are first: no part ends sooner than it would alone."""
        known = self._product_shortest
        if any(p == DEAD and not no for p, no in zip(parts, self._negated(product), strict=True)):
            return NEVER
        if (product, parts) in known:
            return known[product, parts]
        nearest = {parts: 0}  # the least depth of each found
        before: dict[tuple[int, ...], tuple[int, ...]] = {}
        open_ = [(self._bound(product, parts), 0, parts)]
        while open_:
            length, depth, here = heapq.heappop(open_)
            if nearest[here] < -depth:
                continue
            if (product, here) in known or self._parts_accept(product, here):
                while here != parts:
                    known[product, here] = length - nearest[here]
                    here = before[here]
                known[product, parts] = length
                return length
            self.spend(4 * self.num_classes)
            for byte in self._spelled_class_bytes:
                reached = self._step_parts(product, here, byte)
                if reached is None or nearest.get(reached, NEVER) <= 1 - depth:
                    continue
                nearest[reached], before[reached] = 1 - depth, here
                rest = known.get((product, reached), self._bound(product, reached))
                if rest < NEVER:
                    heapq.heappush(open_, (1 - depth + rest, depth - 1, reached))
            if len(nearest) > _MOST_PRODUCT_STATES:
                raise LimitExceeded(f"it needs more than {_MOST_PRODUCT_STATES} states")
        known.update({(product, here): NEVER for here in nearest})
        return NEVER

    def _bound(self, product: int, parts: tuple[int, ...]) -> int:
        """As many bytes at least are to come."""
        pairs = zip(parts, self._negated(product), strict=True)
        return max((self.shortest(part) for part, negated in pairs if not negated), default=0)


def _lists(begins: np.ndarray, flat: list) -> list[list]:  # type: ignore[type-arg]
    cuts = begins.tolist()
    return [flat[a:b] for a, b in zip(cuts, cuts[1:], strict=False)]


def _byte_classes(program: Program) -> tuple[list[int], int]:
    """Bytes that no state tells apart share a class; classes ascend with the bytes."""
    cuts = np.zeros(257, np.bool_)
    cuts[program.edge[:, 0]] = True
    cuts[program.edge[:, 1] + 1] = True
    if (program.kind == Kind.UNIQUE).any():
        cuts[:] = True  # the texts of unique items are told apart by every byte
    cuts[0] = False
    classes = np.cumsum(cuts[:256])
    return classes.tolist(), int(classes[-1]) + 1
