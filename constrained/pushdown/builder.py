"""Putting a pushdown machine together, state by state; knows nothing of regexes or schemas.

A machine is a set of rules; a rule is a nondeterministic automaton over bytes with one start and
one end. Besides bytes and empty steps a state may call a rule, repeat one, read a collection of
them in any order, or read what several rules agree on. It is built from the end backwards: each
method takes the state `then` that follows, and returns the state that reads the new part and goes
on to `then`; parts with the same sequel share it.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Final, NamedTuple

from ..code_points import Ranges
from ..errors import LimitExceeded
from ..limits import Meter
from ..utf8 import DONE, byte_dag

FINAL: Final = 0
"""The state in which a rule ends: its caller goes on; in the first rule, the text may end."""

_MOST_PLANNED: Final = 200

Edges = tuple[tuple[int, int, int], ...]
"""(low byte, high byte, target), disjoint within one state."""


class Call(NamedTuple):
    rule: int
    then: int


class Repeat(NamedTuple):
    """`rule` from `low` to `high` times (None: without end). `rule` reads at least one byte."""

    rule: int
    low: int
    high: int | None
    then: int


class Part(NamedTuple):
    """A text that `rule` reads; `negated`: a text that it does not read. Rules of parts are
    regular: none calls itself, directly or not."""

    rule: int
    negated: bool = False


class Product(NamedTuple):
    """A text that all `parts` agree on, then `then`. At least one part is not negated."""

    parts: tuple[Part, ...]
    then: int


class Member(NamedTuple):
    """One kind of item. `once`: at most one of them; `counter`: the counter that it raises, or -1
    (not for one that comes `once`)."""

    rule: int
    once: bool
    counter: int = -1


class Collection(NamedTuple):
    """Items of several kinds with `comma` (a rule) between them, in any order or as listed.

    ordered: members come in their order, those that do not come `once` as often as they like;
    required: members (that come `once`) without which it does not end; needs: (member, member)
    pairs, the first of which does not come without the second; low, high: how many items in all;
    counters: least and most (None: no bound) for each counter.
    """

    members: tuple[Member, ...]
    comma: int
    ordered: bool
    then: int
    required: frozenset[int] = frozenset()
    needs: tuple[tuple[int, int], ...] = ()
    low: int = 0
    high: int | None = None
    counters: tuple[tuple[int, int | None], ...] = ()


class Unique(NamedTuple):
    """From `low` to `high` texts that `item` reads, `comma` (a rule) between them, no two of them
    equal. `item` is regular, as the rules of a product's parts are."""

    item: int
    comma: int
    low: int
    high: int | None
    then: int


Operation = Call | Repeat | Product | Collection | Unique


