"""What each keyword says of values of one type, wanted and not wanted; knows no schemas of schemas.

Where a keyword is *not* wanted it means a union: one alternative for each way to break it.
"""

import itertools
from collections.abc import Callable
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from .constraints import (
    ANYTHING,
    ARRAY,
    BOOLEAN,
    FRACTION,
    FREE,
    INTEGER,
    NOTHING,
    NULL,
    OBJECT,
    STRING,
    TYPES,
    Alternatives,
    Case,
    Contains,
    Given,
    Items,
    Limit,
    Literal,
    Matching,
    Properties,
    Some,
    Step,
    Term,
    term,
)
from .document import Place
from .formats import FORMATS
from .values import brief, count, escape, expect, is_multiple, number

if TYPE_CHECKING:
    from .cases import Cases

Rule = Callable[["Cases", Place, Any, bool], Alternatives]
"""(who asks, where the keyword stands, its value, whether it is wanted)."""

_TYPE_NAMES: Final = {
    "null": (NULL,),
    "boolean": (BOOLEAN,),
    "integer": (INTEGER,),
    "number": (INTEGER, FRACTION),
    "string": (STRING,),
    "array": (ARRAY,),
    "object": (OBJECT,),
}

_LAYER: Final = ("properties", "patternProperties", "additionalProperties")


# --- any type ---


def _type(cases: "Cases", place: Place, value: object, wanted: bool) -> Alternatives:
    types = frozenset(declared_types(place, value))
    kept = types if wanted else TYPES - types
    return [Case(kept)] if kept else []


def _enum(cases: "Cases", place: Place, value: object, wanted: bool) -> Alternatives:
    values = tuple(expect(value, list, f"{place.pointer}/enum"))
    return _values(cases, place, "enum", values, wanted)


def _const(cases: "Cases", place: Place, value: object, wanted: bool) -> Alternatives:
    return _values(cases, place, "const", (value,), wanted)


def _values(
    cases: "Cases", place: Place, keyword: str, values: tuple[object, ...], wanted: bool
) -> Alternatives:
    if wanted:
        distinct = tuple(dict.fromkeys(map(Given, values)))
        if not distinct:
            place.wrong(keyword, "it allows no value")
        return [Case(frozenset(t for value in values for t in _types_of(value)), distinct)]
    others = [Case(TYPES - {t for value in values for t in _types_of(value)})]
    for kind in (NULL, BOOLEAN, INTEGER, FRACTION, STRING, ARRAY, OBJECT):
        these = tuple(value for value in values if kind in _types_of(value))
        if not these:
            continue
        if kind in (ARRAY, OBJECT):
            empty = Case(frozenset((kind,)), num_items=(1, None), num_properties=(1, None))
            if any(these):
                place.refuse(
                    keyword, f"it is not supported where an {kind} must not be one of these"
                )
            others.append(empty)
        elif kind == BOOLEAN:
            kept = tuple(Given(v) for v in (True, False) if v not in these)
            if kept:
                others.append(Case(frozenset((kind,)), kept))
        elif kind != NULL:
            others.append(Case(frozenset((kind,)), others=tuple(map(Given, these))))
    return [case for case in others if case.types]


# --- numbers ---


def _bound(cases: "Cases", place: Place, value: object, wanted: bool, keyword: str) -> Alternatives:
    schema = place.schema
    assert isinstance(schema, dict)
    is_low = "inimum" in keyword
    is_exclusive = keyword.startswith("exclusive")
    if isinstance(value, bool) and is_exclusive:  # draft 4: it changes its neighbour
        return [FREE] if wanted else []
    excludes = schema.get("exclusiveMinimum" if is_low else "exclusiveMaximum") is True
    limit = Limit(number(value, f"{place.pointer}/{keyword}"), is_exclusive or excludes)
    if wanted:
        return [Case(least=limit) if is_low else Case(most=limit)]
    numbers = frozenset((INTEGER, FRACTION))
    opposite = Limit(limit.value, not limit.excluded)
    return [Case(numbers, most=opposite) if is_low else Case(numbers, least=opposite)]


