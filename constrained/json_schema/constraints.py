"""Plain constraints on a JSON value, by type, and their conjunction; knows no keyword.

A `Case` is one alternative: everything it says holds at once. What it says about values below
(items, properties) is said in terms: conjunctions of subschemas, each wanted or not.
"""

from collections.abc import Iterable
from decimal import Decimal
from typing import Final, NamedTuple

from .document import Place

NULL, BOOLEAN, INTEGER, FRACTION, STRING, ARRAY, OBJECT = (
    "null",
    "boolean",
    "integer",
    "fraction",
    "string",
    "array",
    "object",
)
"""The types apart: a number is an integer (1 and 1.0) or a fraction."""
TYPES: Final = frozenset((NULL, BOOLEAN, INTEGER, FRACTION, STRING, ARRAY, OBJECT))


class Literal(NamedTuple):
    """A subschema that a value must fit (`wanted`) or must not fit."""

    place: Place
    wanted: bool


Term = frozenset[Literal]
"""All literals hold."""

ANYTHING: Final[Term] = frozenset()
NOTHING: Final[Term] = frozenset((Literal(Place(False, "#", "", -2), True),))


def term(place: Place, *, wanted: bool = True) -> Term:
    if isinstance(place.schema, bool):
        return ANYTHING if place.schema is wanted else NOTHING
    return frozenset((Literal(place, wanted),))


def both(terms: Iterable[Term]) -> Term:
    """All of them; NOTHING where two contradict each other on their face."""
    together = frozenset[Literal]().union(*terms)
    if NOTHING <= together or any(Literal(p, not wanted) in together for p, wanted in together):
        return NOTHING
    return together


class Limit(NamedTuple):
    """A bound of a number, itself excluded or not."""

    value: Decimal
    excluded: bool


class Step(NamedTuple):
    """Numbers that are (or, not wanted, are not) whole multiples of `of`."""

    of: Decimal
    wanted: bool


class Matching(NamedTuple):
    """Strings in which a pattern is found, or that a format names; or are not."""

    kind: str  # "pattern" or "format"
    text: str
    wanted: bool
    pointer: str


class Items(NamedTuple):
    """What one schema says of an array's items. explicit: items after the prefix are spoken of;
    evaluates: for `unevaluatedItems`, whether they count as spoken of at all."""

    prefix: tuple[Term, ...]
    rest: Term
    explicit: bool = True
    evaluates: bool = True


class Contains(NamedTuple):
    """From `low` to `high` items fit `item`."""

    item: Term
    low: int
    high: int | None


class Properties(NamedTuple):
    """What one schema says of an object's values by their keys: of `named`, of those in which a
    pattern is found, and of the rest. explicit: the rest is spoken of; evaluates: for
    `unevaluatedProperties`, whether any of them count as spoken of."""

    named: tuple[tuple[str, Term], ...] = ()
    patterns: tuple[tuple[str, Term], ...] = ()
    rest: Term = ANYTHING
    explicit: bool = False
    evaluates: bool = True


class Some(NamedTuple):
    """Some property is the rest of `beside`, or its key holds `pattern`, and its value fits."""

    beside: Properties
    pattern: str | None
    value: Term


class Given:
    """A JSON value that a schema gives; equal ones are equal as JSON values, so 1 and 1.0."""

    __slots__ = ("_key", "value")

    def __init__(self, value: object) -> None:
        self.value = value
        self._key = _key(value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Given) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)


def _key(value: object) -> object:
    if isinstance(value, bool) or value is None:
        return (type(value), value)
    if isinstance(value, list):
        return (list, *map(_key, value))
    if isinstance(value, dict):
        return (dict, frozenset((name, _key(each)) for name, each in value.items()))
    return value


class Case(NamedTuple):
    """One alternative. values: the value is one of these (None: any); others: it is none of these,
    which are scalars."""

    types: frozenset[str] = TYPES
    values: tuple[Given, ...] | None = None
    others: tuple[Given, ...] = ()
    least: Limit | None = None
    most: Limit | None = None
    steps: tuple[Step, ...] = ()
    length: tuple[int, int | None] = (0, None)
    matching: tuple[Matching, ...] = ()
    items: tuple[Items, ...] = ()
    num_items: tuple[int, int | None] = (0, None)
    contains: tuple[Contains, ...] = ()
    unique: str | None = None  # the pointer of the keyword
    properties: tuple[Properties, ...] = ()
    num_properties: tuple[int, int | None] = (0, None)
    required: tuple[str, ...] = ()
    needs: tuple[tuple[str, str], ...] = ()
    keys: Term = ANYTHING
    some: tuple[Some, ...] = ()

    def only(self, *types: str) -> "Case":
        return self._replace(types=self.types & frozenset(types))


Alternatives = list[Case]
FREE: Final = Case()
"""Whatever there is."""


def conjunction(a: Case, b: Case) -> Case | None:
    """None where it is plain that no value fits both."""
    if a is FREE or b is FREE:
        return b if a is FREE else a
    types = a.types & b.types
    if a.values is not None or b.values is not None:
        values = _common(a.values, b.values)
        if not values:
            return None
    else:
        values = None
    length = _range(a.length, b.length)
    if length is None:
        types, length = types - {STRING}, (0, None)
    num_items = _range(a.num_items, b.num_items)
    if num_items is None:
        types, num_items = types - {ARRAY}, (0, None)
    num_properties = _range(a.num_properties, b.num_properties)
    if num_properties is None:
        types, num_properties = types - {OBJECT}, (0, None)
    least, most = _tighter(a.least, b.least, 1), _tighter(a.most, b.most, -1)
    if least and most and (least.value, least.excluded) > (most.value, -most.excluded):
        types -= {INTEGER, FRACTION}
    if not types:
        return None
    return Case(
        types,
        values,
        (*a.others, *b.others),
        least,
        most,
        _joined(a.steps, b.steps),
        length,
        _joined(a.matching, b.matching),
        _joined(a.items, b.items),
        num_items,
        _joined(a.contains, b.contains),
        a.unique or b.unique,
        _joined(a.properties, b.properties),
        num_properties,
        _joined(a.required, b.required),
        _joined(a.needs, b.needs),
        both((a.keys, b.keys)),
        _joined(a.some, b.some),
    )


def _joined(a: tuple, b: tuple) -> tuple:  # type: ignore[type-arg]
    if not a or not b:
        return a or b
    return tuple(dict.fromkeys((*a, *b)))


def _common(a: tuple[Given, ...] | None, b: tuple[Given, ...] | None) -> tuple[Given, ...] | None:
    if a is None or b is None:
        return b if a is None else a
    kept = frozenset(b)
    return tuple(value for value in a if value in kept)


def _range(a: tuple[int, int | None], b: tuple[int, int | None]) -> tuple[int, int | None] | None:
    low = max(a[0], b[0])
    high = b[1] if a[1] is None else a[1] if b[1] is None else min(a[1], b[1])
    return None if high is not None and low > high else (low, high)


def _tighter(a: Limit | None, b: Limit | None, sign: int) -> Limit | None:
    if a is None or b is None:
        return b if a is None else a
    return max(a, b, key=lambda limit: (sign * limit.value, limit.excluded))