class Builder:
    """States and rules are numbers; written only by the compilation that owns it.

    edges[s]: what state s reads; jumps[s]: targets of its empty steps, if it has any;
    operations[s]: its call, if it has one (then it has neither of the others); starts[r]: where
    rule r begins.
    """

    def __init__(self, meter: Meter) -> None:
        self.meter = meter
        self.edges: list[Edges] = []
        self.jumps: dict[int, tuple[int, ...]] = {}
        self.operations: dict[int, Operation] = {}
        self.starts: list[int] = []
        self._characters: dict[tuple[Ranges, int], int] = {}
        self._known: dict[Operation, int] = {}
        self.state()

    # States

    def state(self, edges: Edges = (), jumps: tuple[int, ...] = ()) -> int:
        self.meter.add()
        number = len(self.edges)
        self.edges.append(edges)
        if jumps:
            self.jumps[number] = jumps
        return number

    def nothing(self) -> int:
        """A state from which nothing is accepted."""
        return self.state()

    def text(self, text: bytes, then: int) -> int:
        if not text:
            return then
        self.meter.add(len(text))
        first = len(self.edges)
        targets = (then, *range(first, first + len(text) - 1))
        self.edges += [((b, b, to),) for b, to in zip(reversed(text), targets, strict=True)]
        return len(self.edges) - 1

    def character(self, ranges: Ranges, then: int) -> int:
        """One character of a set, in UTF-8; the empty set gives a state like `nothing`."""
        key = (ranges, then)
        if key not in self._characters:
            if not ranges or ranges[-1][1] < 0x80:  # as they are, with no need of UTF-8
                self._characters[key] = self.state(tuple([(lo, hi, then) for lo, hi in ranges]))
                return self._characters[key]
            made: list[int] = []
            for node in byte_dag(ranges):
                edges = tuple([(lo, hi, then if c == DONE else made[c]) for lo, hi, c in node])
                made.append(self.state(edges))
            self._characters[key] = made[-1]
        return self._characters[key]

    def either(self, options: Iterable[int]) -> int:
        distinct = tuple(dict.fromkeys(options))
        return distinct[0] if len(distinct) == 1 else self.state(jumps=distinct)

    def loop(self) -> int:
        """A state to come back to; `close_loop` says where it leads."""
        return self.state()

    def close_loop(self, loop: int, *targets: int) -> int:
        self.jumps[loop] = targets
        return loop

    def one_of(self, texts: Iterable[bytes], then: int) -> int:
        """One of many texts, by a trie: deterministic, and linear in their total length."""
        words = sorted(set(texts))
        if words == [b""]:
            return then
        # The nodes with several ways on, from the root to the latest text: each its depth, its
        # edges and whether a text ends there. One becomes a state when no text will go through it.
        path: list[tuple[int, list[tuple[int, int, int]], bool]] = []
        for word, following in zip(words, [*words[1:], b""], strict=True):
            shared = _shared(word, following)
            if shared == len(word):
                path.append((shared, [], True))
                continue
            state, at = then, len(word)
            while path and path[-1][0] > shared:
                depth, edges, ends = path.pop()
                state = self._branch(word[depth:at], state, edges, then, ends=ends)
                at = depth
            if not path or path[-1][0] < shared:
                path.append((shared, [], False))
            edges = path[-1][1]
            edges.append((word[shared], word[shared], self.text(word[shared + 1 : at], state)))
        (_, edges, ends) = path[0] if path else (0, [], False)
        return self.state(tuple(edges), (then,) if ends else ())

    def _branch(
        self, way: bytes, to: int, edges: list[tuple[int, int, int]], then: int, *, ends: bool
    ) -> int:
        """The state of a node, with one last way on."""
        last = (way[0], way[0], self.text(way[1:], to))
        return self.state((*edges, last), (then,) if ends else ())

    # Operations

    def call(self, rule: int, then: int) -> int:
        return self._operation(Call(rule, then))

    def repeat(self, rule: int, low: int, high: int | None, then: int) -> int:
        if high == 0:
            return then
        return self._operation(Repeat(rule, low, high, then))

    def product(self, parts: Sequence[Part], then: int) -> int:
        if len(parts) == 1 and not parts[0].negated:
            return self.call(parts[0].rule, then)
        return self._operation(Product(tuple(parts), then))

    def collect(self, collection: Collection) -> int:
        # How they can end is planned member by member wherever one of them may come.
        lows = [low for low, _ in collection.counters]
        is_planned = bool(collection.needs or collection.counters)
        if max(lows, default=0) > _MOST_PLANNED or len(collection.needs) > _MOST_PLANNED:
            raise LimitExceeded(f"more than {_MOST_PLANNED} items or needs to plan for")
        if is_planned and max(collection.low, len(collection.members)) > _MOST_PLANNED:
            raise LimitExceeded(f"more than {_MOST_PLANNED} items or needs to plan for")
        return self._operation(collection)

    def unique(self, unique: Unique) -> int:
        return self._operation(unique)

    def _operation(self, operation: Operation) -> int:
        state = self._known.get(operation)
        if state is None:
            state = self._known[operation] = self.state()
            self.operations[state] = operation
        return state

    # Rules

    def rule(self, start: int) -> int:
        """A new rule that begins at `start` and ends where FINAL is reached."""
        self.starts.append(start)
        return len(self.starts) - 1

    def declare(self) -> int:
        """A rule that may be called before `define` says where it begins."""
        return self.rule(-1)

    def define(self, rule: int, start: int) -> None:
        self.starts[rule] = start

    def include(self, other: "Builder", rule: int) -> int:
        """A copy of another builder's rule, and of all that stands beside it."""
        self.meter.add(len(other.edges))
        shift, rules = len(self.edges) - 1, len(self.starts)

        def moved(state: int) -> int:
            return state + shift if state else FINAL

        self.edges += [
            tuple([(low, high, to + shift if to else FINAL) for low, high, to in edges])
            for edges in other.edges[1:]
        ]
        for state, jumps in other.jumps.items():
            self.jumps[state + shift] = tuple(map(moved, jumps))
        self.starts += map(moved, other.starts)
        for state, operation in other.operations.items():
            self.operations[moved(state)] = _moved(operation, moved, rules)
        return rule + rules


def _shared(a: bytes, b: bytes) -> int:
    """How many bytes two texts begin with alike."""
    at, most = 0, min(len(a), len(b))
    while at < most and a[at] == b[at]:
        at += 1
    return at


def _moved(operation: Operation, moved: Callable[[int], int], rules: int) -> Operation:
    then = moved(operation.then)
    match operation:
        case Call(rule) | Repeat(rule):
            return operation._replace(rule=rule + rules, then=then)
        case Product(parts):
            parts = tuple(part._replace(rule=part.rule + rules) for part in parts)
            return operation._replace(parts=parts, then=then)
        case Unique(item, comma):
            return operation._replace(item=item + rules, comma=comma + rules, then=then)
        case Collection(members, comma):
            members = tuple(member._replace(rule=member.rule + rules) for member in members)
            return operation._replace(members=members, comma=comma + rules, then=then)
