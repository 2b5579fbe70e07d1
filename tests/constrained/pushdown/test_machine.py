"""The pushdown machine in Python, against languages listed by definition."""

import importlib.util
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

from sapwood.constrained.errors import GrammarError
from sapwood.constrained.pushdown.builder import FINAL, Collection, Member, Part, Unique
from sapwood.constrained.pushdown.machine import DEAD, Machine
from sapwood.constrained.pushdown.program import Kind, finish, refuse_left_recursion

naive = importlib.util.module_from_spec(
    spec := importlib.util.spec_from_file_location("naive", Path(__file__).with_name("naive.py"))
)
spec.loader.exec_module(naive)

SLOW = settings(
    deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)


def walk(machine: Machine, text: bytes) -> int:
    here = machine.start
    for byte in text:
        if here == DEAD:
            return DEAD
        here = machine.step(here, byte)
    return here


def accepts(machine: Machine, text: bytes) -> bool:
    here = walk(machine, text)
    return here != DEAD and machine.accepting(here)


@settings(SLOW, max_examples=200)
@given(naive.builders() | naive.builders(naive.uniques()))
def test_what_is_accepted_is_the_language(made):
    builder, root = made
    refuse_left_recursion(builder)
    program = finish(builder, root)
    machine = Machine(program)
    expected = naive.language(builder, root)
    is_exact = Kind.UNIQUE not in program.kind
    telling = [machine.byte_class.index(each) for each in range(machine.num_classes)]
    for text in naive.all_texts():
        here = walk(machine, text)
        assert (here != DEAD and machine.accepting(here)) == (text in expected), text
        longer = [len(other) - len(text) for other in expected if other.startswith(text)]
        if here == DEAD:
            assert not longer, text
            continue
        # The end is never out of reach: some byte leads nearer to it.
        shortest = machine.shortest(here)
        assert (shortest == 0) == machine.accepting(here)
        after = {machine.step(here, byte) for byte in telling} - {DEAD}
        assert shortest == 0 or min(map(machine.shortest, after)) < shortest, text
        if longer or shortest + len(text) <= naive.LONGEST:
            best = min(longer)
            assert best == shortest if is_exact else best <= shortest, text


def machine(build) -> Machine:
    """Of the rule that begins at the state which `build` makes."""
    builder = naive.new_builder()
    return Machine(finish(builder, builder.rule(build(builder))))


def collected(*members: tuple[bytes, bool], ordered: bool = False, **more) -> Machine:
    def build(b):
        listed = tuple(
            Member(b.rule(b.text(text, FINAL)), once, counter)
            for text, once, counter in (((*m, -1) if len(m) == 2 else m) for m in members)
        )
        comma = b.rule(b.text(b",", FINAL))
        return b.collect(Collection(listed, comma, ordered, FINAL, **more))

    return machine(build)


ABC = ((b"a", True), (b"b", True), (b"c", True))

# machine, what it accepts, what it refuses, fewest bytes from the start
TABLE = {
    "any order": (collected(*ABC), ["", "a", "c,a", "b,a,c"], ["a,a", ",", "a,", "d"], 0),
    "as listed": (collected(*ABC, ordered=True), ["", "a,c", "a,b,c"], ["b,a", "c,a", "a,a"], 0),
    "required": (
        collected(*ABC, ordered=True, required=frozenset([1])),
        ["b", "a,b", "b,c"],
        ["", "a", "c", "a,c"],
        1,
    ),
    "needs": (
        collected(*ABC, needs=((0, 1), (1, 2))),
        ["", "c", "b,c", "a,c,b", "c,b"],
        ["a", "b", "a,b", "a,c"],
        0,
    ),
    "needs that go back": (
        collected(*ABC, ordered=True, needs=((2, 0),)),
        ["a,c", "b", "a,b"],
        ["c", "b,c"],
        0,
    ),
    "how many": (collected(*ABC, low=2, high=2), ["a,b", "c,a"], ["a", "a,b,c"], 3),
    "a cheap one that needs too many": (
        collected((b"a", True), (b"b", True), (b"ccccc", True), needs=((0, 1),), low=1, high=1),
        ["b", "ccccc"],
        ["a", "a,b"],
        1,
    ),
    "needs in a circle": (
        collected(
            (b"a", True), (b"b", True), (b"ccc", True), needs=((0, 1), (1, 0)), low=1, high=1
        ),
        ["ccc"],
        ["a", "b", "a,b"],
        3,
    ),
    "often": (collected((b"a", True), (b"b", False)), ["b,b,a,b", "a,b"], ["a,b,a"], 0),
    "often and as listed": (
        collected((b"a", False), (b"b", True), (b"c", False), ordered=True),
        ["a,a,b,c,c", "c"],
        ["a,b,b", "b,a"],
        0,
    ),
    "counters": (
        collected((b"a", False, 0), (b"b", False), counters=((1, 2),)),
        ["a", "b,a,b", "a,b,a"],
        ["", "b", "a,a,a"],
        1,
    ),
    "a counter that cannot be passed over": (
        collected((b"a", False, 0), (b"b", True), ordered=True, counters=((1, None),)),
        ["a", "a,a,b"],
        ["", "b", "b,a"],
        1,
    ),
    "two members of one counter": (
        collected((b"a", False, 0), (b"bb", False, 0), (b"c", False), low=2, counters=((1, 1),)),
        ["a,c", "c,bb", "c,c,a"],
        ["a,bb", "c,c", "a"],
        3,
    ),
    "neither": (
        machine(
            lambda b: b.product(
                [
                    Part(b.rule(b.one_of([b"a", b"ab", b"b"], FINAL))),
                    Part(b.rule(b.text(b"a", FINAL)), negated=True),
                ],
                b.text(b"!", FINAL),
            )
        ),
        ["ab!", "b!"],
        ["a!", "ab", "!"],
        2,
    ),
    "unique": (
        machine(
            lambda b: b.unique(
                Unique(
                    b.rule(b.one_of([b"a", b"ab", b"b"], FINAL)),
                    b.rule(b.text(b",", FINAL)),
                    2,
                    None,
                    b.text(b"!", FINAL),
                )
            )
        ),
        ["a,b!", "ab,a!", "b,ab,a!"],
        ["a!", "a,a!", "b,ab,b!", "a,b,ab,!"],
        4,
    ),
}


