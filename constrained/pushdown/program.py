"""A finished machine as flat tables: immutable, picklable, shared; knows nothing of how it is run.

The C++ side reads the same arrays, so their order and types are part of its interface.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from itertools import chain
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ..errors import GrammarError
from .builder import FINAL, Builder, Call, Collection, Operation, Product, Repeat, Unique

NO_BOUND: Final = -1
"""In the place of an upper bound."""


class Kind(IntEnum):
    """What a state does besides reading bytes."""

    PLAIN = 0
    CALL = 1
    REPEAT = 2
    PRODUCT = 3
    COLLECTION = 4
    UNIQUE = 5


# As plain ints, which numpy takes several times faster.
_CALL, _REPEAT, _PRODUCT, _COLLECTION, _UNIQUE = (kind.value for kind in list(Kind)[1:])


@dataclass(frozen=True, eq=False)
class Program:
    """All int32. Lists of lists are a flat array and where each list begins.

    edge_begin [states + 1], edge [edges, 3]: low byte, high byte and target of what each state
    reads, by ascending bytes; jump_begin [states + 1], jump_target: its empty steps;
    kind [states]; operands [states, 5]: CALL rule, then; REPEAT rule, then, low, high; PRODUCT
    number, then; COLLECTION number, then; UNIQUE rule, then, low, high, comma;
    root [1]: the rule of the whole text; rule_start [rules];
    part_begin [products + 1], part [parts, 2]: rule and whether it is negated, by product;
    collection [collections, 4]: comma, ordered, low, high;
    member_begin [collections + 1], member [members, 4]: rule, once, counter, required;
    need_begin [collections + 1], need [needs, 2]: members;
    counter_begin [collections + 1], counter [counters, 2]: low, high.
    """

    root: NDArray[np.int32]
    edge_begin: NDArray[np.int32]
    edge: NDArray[np.int32]
    jump_begin: NDArray[np.int32]
    jump_target: NDArray[np.int32]
    kind: NDArray[np.int32]
    operands: NDArray[np.int32]
    rule_start: NDArray[np.int32]
    part_begin: NDArray[np.int32]
    part: NDArray[np.int32]
    collection: NDArray[np.int32]
    member_begin: NDArray[np.int32]
    member: NDArray[np.int32]
    need_begin: NDArray[np.int32]
    need: NDArray[np.int32]
    counter_begin: NDArray[np.int32]
    counter: NDArray[np.int32]

    @property
    def num_states(self) -> int:
        return len(self.kind)

    @property
    def arrays(self) -> list[NDArray[np.int32]]:
        return list(vars(self).values())

    @property
    def num_bytes(self) -> int:
        return sum(array.nbytes for array in self.arrays)


def finish(builder: Builder, rule: int) -> Program:
    """The program whose text is read by `rule`.

    No rule may call itself before it has read anything: where that is not plain, see
    `refuse_left_recursion`.
    """
    states = len(builder.edges)
    products: list[Product] = []
    collections: list[Collection] = []
    encoded = [_encoded(each, products, collections) for each in builder.operations.values()]
    kind = np.zeros(states, np.int32)
    operands = np.zeros((states, 5), np.int32)
    if encoded:
        table = _flat(encoded).reshape(-1, 6)
        where = list(builder.operations)
        kind[where], operands[where] = table[:, 0], table[:, 1:]
    jump_begin, jump_target = _sparse(builder.jumps, states)
    return Program(
        np.array([rule], np.int32),
        _begins(builder.edges),
        _flat(chain.from_iterable(builder.edges)).reshape(-1, 3),
        jump_begin,
        jump_target,
        kind,
        operands,
        np.array(builder.starts, np.int32),
        _begins([p.parts for p in products]),
        _table([part for p in products for part in p.parts], 2),
        _table([(c.comma, c.ordered, c.low, _bound(c.high)) for c in collections], 4),
        _begins([c.members for c in collections]),
        _table(
            [
                (m.rule, m.once, m.counter, number in c.required)
                for c in collections
                for number, m in enumerate(c.members)
            ],
            4,
        ),
        _begins([c.needs for c in collections]),
        _table([need for c in collections for need in c.needs], 2),
        _begins([c.counters for c in collections]),
        _table([(low, _bound(high)) for c in collections for low, high in c.counters], 2),
    )


def _encoded(
    operation: Operation, products: list[Product], collections: list[Collection]
) -> tuple[int, int, int, int, int, int]:
    """Its kind and operands."""
    if isinstance(operation, Call):
        return _CALL, operation.rule, operation.then, 0, 0, 0
    if isinstance(operation, Repeat):
        rule, low, high, then = operation
        return _REPEAT, rule, then, low, _bound(high), 0
    if isinstance(operation, Unique):
        rule, comma, low, high, then = operation
        return _UNIQUE, rule, then, low, _bound(high), comma
    if isinstance(operation, Product):
        products.append(operation)
        return _PRODUCT, len(products) - 1, operation.then, 0, 0, 0
    collections.append(operation)
    return _COLLECTION, len(collections) - 1, operation.then, 0, 0, 0


def _bound(high: int | None) -> int:
    return NO_BOUND if high is None else high


def _begins(lists: Sequence[Sequence[object]]) -> NDArray[np.int32]:
    begins = np.zeros(len(lists) + 1, np.int32)
    np.cumsum(np.fromiter(map(len, lists), np.int32, len(lists)), out=begins[1:])
    return begins


def _sparse(
    lists: dict[int, tuple[int, ...]], count: int
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Lists of which most are empty: where each begins, and all of them."""
    begins = np.zeros(count + 1, np.int32)
    where = sorted(lists)
    found = [lists[number] for number in where]
    begins[1:][where] = list(map(len, found))
    return np.cumsum(begins, dtype=np.int32), _flat(found)


