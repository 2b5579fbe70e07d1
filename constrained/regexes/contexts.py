r"""Lowering of a regex tree with anchors inside it; knows no syntax.

An anchor asks what stands before a position and after it. So characters are divided into the
cells that the anchors of a pattern tell apart, and instead of one state that follows a part there
is a `Place`: a state for each (before, after), which reads what may follow where `before` has just
been read, on the promise that `after` comes next. An anchor passes on the pairs in which it holds;
a character fixes `before` of what follows it and keeps the promise itself. So anchors cost no
operations and are exact in loops.
"""

from collections.abc import Iterable
from typing import Final

from ..code_points import ALL, Ranges, complement, intersection
from ..limits import Meter
from ..pushdown.builder import FINAL
from .plain import Lowering
from .sets import NEWLINE, category, no_boundary_in_empty_text
from .tree import (
    Ahead,
    Anchor,
    AnchorKind,
    Characters,
    Either,
    Look,
    Node,
    Repeated,
    Sequence,
    anchors,
)

EDGE: Final = 0
"""Before: nothing has been read. After: nothing follows. Cells are numbered from 1."""
ANY: Final = -1
"""After: no promise."""
LAST_NEWLINE: Final = -2
"""After: a newline, then the end."""

Place = dict[tuple[int, int], int]
"""(before, after) -> state; where nothing can follow there is none."""


class Contexts:
    """What the anchors of one tree tell apart."""

    def __init__(self, tree: Node, meter: Meter) -> None:
        found = dict.fromkeys(anchors(tree))
        kinds = {anchor.kind for anchor in found if isinstance(anchor, Anchor)}
        sets: dict[Ranges, None] = {}
        if kinds & _LINES:
            sets[NEWLINE] = None
        for anchor in found:
            if isinstance(anchor, Ahead):
                sets[anchor.ranges] = None
            elif anchor.kind in _WORDS:
                sets[category("w", anchor.ascii)] = None
        cells = [ALL]
        for split in sets:
            meter.add(len(cells))
            sides = (split, complement(split))
            cells = [part for cell in cells for side in sides if (part := intersection(cell, side))]
        self.cells = dict(enumerate(cells, 1))
        self.newline = self._containing(10)
        self.before = (EDGE, *self.cells)
        self.promises = (EDGE, *self.cells)
        if AnchorKind.END_OR_LAST_NEWLINE in kinds:
            self.promises += (LAST_NEWLINE,)
        self.keys = tuple((b, a) for b in self.before for a in (ANY, *self.promises))
        self._held: dict[tuple[Anchor | Ahead, int], list[int]] = {}

    def _containing(self, code_point: int) -> int:
        one = ((code_point, code_point),)
        return next(cell for cell, held in self.cells.items() if intersection(held, one))

    def promises_of(self, anchor: Anchor | Ahead, before: int) -> list[int]:
        """What may come next where the anchor holds after `before`."""
        found = self._held.get((anchor, before))
        if found is None:
            found = [after for after in self.promises if self._holds(anchor, before, after)]
            self._held[anchor, before] = found
        return found

    def _holds(self, anchor: Anchor | Ahead, before: int, after: int) -> bool:
        if isinstance(anchor, Ahead):
            return self._is_of(anchor.ranges, after) != anchor.negated
        kind = anchor.kind
        if kind is AnchorKind.START:
            return before == EDGE
        if kind is AnchorKind.LINE_START:
            return before in (EDGE, self.newline)
        if kind is AnchorKind.END:
            return after == EDGE
        if kind is AnchorKind.END_OR_LAST_NEWLINE:
            return after in (EDGE, LAST_NEWLINE)
        if kind is AnchorKind.LINE_END:
            return after in (EDGE, self.newline, LAST_NEWLINE)
        words = category("w", anchor.ascii)
        differ = self._is_of(words, before) != self._is_of(words, after)
        if kind is AnchorKind.BOUNDARY:
            return differ
        return not differ and not (before == after == EDGE and no_boundary_in_empty_text())

    def _is_of(self, ranges: Ranges, neighbour: int) -> bool:
        """Whether a neighbour is a character of a set, which is a union of cells."""
        if neighbour == EDGE:
            return False
        cell = self.cells[self.newline if neighbour == LAST_NEWLINE else neighbour]
        return bool(intersection(cell, ranges))


_LINES: Final = frozenset((AnchorKind.LINE_START, AnchorKind.LINE_END))
_WORDS: Final = frozenset((AnchorKind.BOUNDARY, AnchorKind.NOT_BOUNDARY))