def _multiple(cases: "Cases", place: Place, value: object, wanted: bool) -> Alternatives:
    of = number(value, f"{place.pointer}/multipleOf")
    if of <= 0:
        place.wrong("multipleOf", f"{brief(value)} is not above 0")
    case = Case(steps=(Step(of, wanted),))
    return [case if wanted else case.only(INTEGER, FRACTION)]


# --- strings ---


def _length(
    cases: "Cases", place: Place, value: object, wanted: bool, keyword: str
) -> Alternatives:
    limit = count(value, f"{place.pointer}/{keyword}")
    bounds = _bounds(limit, "min" in keyword, wanted)
    if bounds is None:
        return []
    case = Case(length=bounds)
    return [case if wanted else case.only(STRING)]


def _pattern(cases: "Cases", place: Place, value: object, wanted: bool) -> Alternatives:
    text = expect(value, str, f"{place.pointer}/pattern")
    case = Case(matching=(Matching("pattern", text, wanted, f"{place.pointer}/pattern"),))
    return [case if wanted else case.only(STRING)]


def _format(cases: "Cases", place: Place, value: object, wanted: bool) -> Alternatives:
    name = expect(value, str, f"{place.pointer}/format")
    if name not in FORMATS:
        return [FREE] if wanted else []
    case = Case(matching=(Matching("format", name, wanted, f"{place.pointer}/format"),))
    return [case if wanted else case.only(STRING)]


# --- arrays ---


def _items(cases: "Cases", place: Place, value: object, wanted: bool) -> Alternatives:
    schema = place.schema
    assert isinstance(schema, dict)
    if isinstance(value, list):
        prefix = _terms(cases, place, "items", len(value), wanted)
        rest, has_rest = ANYTHING, "additionalItems" in schema
        if has_rest:
            rest = term(cases.below(place, "additionalItems"), wanted=wanted)
    else:
        given = expect(schema.get("prefixItems", []), list, f"{place.pointer}/prefixItems")
        prefix = _terms(cases, place, "prefixItems", len(given), wanted)
        rest, has_rest = term(cases.below(place, "items"), wanted=wanted), True
    if wanted:
        return [Case(items=(Items(prefix, rest, has_rest),))]
    return _broken_items(cases, place, prefix, rest if has_rest else None)


def _prefix_items(cases: "Cases", place: Place, value: object, wanted: bool) -> Alternatives:
    schema = place.schema
    assert isinstance(schema, dict)
    if "items" in schema and not isinstance(schema["items"], list):
        return [FREE] if wanted else []  # `items` has spoken of them
    given = expect(value, list, f"{place.pointer}/prefixItems")
    prefix = _terms(cases, place, "prefixItems", len(given), wanted)
    if wanted:
        return [Case(items=(Items(prefix, ANYTHING, explicit=False),))]
    return _broken_items(cases, place, prefix, None)


def _broken_items(
    cases: "Cases", place: Place, prefix: tuple[Term, ...], rest: Term | None
) -> Alternatives:
    arrays = Case().only(ARRAY)
    out = [
        arrays._replace(
            items=(Items((ANYTHING,) * i + (broken,), ANYTHING, explicit=False),),
            num_items=(i + 1, None),
        )
        for i, broken in enumerate(prefix)
    ]
    if rest is not None and rest != NOTHING:
        if not prefix:
            out.append(arrays._replace(contains=(Contains(rest, 1, None),)))
        elif rest == ANYTHING:  # `false`: any further item breaks it
            out.append(arrays._replace(num_items=(len(prefix) + 1, None)))
        else:
            place.refuse("items", "after a prefix it is not supported where it must not hold")
    return out


def _terms(cases: "Cases", place: Place, keyword: str, size: int, wanted: bool) -> tuple[Term, ...]:
    return tuple(term(cases.below(place, keyword, i), wanted=wanted) for i in range(size))