@pytest.mark.parametrize("name", TABLE)
def test_operations(name):
    made, accepted, refused, shortest = TABLE[name]
    assert [text for text in accepted if not accepts(made, text.encode())] == []
    assert [text for text in refused if accepts(made, text.encode())] == []
    assert made.shortest(made.start) == shortest


@pytest.mark.parametrize(("low", "is_dead"), [(2, False), (3, True)])
def test_unique_items_of_which_there_are_too_few(low, is_dead):
    made = machine(
        lambda b: b.unique(
            Unique(
                b.rule(b.one_of([b"a", b"b"], FINAL)), b.rule(b.text(b",", FINAL)), low, 5, FINAL
            )
        )
    )
    assert (made.start == DEAD) == is_dead
    assert is_dead or walk(made, b"a,b,") == DEAD


def test_what_reads_nothing_is_never_entered():
    made = machine(lambda b: b.either([b.text(b"ab", b.nothing()), b.text(b"ac", FINAL)]))
    assert walk(made, b"a") != DEAD
    assert walk(made, b"ab") == DEAD
    assert machine(lambda b: b.nothing()).start == DEAD


@pytest.mark.parametrize("depth", [1, 50, 400])
def test_frames_nest(depth):
    builder = naive.new_builder()
    root = builder.declare()
    pair = [
        builder.text(opens, builder.call(root, builder.text(closes, FINAL)))
        for opens, closes in ((b"(", b")"), (b"[", b"]"))
    ]
    builder.define(root, builder.either([*pair, FINAL]))
    made = Machine(finish(builder, root))
    inside = b"([" * depth
    assert accepts(made, inside + b"])" * depth)
    assert made.shortest(walk(made, inside)) == 2 * depth
    for wrong in (
        inside + b"])" * (depth - 1),
        inside + b")",
        b"([" * depth + b"])" * depth + b")",
    ):
        assert not accepts(made, wrong)


def test_a_repetition_of_many_is_not_written_out():
    builder = naive.new_builder()
    body = builder.rule(builder.one_of([b"a", b"bc"], FINAL))
    made = Machine(finish(builder, builder.rule(builder.repeat(body, 500, 1000, FINAL))))
    assert len(builder.edges) < 10
    for count, expected in ((499, False), (500, True), (1000, True), (1001, False)):
        assert accepts(made, b"a" * count) == expected
        assert accepts(made, b"bc" * count) == expected
    assert made.shortest(made.start) == 500


@pytest.mark.parametrize(
    "build",
    [
        lambda b, rule: b.call(rule, b.text(b"a", FINAL)),
        lambda b, rule: b.either([FINAL, b.repeat(rule, 0, None, b.text(b"a", FINAL))]),
        lambda b, rule: b.call(b.rule(b.one_of([b"", b"a"], FINAL)), b.call(rule, FINAL)),
    ],
)
def test_a_rule_that_calls_itself_at_once_is_refused(build):
    builder = naive.new_builder()
    root = builder.declare()
    builder.define(root, build(builder, root))
    with pytest.raises(GrammarError, match="calls itself before it has read"):
        refuse_left_recursion(builder)