class ContextualLowering:
    """Lowers one tree, in whose contexts it thinks."""

    def __init__(self, plain: Lowering, tree: Node) -> None:
        self._plain = plain
        self._builder = plain.builder
        self._contexts = Contexts(tree, plain.builder.meter)
        self._anything: Place | None = None

    def lower(self, tree: Node, then: int) -> int:
        """The state that reads `tree`, which is the whole text, and goes on to `then`."""
        end = {(b, a): then for b in self._contexts.before for a in (ANY, EDGE)}
        start = self._place(tree, end).get((EDGE, ANY))
        return self._builder.nothing() if start is None else start

    def _place(self, node: Node, then: Place) -> Place:
        self._builder.meter.add(1 + len(self._contexts.keys) // 10)
        if isinstance(node, Characters):
            return self._characters(node.ranges, then)
        if isinstance(node, Sequence):
            for part in reversed(node.parts):
                then = self._place(part, then)
            return then
        if isinstance(node, Either):
            return self._either([self._place(option, then) for option in node.options])
        if isinstance(node, Repeated):
            return self._repeated(node, then)
        if isinstance(node, Anchor | Ahead):
            return self._anchor(node, then)
        assert isinstance(node, Look)
        return self._look(node, then)

    def _characters(self, ranges: Ranges, then: Place) -> Place:
        by_promise: dict[int, int] = {}
        targets: set[int | None] = set()
        for cell, held in self._contexts.cells.items():
            if found := intersection(ranges, held):
                target = then.get((cell, ANY))
                targets.add(target)
                if target is not None:
                    by_promise[cell] = self._plain.character(found, target)
        if len(targets) == 1 and None not in targets:
            (target,) = targets
            assert target is not None
            by_promise[ANY] = self._plain.character(ranges, target)
        elif by_promise:
            by_promise[ANY] = self._builder.either(by_promise.values())
        ends = then.get((self._contexts.newline, EDGE))
        if ends is not None and intersection(ranges, NEWLINE):
            by_promise[LAST_NEWLINE] = self._plain.character(NEWLINE, ends)
        return {(b, a): state for b in self._contexts.before for a, state in by_promise.items()}

    def _either(self, options: Iterable[Place]) -> Place:
        joined: dict[tuple[int, int], list[int]] = {}
        for option in options:
            for key, state in option.items():
                joined.setdefault(key, []).append(state)
        return {key: self._builder.either(states) for key, states in joined.items()}

    def _anchor(self, anchor: Anchor | Ahead, then: Place) -> Place:
        found: Place = {}
        for before in self._contexts.before:
            held = self._contexts.promises_of(anchor, before)
            kept = {after: then[before, after] for after in held if (before, after) in then}
            if len(held) == len(self._contexts.promises) and (before, ANY) in then:
                kept[ANY] = then[before, ANY]
            elif kept:
                kept[ANY] = self._builder.either(kept.values())
            found |= {(before, after): state for after, state in kept.items()}
        return found

    def _look(self, node: Look, then: Place) -> Place:
        self._plain.refuse_look_in_loop()
        wanted = self._place(node.body, self._any_text())
        found: Place = {}
        for (before, after), state in then.items():
            start = wanted.get((before, ANY))
            if start is None:
                start = self._builder.nothing()
            found[before, after] = self._plain.look(start, node.negated, state)
        return found

    def _any_text(self) -> Place:
        """Any text after any character."""
        if self._anything is None:
            everything = self._plain.anything()
            by_promise = {ANY: everything, EDGE: FINAL}
            for cell, held in self._contexts.cells.items():
                by_promise[cell] = self._plain.character(held, everything)
            by_promise[LAST_NEWLINE] = self._plain.character(NEWLINE, FINAL)
            self._anything = {
                (b, a): state for b in self._contexts.before for a, state in by_promise.items()
            }
        return self._anything

    def _repeated(self, node: Repeated, then: Place) -> Place:
        body, low, high = node.body, node.low, node.high
        if high is None:
            then = self._loop(body, then)
            high = low
        if self._plain.is_counted(body, high):
            return self._counted(body, low, high, then)
        after = then
        for _ in range(high - low):
            then = self._either([self._place(body, then), after])
        for _ in range(low):
            then = self._place(body, then)
        return then

    def _loop(self, body: Node, then: Place) -> Place:
        loops = {key: self._builder.loop() for key in self._contexts.keys}
        self._plain.open_loops += 1
        again = self._place(body, loops)
        self._plain.open_loops -= 1
        for key, loop in loops.items():
            targets = {place[key] for place in (again, then) if key in place}
            self._builder.close_loop(loop, *sorted(targets - {loop}))
        return loops

    def _counted(self, body: Node, low: int, high: int, then: Place) -> Place:
        """The first and the last time stand in their contexts, those between are counted."""
        body, rule, low = self._plain.counted(body, low)
        last = self._place(body, then)
        options = [last] if low <= 1 else []
        if low == 0:
            options.append(then)
        if (EDGE, ANY) in last:  # what came before does not matter to what reads something
            between = self._builder.repeat(rule, max(low - 2, 0), high - 2, last[EDGE, ANY])
            again = {(before, ANY): between for before in self._contexts.before}
            options.append(self._place(body, again))
        return self._either(options)
