"""The states of arrays: items by their place, how many, and how many of a kind."""

from typing import TYPE_CHECKING, Final

from ..errors import LimitExceeded, Unsupported
from ..pushdown.builder import FINAL, Collection, Member, Unique
from .constraints import NOTHING, Case, Contains, Literal, Term, both

if TYPE_CHECKING:
    from .emit import Emitter

_MOST_UNIQUE: Final = 1000


def add_array(emitter: "Emitter", case: Case, pointer: str) -> int:
    """The state that reads the arrays of a case, up to FINAL."""
    builder, spacing = emitter.builder, emitter.spacing
    low, high = case.num_items
    length = max((len(layer.prefix) for layer in case.items), default=0)
    terms = [_item(case, i) for i in range(length)]
    rest = _item(case, length)
    if rest == NOTHING:
        high = length if high is None else min(high, length)
    if NOTHING in terms:
        first = terms.index(NOTHING)
        high = first if high is None else min(high, first)
    if high is not None and low > high:
        return builder.nothing()
    if case.unique and (high is None or high > 1):
        return spacing.open(builder, b"[", _unique(emitter, case, terms, rest, low, high))
    if case.contains:
        return spacing.open(builder, b"[", _counted(emitter, case, terms, rest, low, high))
    return spacing.open(builder, b"[", _sequence(emitter, terms, rest, low, high, case))


def _item(case: Case, index: int) -> Term:
    return both(
        layer.prefix[index] if index < len(layer.prefix) else layer.rest for layer in case.items
    )


def _sequence(
    emitter: "Emitter", terms: list[Term], rest: Term, low: int, high: int | None, case: Case
) -> int:
    """After the opening bracket: items by their place, then the rest by number."""
    builder = emitter.builder
    close = emitter.spacing.close(builder, b"]", FINAL)
    last = len(terms) if high is None else min(len(terms), high)
    after = close
    if high is None or high > last:
        one = builder.rule(
            builder.call(emitter.spacing.comma, builder.call(emitter.rule(rest), FINAL))
        )
        if not last:
            first = builder.call(
                emitter.rule(rest),
                builder.repeat(one, max(low - 1, 0), None if high is None else high - 1, close),
            )
            return builder.either([first] if low else [first, close])
        after = builder.repeat(
            one, max(low - last, 0), None if high is None else high - last, close
        )
    for index in reversed(range(last)):
        item = builder.call(emitter.rule(terms[index]), after)
        if index:
            item = builder.call(emitter.spacing.comma, item)
        after = item if index < low else builder.either([item, close])
    return after


def _unique(
    emitter: "Emitter", case: Case, terms: list[Term], rest: Term, low: int, high: int | None
) -> int:
    """Items that differ: of few given values each comes once; others are told apart by their text,
    so each value is written in one way."""
    builder = emitter.builder
    close = emitter.spacing.close(builder, b"]", FINAL)
    if terms or case.contains:
        raise Unsupported(f"{case.unique}: it is not supported beside prefixItems or contains")
    if low > _MOST_UNIQUE:
        raise LimitExceeded(f"{case.unique}: more than {_MOST_UNIQUE} different items")
    values = emitter.values_of(rest)
    if values is None:
        item = emitter.plain_rule(rest)
        if item is None:
            raise Unsupported(f"{case.unique}: it is supported for items that are scalars only")
        return builder.unique(Unique(item, emitter.spacing.comma, low, high, close))
    members = tuple(Member(builder.rule(emitter.value(v, FINAL)), once=True) for v in values)
    if not members:
        return close if not low else builder.nothing()
    return builder.collect(
        Collection(members, emitter.spacing.comma, False, close, low=low, high=high)
    )


def _counted(
    emitter: "Emitter", case: Case, terms: list[Term], rest: Term, low: int, high: int | None
) -> int:
    if len(case.contains) > 1 or terms:
        return _one_by_one(emitter, case, terms, rest, low, high)
    (wanted,) = case.contains
    builder = emitter.builder
    counted = Member(emitter.rule(both((rest, wanted.item))), once=False, counter=0)
    # With no upper bound one that fits may go uncounted: it does no harm.
    other = rest if wanted.high is None else both((rest, _negation(wanted, case)))
    members = (counted, Member(emitter.rule(other), once=False))
    close = emitter.spacing.close(builder, b"]", FINAL)
    return builder.collect(
        Collection(
            members,
            emitter.spacing.comma,
            False,
            close,
            low=low,
            high=high,
            counters=((wanted.low, wanted.high),),
        )
    )


def _negation(wanted: Contains, case: Case) -> Term:
    if len(wanted.item) != 1:
        raise Unsupported(f"{_where(wanted)}: maxContains is not supported for this schema")
    (literal,) = wanted.item
    return frozenset((Literal(literal.place, not literal.wanted),))


def _one_by_one(
    emitter: "Emitter", case: Case, terms: list[Term], rest: Term, low: int, high: int | None
) -> int:
    """With a prefix, or with several kinds to be contained: only where one of each is enough."""
    for wanted in case.contains:
        if wanted.low != 1 or wanted.high is not None:
            raise Unsupported(f"{_where(wanted)}: counts are not supported beside others")
    if len(case.contains) > 1 or high is not None:
        raise Unsupported(f"{_where(case.contains[0])}: it is not supported beside others")
    (wanted,) = case.contains
    builder, spacing = emitter.builder, emitter.spacing
    none = case._replace(contains=())
    states = []
    # The first item that fits is at one place of the prefix, or after it.
    for place in range(len(terms)):
        chosen = [both((t, wanted.item)) if i == place else t for i, t in enumerate(terms)]
        states.append(_sequence(emitter, chosen, rest, max(low, place + 1), None, none))
    close = spacing.close(builder, b"]", FINAL)
    members = (
        Member(emitter.rule(both((rest, wanted.item))), once=False, counter=0),
        Member(emitter.rule(rest), once=False),
    )
    tail = builder.collect(
        Collection(
            members,
            spacing.comma,
            False,
            close,
            low=max(low - len(terms), 0),
            counters=((1, None),),
        )
    )
    for term in reversed(terms):
        tail = builder.call(emitter.rule(term), builder.call(spacing.comma, tail))
    return builder.either([*states, tail])


def _where(wanted: Contains) -> str:
    return min((literal.place.pointer for literal in wanted.item), default="#/contains")