def _flat(lists: Iterable[Iterable[int]]) -> NDArray[np.int32]:
    return np.fromiter(chain.from_iterable(lists), np.int32)


def _table(rows: Sequence[tuple[int, ...]], width: int) -> NDArray[np.int32]:
    return np.array(rows, np.int32).reshape(-1, width)


def refuse_left_recursion(builder: Builder) -> None:
    """Raises GrammarError where a rule may call itself before it has read anything: it would be
    called without end."""
    may_be_empty = _empty_rules(builder)
    first = [_first_calls(builder, rule, may_be_empty) for rule in range(len(builder.starts))]
    done: set[int] = set()
    for root in range(len(first)):
        path: dict[int, None] = {}
        stack: list[tuple[int, bool]] = [(root, False)]
        while stack:
            rule, leaves = stack.pop()
            if leaves:
                del path[rule]
                done.add(rule)
            elif rule in path:
                raise GrammarError("a rule calls itself before it has read anything")
            elif rule not in done:
                path[rule] = None
                stack.append((rule, True))
                stack.extend((called, False) for called in first[rule])


def _empty_rules(builder: Builder) -> set[int]:
    """The rules that may end without a byte."""
    known: set[int] = set()
    while True:
        more = {
            rule
            for rule in range(len(builder.starts))
            if rule not in known and FINAL in _reach_empty(builder, rule, known)[0]
        }
        if not more:
            return known
        known |= more


def _first_calls(builder: Builder, rule: int, may_be_empty: set[int]) -> set[int]:
    return _reach_empty(builder, rule, may_be_empty)[1]


def _reach_empty(builder: Builder, rule: int, may_be_empty: set[int]) -> tuple[set[int], set[int]]:
    """The states that are reached without a byte, and the rules called on the way."""
    seen: set[int] = set()
    called: set[int] = set()
    stack = [builder.starts[rule]]
    while stack:
        state = stack.pop()
        if state in seen:
            continue
        seen.add(state)
        stack += builder.jumps.get(state, ())
        match builder.operations.get(state):
            case Call(rule=inner, then=then):
                called.add(inner)
                if inner in may_be_empty:
                    stack.append(then)
            case Repeat(rule=inner, then=then, low=low):
                called.add(inner)
                if low == 0:
                    stack.append(then)
            case Product(parts=parts, then=then):
                if all((part.rule in may_be_empty) != part.negated for part in parts):
                    stack.append(then)
            case Unique(item=inner, then=then, low=low):
                called.add(inner)
                if low == 0:
                    stack.append(then)
            case Collection(members=members, then=then) as collection:
                called |= {member.rule for member in members}
                if not collection.low and not collection.required:
                    if all(low == 0 for low, _ in collection.counters):
                        stack.append(then)
    return seen, called