def _num_items(
    cases: "Cases", place: Place, value: object, wanted: bool, keyword: str
) -> Alternatives:
    limit = count(value, f"{place.pointer}/{keyword}")
    bounds = _bounds(limit, "min" in keyword, wanted)
    if bounds is None:
        return []
    case = Case(num_items=bounds)
    return [case if wanted else case.only(ARRAY)]


def _contains(cases: "Cases", place: Place, value: object, wanted: bool) -> Alternatives:
    schema = place.schema
    assert isinstance(schema, dict)
    low = count(schema.get("minContains", 1), f"{place.pointer}/minContains")
    high = schema.get("maxContains")
    high = None if high is None else count(high, f"{place.pointer}/maxContains")
    item = term(cases.below(place, "contains"))
    if wanted:
        if high is not None and low > high:
            return [Case(TYPES - {ARRAY})]
        if low == 0 and high is None:
            return [FREE]
        return [Case(contains=(Contains(item, low, high),))]
    arrays = Case().only(ARRAY)
    out = []
    if low:
        out.append(arrays._replace(contains=(Contains(item, 0, low - 1),)))
    if high is not None:
        out.append(arrays._replace(contains=(Contains(item, high + 1, None),)))
    return out


def _unique(cases: "Cases", place: Place, value: object, wanted: bool) -> Alternatives:
    if value is not True:
        return [FREE] if wanted else []
    if not wanted:
        place.refuse("uniqueItems", "it is not supported where it must not hold")
    return [Case(unique=f"{place.pointer}/uniqueItems")]


# --- objects ---


def _layer(cases: "Cases", place: Place, wanted: bool) -> Properties:
    schema = place.schema
    assert isinstance(schema, dict)
    at = place.pointer

    def terms(keyword: str) -> tuple[tuple[str, Term], ...]:
        names = expect(schema.get(keyword, {}), dict, f"{at}/{keyword}")
        return tuple((n, term(cases.below(place, keyword, n), wanted=wanted)) for n in names)

    explicit = "additionalProperties" in schema
    rest = ANYTHING
    if explicit:
        rest = term(cases.below(place, "additionalProperties"), wanted=wanted)
    return Properties(terms("properties"), terms("patternProperties"), rest, explicit)


def _properties(
    cases: "Cases", place: Place, value: object, wanted: bool, keyword: str
) -> Alternatives:
    """The three keywords together, at the first of them that stands there."""
    schema = place.schema
    assert isinstance(schema, dict)
    if keyword != next(k for k in schema if k in _LAYER):
        return [FREE] if wanted else []
    layer = _layer(cases, place, wanted)
    if wanted:
        return [Case(properties=(layer,))]
    objects = Case().only(OBJECT)
    out = [
        objects._replace(
            properties=(Properties(((name, broken),)),),
            required=(name,),
        )
        for name, broken in layer.named
        if broken != NOTHING
    ]
    some = [Some(layer, text, broken) for text, broken in layer.patterns if broken != NOTHING]
    if layer.explicit and layer.rest != NOTHING:
        some.append(Some(layer, None, layer.rest))
    return out + [objects._replace(some=(each,)) for each in some]


def _required(cases: "Cases", place: Place, value: object, wanted: bool) -> Alternatives:
    if isinstance(value, bool):  # draft 3 wrote it beside each property
        place.refuse("required", "a bool is not supported; list the names beside 'properties'")
    names = _names(value, f"{place.pointer}/required")
    if wanted:
        return [Case(required=names)]
    objects = Case().only(OBJECT)
    return [objects._replace(properties=(_without(name),)) for name in names]


def _num_properties(
    cases: "Cases", place: Place, value: object, wanted: bool, keyword: str
) -> Alternatives:
    limit = count(value, f"{place.pointer}/{keyword}")
    bounds = _bounds(limit, "min" in keyword, wanted)
    if bounds is None:
        return []
    case = Case(num_properties=bounds)
    return [case if wanted else case.only(OBJECT)]


def _property_names(cases: "Cases", place: Place, value: object, wanted: bool) -> Alternatives:
    keys = term(cases.below(place, "propertyNames"), wanted=wanted)
    if wanted:
        return [Case(keys=keys)]
    place.refuse("propertyNames", "it is not supported where it must not hold")


