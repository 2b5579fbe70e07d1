"""The states of objects: properties by name, by pattern and by the rest, and how many."""

import itertools
import math
from typing import TYPE_CHECKING, Final

from ..errors import LimitExceeded, Unsupported
from ..pushdown.builder import FINAL, Collection, Member, Part, Unique
from .constraints import ANYTHING, NOTHING, Case, Properties, Some, Term, both

if TYPE_CHECKING:
    from .emit import Emitter

_MOST_PATTERNS: Final = 6
_MOST_WAYS: Final = 400
_MOST_DISTINCT: Final = 20


def add_object(emitter: "Emitter", case: Case, pointer: str) -> int:
    """The state that reads the objects of a case, up to FINAL."""
    cases = _ways_to_break(emitter, case) if case.some else [case]
    return emitter.builder.either([_Object(emitter, each, pointer).state() for each in cases])


def _listed(case: Case) -> tuple[str, ...]:
    """The names that are spoken of."""
    names: dict[str, None] = {}
    for layer in case.properties:
        names.update(dict.fromkeys(name for name, _ in layer.named))
    names.update(dict.fromkeys(case.required))
    for pair in case.needs:
        names.update(dict.fromkeys(pair))
    return tuple(names)


def _ways_to_break(emitter: "Emitter", case: Case) -> list[Case]:
    """A case for each choice of what `some` may be: a property that is listed, or one that is not;
    then what is left of `some` is to be one property that nobody lists."""
    known = {name: ANYTHING for some in case.some for name, _ in some.beside.named}
    case = case._replace(properties=(*case.properties, Properties(tuple(known.items()))))
    names = _listed(case)

    def may_be(some: Some, name: str) -> bool:
        if some.pattern is not None:
            return emitter.matches(some.pattern, name)
        spoken_of = dict(some.beside.named)
        patterns = (text for text, _ in some.beside.patterns)
        return name not in spoken_of and not any(emitter.matches(p, name) for p in patterns)

    choices: list[list[tuple[str | None, Some]]] = []
    for some in case.some:
        fitting = [name for name in names if may_be(some, name)]
        if some.value != ANYTHING or not set(fitting) & set(case.required):
            choices.append([*((name, some) for name in fitting), (None, some)])
    if math.prod(map(len, choices)) > _MOST_WAYS:
        raise LimitExceeded(f"there are more than {_MOST_WAYS} ways to break what must not hold")
    ways = []
    for chosen in itertools.product(*choices):
        named = [(name, some.value) for name, some in chosen if name is not None]
        ways.append(
            case._replace(
                properties=(*case.properties, *(Properties((each,)) for each in named)),
                required=tuple(dict.fromkeys((*case.required, *(name for name, _ in named)))),
                some=tuple(some for name, some in chosen if name is None),
            )
        )
    return ways


