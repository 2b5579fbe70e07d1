"""Lowering of a regex tree without anchors; knows no syntax.

Large counts become a rule that a `Repeat` counts, so no count makes a machine large.
"""

from collections.abc import Callable
from typing import Final

from ..code_points import ALL, Ranges
from ..errors import Unsupported
from ..pushdown.builder import FINAL, Builder, Part, Product
from ..utf8 import byte_dag
from .tree import Characters, Either, Look, Node, Repeated, Sequence, literal, nonempty

WriteCharacter = Callable[[Builder, Ranges, int], int]
"""How one character of a set is written: returns the state that reads it and goes on."""

UNROLLED: Final = 64
"""A repetition that needs more states than this, written out, is counted instead."""


class Lowering:
    """Lowers the parts of one regex, all of which outlive it: they are known by identity.

    open_loops: unbounded repetitions around the part in work.
    """

    def __init__(self, builder: Builder, write: WriteCharacter) -> None:
        self.builder = builder
        self.open_loops = 0
        self._write = write
        self._anything: int | None = None
        self._rules: dict[int, int] = {}
        self._sizes: dict[int, int] = {}
        self._bodies: dict[int, tuple[Node, int]] = {}

    def lower(self, node: Node, then: int) -> int:
        """The state that reads `node`, which has no anchors, and goes on to `then`."""
        if isinstance(node, Characters):
            return self.character(node.ranges, then)
        if isinstance(node, Sequence):
            for part in reversed(node.parts):
                then = self.lower(part, then)
            return then
        if isinstance(node, Either):
            return self._either(node, then)
        if isinstance(node, Repeated):
            return self._repeated(node, then)
        assert isinstance(node, Look)
        self.refuse_look_in_loop()
        if then == FINAL and node.body.bare:  # nothing is left to look at
            return FINAL if node.body.nullable != node.negated else self.builder.nothing()
        return self.look(self.lower(node.body, self.anything()), node.negated, then)

    def character(self, ranges: Ranges, then: int) -> int:
        return self._write(self.builder, ranges, then) if ranges else self.builder.nothing()

    def _either(self, node: Either, then: int) -> int:
        words = {word for option in node.options if (word := _word(option)) is not None}
        if len(words) < 2:
            return self.builder.either([self.lower(option, then) for option in node.options])
        rest = [self.lower(option, then) for option in node.options if _word(option) is None]
        return self.builder.either([self._one_of(words, then), *rest])

    def _one_of(self, words: set[str], then: int) -> int:
        """One of many texts; those that begin alike share their beginning."""
        beginnings = {word[:length] for word in words for length in range(len(word) + 1)}
        follows: dict[str, list[int]] = {text: [] for text in beginnings}
        for text in sorted(beginnings, key=lambda text: (-len(text), text)):
            if text in words:
                follows[text].append(then)
            state = self.builder.either(follows[text])
            if text:
                follows[text[:-1]].append(self.character(literal(ord(text[-1])).ranges, state))
        return state

    def _repeated(self, node: Repeated, then: int) -> int:
        body, low, high = node.body, node.low, node.high
        if high is None:
            loop = self.builder.loop()
            self.open_loops += 1
            again = self.lower(body, loop)
            self.open_loops -= 1
            self.builder.close_loop(loop, again, then)
            if low == 0:
                return loop
            then, low, high = again, low - 1, low - 1
        if self.is_counted(body, high):
            _, rule, low = self.counted(body, low)
            return self.builder.repeat(rule, low, high, then)
        after = then
        for _ in range(high - low):
            self.builder.meter.add()
            then = self.builder.either([self.lower(body, then), after])
        for _ in range(low):
            self.builder.meter.add()
            then = self.lower(body, then)
        return then

    # Counting

    def is_counted(self, body: Node, times: int) -> bool:
        """Whether a rule for `body` is repeated, rather than `body` written out."""
        return times > 1 and body.bare and self._size(body) * times > UNROLLED

    def counted(self, body: Node, low: int) -> tuple[Node, int, int]:
        """What is counted in place of `body`, as tree and as rule, and how often at least: each
        time it reads something, so that no machine counts what it cannot see."""
        if id(body) not in self._bodies:
            counted = nonempty(body)
            self._bodies[id(body)] = (counted, self.rule(self.lower(counted, FINAL)))
        counted, rule = self._bodies[id(body)]
        return counted, rule, 0 if body.nullable else low

    def _size(self, node: Node) -> int:
        """About how many states `node` needs."""
        if id(node) not in self._sizes:
            self._sizes[id(node)] = self._measure(node)
        return self._sizes[id(node)]

    def _measure(self, node: Node) -> int:
        if isinstance(node, Characters):
            return len(byte_dag(node.ranges)) if node.ranges else 1
        if isinstance(node, Repeated):
            times = node.low + 1 if node.high is None else node.high
            size = self._size(node.body)
            return 1 + size if self.is_counted(node.body, times) else size * times
        return 1 + sum(self._size(child) for child in node.children)

    # Lookahead

    def anything(self) -> int:
        """The state that reads any text."""
        if self._anything is None:
            self._anything = self.builder.loop()
            again = self.character(ALL, self._anything)
            self.builder.close_loop(self._anything, again, FINAL)
        return self._anything

    def look(self, start: int, negated: bool, then: int) -> int:
        """The state that reads what `then` reads, up to FINAL, if `start` reads it too (negated:
        does not)."""
        ahead = Part(self.rule(start), negated)
        rest = self.builder.operations.get(then)
        if isinstance(rest, Product) and rest.then == FINAL:
            return self.builder.product((*rest.parts, ahead), FINAL)
        return self.builder.product((Part(self.rule(then)), ahead), FINAL)

    def refuse_look_in_loop(self) -> None:
        if self.open_loops:
            raise Unsupported("lookahead inside an unbounded repetition is not supported")

    def rule(self, start: int) -> int:
        """The rule that begins at `start`."""
        if start not in self._rules:
            self._rules[start] = self.builder.rule(start)
        return self._rules[start]


def _word(node: Node) -> str | None:
    """The text that a node reads, if it is one, and short."""
    parts = node.parts if isinstance(node, Sequence) else (node,)
    if len(parts) > _LONGEST_WORD:
        return None
    letters: list[str] = []
    for part in parts:
        if not (isinstance(part, Characters) and len(part.ranges) == 1):
            return None
        ((low, high),) = part.ranges
        if low != high:
            return None
        letters.append(chr(low))
    return "".join(letters)


_LONGEST_WORD: Final = 64
