"""What a `Builder`'s states read, by the definition of each step: the oracle of these tests.

Owns: the ends at which a state may finish in a given text. Slow, and without any cleverness.
"""

from functools import cache

from sapwood.constrained.limits import CompileLimits, Meter
from sapwood.constrained.pushdown.builder import FINAL, Builder, Call, Product, Repeat


def new_builder(states: int = 200_000) -> Builder:
    return Builder(Meter(CompileLimits(states=states, seconds=60)))


def accepts(builder: Builder, start: int, text: bytes) -> bool:
    """Whether the text leads from `start` to FINAL."""
    return len(text) in ends(builder, start, text)(0)


def ends(builder: Builder, start: int, text: bytes):
    """A function from a position to those at which FINAL is reached from it."""

    @cache
    def reached(state: int, begin: int) -> frozenset[int]:
        found: set[int] = set()
        seen = {(state, begin)}
        work = [(state, begin)]
        while work:
            state, at = work.pop()
            if state == FINAL:
                found.add(at)
            for follows in steps(state, at):
                if follows not in seen:
                    seen.add(follows)
                    work.append(follows)
        return frozenset(found)

    def steps(state: int, at: int) -> list[tuple[int, int]]:
        operation = builder.operations.get(state)
        if isinstance(operation, Call):
            return [(operation.then, end) for end in rule(operation.rule, at)]
        if isinstance(operation, Repeat):
            return [(operation.then, end) for end in times(operation, at)]
        if isinstance(operation, Product):
            return [(operation.then, end) for end in agreed(operation, at)]
        assert operation is None
        follows = [(target, at) for target in builder.jumps.get(state, ())]
        if at < len(text):
            byte = text[at]
            follows += [(to, at + 1) for lo, hi, to in builder.edges[state] if lo <= byte <= hi]
        return follows

    def rule(number: int, at: int) -> frozenset[int]:
        return reached(builder.starts[number], at)

    def times(operation: Repeat, at: int) -> set[int]:
        found: set[int] = set()
        now, count = {at}, 0
        while now and (operation.high is None or count <= operation.high):
            if count >= operation.low:
                found |= now
            after = {end for begin in now for end in rule(operation.rule, begin)}
            assert not any(begin in rule(operation.rule, begin) for begin in now)
            now, count = after, count + 1
        return found

    def agreed(operation: Product, at: int) -> set[int]:
        assert not all(part.negated for part in operation.parts)
        return {
            end
            for end in range(at, len(text) + 1)
            if all((end in rule(part.rule, at)) != part.negated for part in operation.parts)
        }

    return lambda begin: reached(start, begin)