class _Object:
    def __init__(self, emitter: "Emitter", case: Case, pointer: str) -> None:
        self._emitter = emitter
        self._case = case
        self._pointer = pointer
        self._names = _listed(case)
        self._named_terms = [dict(layer.named) for layer in case.properties]
        self._patterns = tuple(
            dict.fromkeys(
                [text for layer in case.properties for text, _ in layer.patterns]
                + [some.pattern for some in case.some if some.pattern is not None]
                + [text for some in case.some for text, _ in some.beside.patterns]
            )
        )

    def state(self) -> int:
        builder, spacing = self._emitter.builder, self._emitter.spacing
        if len(self._patterns) > _MOST_PATTERNS:
            raise Unsupported(
                f"{self._pointer}: more than {_MOST_PATTERNS} patternProperties are not supported"
            )
        members: list[Member] = []
        numbers: dict[str, int] = {}
        absent: set[str] = set()
        for name in self._names:
            value = self._value(name)
            if value == NOTHING:
                absent.add(name)
                continue
            numbers[name] = len(members)
            members.append(Member(self._named(name, value), once=True))
        needs = self._needs(absent)
        if absent & set(self._case.required) or needs is None:
            return builder.nothing()
        low, high = self._case.num_properties
        groups = self._groups()
        if groups and low - len(self._case.required) > 1:
            return self._distinct(groups, is_alone=not members)
        counters: list[tuple[int, int | None]] = []
        others = self._others(groups, counters)
        close = spacing.close(builder, b"}", FINAL)
        collection = Collection(
            (*members, *others),
            spacing.comma,
            self._emitter.ordered or any(some.value != ANYTHING for some in self._case.some),
            close,
            required=frozenset(numbers[name] for name in self._case.required),
            needs=tuple((numbers[a], numbers[b]) for a, b in needs if a in numbers),
            low=low,
            high=high,
            counters=tuple(counters),
        )
        if not collection.members:
            is_empty = not low and not counters
            return spacing.open(builder, b"{", close) if is_empty else builder.nothing()
        return spacing.open(builder, b"{", builder.collect(collection))

    # Values

    def _value(self, name: str) -> Term:
        """What the value of a property must fit; NOTHING where it cannot be there."""
        if not self._emitter.fits_key(name, self._case.keys):
            return NOTHING
        matched = {p for p in self._patterns if self._emitter.matches(p, name)}
        terms = []
        for layer, named in zip(self._case.properties, self._named_terms, strict=True):
            spoken = [named[name]] if name in named else []
            spoken += [term for text, term in layer.patterns if text in matched]
            terms += spoken or [layer.rest]
        return both(terms)

    def _value_by(self, matched: frozenset[str]) -> Term:
        """The same for the names that nobody lists and in which just these patterns are found."""
        terms = []
        for layer in self._case.properties:
            spoken = [term for text, term in layer.patterns if text in matched]
            terms += spoken or [layer.rest]
        return both(terms)

    def _named(self, name: str, value: Term) -> int:
        emitter = self._emitter
        return emitter.member(name, emitter.rule(value))

    def _needs(self, absent: set[str]) -> list[tuple[str, str]] | None:
        """What stays of `needs` where some properties cannot be there; None: nothing fits."""
        needs = list(self._case.needs)
        for first, second in needs:
            if second in absent and first not in absent:
                # It can then not be there either: another case, with one more that is absent.
                if first in self._case.required:
                    return None
                raise Unsupported(
                    f"{self._pointer}: a property that needs {second!r}, which is not allowed"
                )
        return needs

    # Properties that nobody lists

    def _groups(self) -> list[tuple[int, Term]]:
        """The rule of the keys, and what their values must fit, of each kind of such a property."""
        is_silent = not any(layer.explicit or layer.patterns for layer in self._case.properties)
        if not self._emitter.open_objects and self._names and is_silent and not self._case.some:
            return []
        groups: list[tuple[int, Term]] = []
        for size in range(len(self._patterns) + 1):
            for chosen in itertools.combinations(self._patterns, size):
                matched = frozenset(chosen)
                value = self._value_by(matched)
                if value != NOTHING:
                    groups += [(key, value) for key in self._keys(matched)]
        return groups

    def _others(
        self, groups: list[tuple[int, Term]], counters: list[tuple[int, int | None]]
    ) -> list[Member]:
        emitter, builder = self._emitter, self._emitter.builder
        states = [
            emitter.strings.quoted(key, self._after_key(value, FINAL)) for key, value in groups
        ]
        # One member: they come in any order among themselves.
        members = [Member(builder.rule(builder.either(states)), once=False)] if states else []
        # Those that are counted come last, for of two with one name the last value is what counts.
        if self._case.some:
            counters.append((1, None))
            members += self._some(len(counters) - 1)
        return members

    def _after_key(self, value: Term, then: int) -> int:
        """The state that reads a colon and a value."""
        emitter, builder = self._emitter, self._emitter.builder
        return emitter.spacing.colon(builder, builder.call(emitter.rule(value), then))

    def _distinct(self, groups: list[tuple[int, Term]], *, is_alone: bool) -> int:
        """Two of one name would count once, so no two are: names are unique items, and what stands
        between two names, the value of the first with it, is their comma."""
        builder, spacing = self._emitter.builder, self._emitter.spacing
        strings = self._emitter.strings
        low, high = self._case.num_properties
        values = {value for _, value in groups}
        # Within the value of such a name no other such object: each step would weigh all of them.
        is_plain = len(values) == 1 and all(map(self._emitter.is_scalar, values))
        if not (is_alone and is_plain) or self._case.some:
            raise Unsupported(
                f"{self._pointer}/minProperties: {low} is not supported where names are free, "
                "but for scalars of one kind"
            )
        if low > _MOST_DISTINCT:
            raise LimitExceeded(f"{self._pointer}/minProperties: more than {_MOST_DISTINCT}")
        plain = Part(strings.plain_content())
        names = [strings.quoted(strings.product([Part(key), plain]), FINAL) for key, _ in groups]
        (value,) = values
        close = spacing.close(builder, b"}", FINAL)
        between = builder.rule(self._after_key(value, builder.call(spacing.comma, FINAL)))
        unique = Unique(
            builder.rule(builder.either(names)), between, low, high, self._after_key(value, close)
        )
        return spacing.open(builder, b"{", builder.unique(unique))

    def _some(self, counter: int) -> list[Member]:
        """The properties that are what each of `some` asks for: of these there is at least one."""
        emitter, builder = self._emitter, self._emitter.builder
        members = []
        for size in range(len(self._patterns) + 1):
            for chosen in itertools.combinations(self._patterns, size):
                matched = frozenset(chosen)
                if not all(_holds(some, matched) for some in self._case.some):
                    continue
                breaking = (some.value for some in self._case.some)
                value = both((self._value_by(matched), *breaking))
                if value == NOTHING:
                    continue
                for key in self._keys(matched):
                    text = emitter.strings.quoted(key, self._after_key(value, FINAL))
                    members.append(Member(builder.rule(text), once=False, counter=counter))
        return members

    def _keys(self, matched: frozenset[str]) -> list[int]:
        """The rules of the keys that are not listed and hold just these patterns: one for each
        alternative of `propertyNames`."""
        strings = self._emitter.strings
        parts = [
            strings.pattern(text, self._pointer, wanted=text in matched) for text in self._patterns
        ]
        if self._names:
            parts.append(Part(strings.one_of(self._names), negated=True))
        if self._case.keys == ANYTHING:
            return [strings.product(parts) if parts else strings.any_content()]
        rules = []
        for case in self._emitter.key_cases(self._case.keys):
            if case.values is not None:
                texts = tuple(v.value for v in case.values if isinstance(v.value, str))
                rules.append(strings.product([Part(strings.one_of(texts)), *parts]))
            else:
                rules.append(strings.product([Part(strings.content(case)), *parts]))
        return rules


def _holds(some: Some, matched: frozenset[str]) -> bool:
    """Whether a name that nobody lists, and in which just these patterns are found, may be it."""
    if some.pattern is not None:
        return some.pattern in matched
    return not matched & {text for text, _ in some.beside.patterns}
