"""From a regex to states of a pushdown machine that read its matches; knows no syntax.

A tree without anchors is lowered part by part (`plain`). One with anchors goes through `contexts`,
after those at its ends are dropped, which say nothing there.

Lookahead is a `Product`: of the text up to the end of its rule, the rest of the pattern reads all,
and what is looked for a beginning. So both end in FINAL: where more follows the regex in its rule,
a regex with lookahead is lowered into a rule of its own, which is called.
"""

from typing import Final

from ..code_points import Ranges
from ..errors import GrammarError
from ..pushdown.builder import FINAL, Builder
from .contexts import ContextualLowering
from .parse import Dialect, parse
from .plain import Lowering, WriteCharacter
from .tree import (
    EMPTY,
    Anchor,
    AnchorKind,
    Characters,
    Either,
    Node,
    Sequence,
    either,
    repeated,
    sequence,
)


def plain_character(builder: Builder, ranges: Ranges, then: int) -> int:
    """The character itself, in UTF-8."""
    return builder.character(ranges, then)


def add_regex(builder: Builder, regex: Node | str, then: int) -> int:
    """The state from which a full match of a regex (a str: as Python reads it) leads to `then`."""
    tree = parse(regex, Dialect.PYTHON) if isinstance(regex, str) else regex
    try:
        return _lower(builder, tree, plain_character, then)
    except RecursionError as error:
        raise GrammarError("the regex is nested too deeply") from error


def add_search(
    builder: Builder,
    regex: Node | str,
    write: WriteCharacter,
    any_character: Ranges,
    narrow: bool = True,
) -> int:
    """The state from which the texts of `any_character` in which a regex is found lead to FINAL,
    their characters as `write` writes them. (A str: as JSON Schema reads it; not `narrow` where it
    must not be found, see `parse`.)"""
    tree = parse(regex, Dialect.JSON, narrow) if isinstance(regex, str) else regex
    try:
        return _lower(builder, searching(tree, any_character), write, FINAL)
    except RecursionError as error:
        raise GrammarError("the regex is nested too deeply") from error


def searching(tree: Node, any_character: Ranges) -> Node:
    """What fully matches the texts in which `tree` is found."""
    around = repeated(Characters(any_character), 0, None)
    options: dict[tuple[Node, Node], list[Node]] = {}
    for option in tree.options if isinstance(tree, Either) else (tree,):
        before = EMPTY if _has_at(0, option, _START) else around
        after = EMPTY if _has_at(-1, option, _END) else around
        options.setdefault((before, after), []).append(option)
    return either(
        sequence((before, either(found), after)) for (before, after), found in options.items()
    )


def _lower(builder: Builder, tree: Node, write: WriteCharacter, then: int) -> int:
    tree = _without(-1, _without(0, tree, _TRUE_AT_START), _TRUE_AT_END)
    if tree.has_looks and then != FINAL:
        return builder.call(builder.rule(_lower(builder, tree, write, FINAL)), then)
    lowering = Lowering(builder, write)
    options = tree.options if isinstance(tree, Either) else (tree,)
    anchored = [option for option in options if option.has_anchors]
    states = [ContextualLowering(lowering, each).lower(each, then) for each in anchored]
    if len(anchored) < len(options) or not options:
        plain = either(option for option in options if not option.has_anchors)
        states.append(lowering.lower(plain, then))
    return builder.either(states)


# Anchors at the ends of a tree

_START: Final = frozenset((AnchorKind.START,))
_END: Final = frozenset((AnchorKind.END,))
_TRUE_AT_START: Final = frozenset((AnchorKind.START, AnchorKind.LINE_START))
_TRUE_AT_END: Final = frozenset(
    (AnchorKind.END, AnchorKind.END_OR_LAST_NEWLINE, AnchorKind.LINE_END)
)


def _has_at(side: int, tree: Node, kinds: frozenset[AnchorKind]) -> bool:
    """Whether each match begins (side 0) or ends (-1) with one of these anchors."""
    if isinstance(tree, Anchor):
        return tree.kind in kinds
    if isinstance(tree, Sequence):
        return bool(tree.parts) and _has_at(side, tree.parts[side], kinds)
    if isinstance(tree, Either):
        return all(_has_at(side, option, kinds) for option in tree.options)
    return False


def _without(side: int, tree: Node, kinds: frozenset[AnchorKind]) -> Node:
    """The tree less those anchors at one end, which are true there."""
    if isinstance(tree, Anchor):
        return EMPTY if tree.kind in kinds else tree
    if not tree.has_anchors:
        return tree
    if isinstance(tree, Either):
        return either(_without(side, option, kinds) for option in tree.options)
    if isinstance(tree, Sequence):
        parts = list(tree.parts)
        if side:
            parts.reverse()
        first = 0
        while first < len(parts) and (part := _without(side, parts[first], kinds)) == EMPTY:
            first += 1
        if first < len(parts):
            parts[first] = part
        return sequence(parts[first:] if side == 0 else reversed(parts[first:]))
    return tree