def _dependent(
    cases: "Cases", place: Place, value: object, wanted: bool, keyword: str
) -> Alternatives:
    if keyword == "dependencies" and not wanted and cases.document.draft >= 2019:
        place.refuse(keyword, "this draft has it no more, so what breaks it is not sure")
    parts = []
    given = expect(value, dict, f"{place.pointer}/{keyword}")
    for name, needs in given.items():
        if isinstance(needs, list):
            names = _names(needs, f"{place.pointer}/{keyword}/{escape(name)}")
            parts.append(_needing(name, names, wanted))
        else:
            parts.append(_dependent_schema(cases, place, keyword, name, wanted))
    if wanted:
        return cases.together(parts)
    return list(itertools.chain(*parts))


def _dependent_schema(
    cases: "Cases", place: Place, keyword: str, name: str, wanted: bool
) -> Alternatives:
    inner = cases.literal(Literal(cases.below(place, keyword, name), wanted), apart=False)
    present = Case(required=(name,)).only(OBJECT)
    with_it = cases.together(([present], inner))
    return [Case(properties=(_without(name),)), *with_it] if wanted else with_it


# --- parts of the rules ---


def _without(name: str) -> Properties:
    return Properties(((name, NOTHING),))


def _needing(name: str, names: tuple[str, ...], wanted: bool) -> Alternatives:
    if wanted:
        return [Case(needs=tuple((name, other) for other in names if other != name))]
    present = Case(required=(name,)).only(OBJECT)
    return [present._replace(properties=(_without(other),)) for other in names]


def _bounds(limit: int, is_low: bool, wanted: bool) -> tuple[int, int | None] | None:
    if wanted:
        return (limit, None) if is_low else (0, limit)
    if is_low:
        return (0, limit - 1) if limit else None
    return limit + 1, None


def _names(value: object, at: str) -> tuple[str, ...]:
    return tuple(expect(name, str, at) for name in expect(value, list, at))


def declared_types(place: Place, declared: object) -> list[str]:
    names: list[Any] = declared if isinstance(declared, list) else [declared]
    for name in names:
        if not isinstance(name, str) or name not in _TYPE_NAMES:
            place.wrong("type", f"{brief(name)} is not a JSON type")
    if not names:
        place.wrong("type", "no type is given")
    return [kind for name in names for kind in _TYPE_NAMES[name]]


def _types_of(value: object) -> frozenset[str]:
    if value is None:
        return frozenset((NULL,))
    if isinstance(value, bool):
        return frozenset((BOOLEAN,))
    if isinstance(value, int | float):
        return frozenset((INTEGER if is_multiple(Decimal(repr(value)), Decimal(1)) else FRACTION,))
    if isinstance(value, str):
        return frozenset((STRING,))
    return frozenset((ARRAY if isinstance(value, list) else OBJECT,))


def with_name(rule: Any, keyword: str) -> Rule:
    """A rule of several keywords, for one of them."""
    return lambda cases, place, value, wanted: rule(cases, place, value, wanted, keyword)


OF_ONE_TYPE: Final[dict[str, Rule]] = {
    "type": _type,
    "enum": _enum,
    "const": _const,
    "multipleOf": _multiple,
    "pattern": _pattern,
    "format": _format,
    "items": _items,
    "prefixItems": _prefix_items,
    "contains": _contains,
    "uniqueItems": _unique,
    "required": _required,
    "propertyNames": _property_names,
    **{
        k: with_name(_bound, k)
        for k in ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")
    },
    **{k: with_name(_length, k) for k in ("minLength", "maxLength")},
    **{k: with_name(_num_items, k) for k in ("minItems", "maxItems")},
    **{k: with_name(_num_properties, k) for k in ("minProperties", "maxProperties")},
    **{k: with_name(_properties, k) for k in _LAYER},
    **{
        k: with_name(_dependent, k)
        for k in ("dependentRequired", "dependentSchemas", "dependencies")
    },
}
