"""Languages of a `Builder`'s states by the definition of each step, and random builders.

Owns: the oracle of these tests. It lists all texts up to a length; no automaton, no cleverness.
"""

import itertools

from hypothesis import strategies as st

from sapwood.constrained.limits import CompileLimits, Meter
from sapwood.constrained.pushdown.builder import (
    FINAL,
    Builder,
    Call,
    Collection,
    Member,
    Part,
    Product,
    Repeat,
    Unique,
)

Language = frozenset[bytes]

SIGNS = b"ab,"
LONGEST = 4


class ShownBuilder(Builder):
    """Says what it is made of, for a failing test's message."""

    def __repr__(self) -> str:
        operations, jumps = self.operations, self.jumps
        states = {
            n: operations.get(n, (*e, *jumps.get(n, ()))) for n, e in enumerate(self.edges) if n
        }
        return f"rules {self.starts}, states {states}"


def new_builder() -> Builder:
    return ShownBuilder(Meter(CompileLimits()))


def all_texts(longest: int = LONGEST) -> list[bytes]:
    """Every text over SIGNS, shorter ones first."""
    return [
        bytes(text) for size in range(longest + 1) for text in itertools.product(SIGNS, repeat=size)
    ]


def language(builder: Builder, rule: int, longest: int = LONGEST) -> Language:
    """The texts over SIGNS, up to a length, that a rule reads."""
    return _Languages(builder, longest).of[builder.starts[rule]]


class _Languages:
    """of[s]: the texts from state s to the end of its rule; the least sets that agree."""

    def __init__(self, builder: Builder, longest: int) -> None:
        self.builder, self.longest = builder, longest
        self.of: list[Language] = [frozenset() for _ in builder.edges]
        self.of[FINAL] = frozenset([b""])
        # A product is no monotone step: it is settled after those that its parts may hold.
        self.agreed: dict[int, Language] = {}
        self.settle()
        for state, operation in builder.operations.items():
            if isinstance(operation, Product):
                parts = [(self.rule(part.rule), part.negated) for part in operation.parts]
                self.agreed[state] = frozenset(
                    text
                    for text in all_texts(longest)
                    if all((text in read) != negated for read, negated in parts)
                )
                self.settle()

    def settle(self) -> None:
        changed = True
        while changed:
            changed = False
            for state in range(1, len(self.of)):
                found = self.read(state)
                changed |= found != self.of[state]
                self.of[state] = found

    def rule(self, rule: int) -> Language:
        return self.of[self.builder.starts[rule]]

    def read(self, state: int) -> Language:
        operation = self.builder.operations.get(state)
        if operation is not None:
            return self.joined(self.inner(state, operation), self.of[operation.then])
        found = set[bytes]().union(
            *(self.of[target] for target in self.builder.jumps.get(state, ()))
        )
        for low, high, target in self.builder.edges[state]:
            signs = [bytes([sign]) for sign in SIGNS if low <= sign <= high]
            found |= self.joined(signs, self.of[target])
        return frozenset(found)

    def inner(self, state: int, operation) -> Language:
        match operation:
            case Call(rule):
                return self.rule(rule)
            case Repeat(rule, low, high):
                return self.counted([self.rule(rule)] * (self.longest + 1), low, high)
            case Product():
                return self.agreed.get(state, frozenset())
            case Collection():
                return self.collected(operation)
            case Unique(item, comma, low, high):
                return self.differing(self.rule(item), self.rule(comma), low, high)

    def joined(self, first, second) -> Language:
        return frozenset(a + b for a in first for b in second if len(a + b) <= self.longest)

    def counted(self, parts: list[Language], low: int, high: int | None) -> Language:
        """Each text of a part has at least one byte, so more than so many parts are too long."""
        found, so_far = set[bytes](), frozenset([b""])
        for count, part in enumerate([*parts, frozenset[bytes]()]):
            if count >= low and (high is None or count <= high):
                found |= so_far
            so_far = self.joined(so_far, part - {b""})
        return frozenset(found)

    def collected(self, collection: Collection) -> Language:
        comma = self.rule(collection.comma)
        texts = [self.rule(member.rule) for member in collection.members]
        found: set[bytes] = set()

        def extend(items: tuple[int, ...], read: Language) -> None:
            if not read:
                return
            if fits(collection, items):
                found.update(read)
            for member, text in enumerate(texts):
                before = self.joined(read, comma) if items else read
                extend((*items, member), self.joined(before, text))

        extend((), frozenset([b""]))
        return frozenset(found)

    def differing(self, item: Language, comma: Language, low: int, high: int | None) -> Language:
        found: set[bytes] = set()

        def extend(items: tuple[bytes, ...], read: Language) -> None:
            if not read or (high is not None and len(items) > high):
                return
            if len(items) >= low:
                found.update(read)
            for text in item - set(items):
                before = self.joined(read, comma) if items else read
                extend((*items, text), self.joined(before, [text]))

        extend((), frozenset([b""]))
        return frozenset(found)


def fits(collection: Collection, items: tuple[int, ...]) -> bool:
    """Whether a collection may hold these members in this order."""
    raised = [collection.members[item].counter for item in items]
    return (
        (not collection.ordered or list(items) == sorted(items))
        and all(items.count(i) <= 1 for i, m in enumerate(collection.members) if m.once)
        and collection.required <= set(items)
        and all(second in items for first, second in collection.needs if first in items)
        and collection.low <= len(items)
        and (collection.high is None or len(items) <= collection.high)
        and all(
            low <= raised.count(number) and (high is None or raised.count(number) <= high)
            for number, (low, high) in enumerate(collection.counters)
        )
    )


# Random builders. An expression is a function from (builder, then) to a state.

COUNTS = st.tuples(st.integers(0, 3), st.none() | st.integers(0, 3)).map(
    lambda c: (c[0], None if c[1] is None else c[0] + c[1])
)
TEXTS = st.text("ab", max_size=3).map(lambda text: lambda b, then: b.text(text.encode(), then))
SOME = st.text("ab", min_size=1, max_size=2).map(
    lambda text: lambda b, then: b.text(text.encode(), then)
)
WORDS = st.sets(st.text("ab,", max_size=3), min_size=1, max_size=4).map(
    lambda words: lambda b, then: b.one_of([word.encode() for word in words], then)
)
RANGES = st.sampled_from([((97, 98),), ((44, 97),), ((0x61, 0x61), (0xE9, 0x1F600))]).map(
    lambda ranges: lambda b, then: b.character(ranges, then)
)


def _either(options):
    return lambda b, then: b.either([option(b, then) for option in options])


def _sequence(parts):
    def build(b, then):
        for part in reversed(parts):
            then = part(b, then)
        return then

    return build


def _star(body):
    def build(b, then):
        loop = b.loop()
        return b.close_loop(loop, body(b, loop), then)

    return build


def _repeat(body, counts):
    low, high = counts
    return lambda b, then: b.repeat(b.rule(body(b, FINAL)), low, high, then)


def _call(body):
    return lambda b, then: b.call(b.rule(body(b, FINAL)), then)


def _product(parts, negated):
    def build(b, then):
        rules = [b.rule(part(b, FINAL)) for part in parts]
        marked = [Part(rule, no) for rule, no in zip(rules, [False, *negated], strict=False)]
        return b.product(marked, then)

    return build


def nonempty(inner):
    """Expressions that read at least one byte."""
    return SOME | st.tuples(SOME, inner).map(_sequence)


def regular(inner):
    return st.one_of(
        st.lists(inner, min_size=1, max_size=3).map(_either),
        st.lists(inner, min_size=2, max_size=3).map(_sequence),
        inner.map(_star),
        inner.map(_call),
        st.tuples(nonempty(inner), COUNTS).map(lambda r: _repeat(*r)),
        st.tuples(
            st.lists(inner, min_size=1, max_size=3), st.tuples(st.booleans(), st.booleans())
        ).map(lambda r: _product(*r)),
    )


REGULAR = st.recursive(TEXTS | WORDS | RANGES, regular, max_leaves=6)
LETTERS = st.recursive(TEXTS | WORDS, regular, max_leaves=3)


@st.composite
def collections(draw, items):
    bodies = draw(st.lists(nonempty(items), min_size=1, max_size=4))
    counters = tuple(draw(st.lists(COUNTS, max_size=2)))
    members = [
        (draw(st.booleans()), draw(st.integers(-1, len(counters) - 1)) if counters else -1)
        for _ in bodies
    ]
    single = [number for number, (once, _) in enumerate(members) if once]
    pairs = st.tuples(st.sampled_from(single), st.sampled_from(single)) if single else st.nothing()
    required = draw(st.frozensets(st.sampled_from(single), max_size=2)) if single else frozenset()
    needs = tuple(draw(st.lists(pairs, max_size=3, unique=True))) if single else ()
    ordered, (low, high) = draw(st.booleans()), draw(st.just((0, None)) | COUNTS)
    sign = draw(st.sampled_from([b",", b",", b"a", b",,"]))

    def build(b, then):
        listed = tuple(
            Member(b.rule(body(b, FINAL)), once, -1 if once else counter)
            for body, (once, counter) in zip(bodies, members, strict=True)
        )
        comma = b.rule(b.text(sign, FINAL))
        return b.collect(
            Collection(listed, comma, ordered, then, required, needs, low, high, counters)
        )

    return build


@st.composite
def uniques(draw):
    """Of few letters: each text of an item makes configurations of its own."""
    item, (low, high) = draw(nonempty(LETTERS)), draw(COUNTS)
    sign = draw(st.sampled_from([b",", b",", b"a"]))

    def build(b, then):
        comma = b.rule(b.text(sign, FINAL))
        return b.unique(Unique(b.rule(item(b, FINAL)), comma, low, high, then))

    return build


def _grown(inner):
    return regular_but_products(inner) | collections(inner)


def regular_but_products(inner):
    return st.one_of(
        st.lists(inner, min_size=1, max_size=3).map(_either),
        st.lists(inner, min_size=2, max_size=3).map(_sequence),
        inner.map(_star),
        inner.map(_call),
        st.tuples(nonempty(inner), COUNTS).map(lambda r: _repeat(*r)),
    )


PLAIN = REGULAR | collections(REGULAR)


@st.composite
def builders(draw, operations=PLAIN):
    """A builder and a rule; parts of it may call that rule again, each after a byte of its own."""
    builder = new_builder()
    root = builder.declare()
    again = st.tuples(SOME, st.just(lambda b, then: b.call(root, then))).map(_sequence)
    body = draw(st.recursive(operations | again, _grown, max_leaves=4))
    builder.define(root, body(builder, FINAL))
    return builder, root
