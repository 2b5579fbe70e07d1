"""From subschemas to alternatives: the meaning of every keyword, wanted and not wanted.

`Cases.of(term)` says which alternatives of plain constraints a conjunction of subschemas leaves; it
looks as deep as a value of one level goes, and speaks of the values below it in terms. What a
keyword means where it is *not* wanted is a union: one alternative for each way to break it.
Alternatives may overlap, for the machine follows all of them.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from typing import Any, Final

from ..errors import GrammarError, LimitExceeded
from .constraints import (
    ANYTHING,
    ARRAY,
    BOOLEAN,
    FRACTION,
    INTEGER,
    NOTHING,
    NULL,
    OBJECT,
    STRING,
    TYPES,
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
    both,
    conjunction,
    term,
)
from .document import Document, Place
from .evaluate import Evaluator
from .formats import FORMATS
from .values import brief, count, escape, expect, is_multiple, number

_TYPE_NAMES: Final = {
    "null": (NULL,),
    "boolean": (BOOLEAN,),
    "integer": (INTEGER,),
    "number": (INTEGER, FRACTION),
    "string": (STRING,),
    "array": (ARRAY,),
    "object": (OBJECT,),
}

ANNOTATIONS: Final = frozenset(
    "$schema $id id $anchor $dynamicAnchor $recursiveAnchor $comment $defs definitions $vocabulary "
    "title description default example examples deprecated readOnly writeOnly discriminator "
    "contentEncoding contentMediaType contentSchema externalDocs xml nullable "
    "then else minContains maxContains".split()
)
"""Keywords that assert nothing by themselves. Unknown keywords are annotations too, as the
specification says; what looks like a keyword of ours in another case is refused."""

_MOST_CASES: Final = 400

Alternatives = list[Case]
_Rule = Callable[["Cases", Place, Any, bool], Alternatives]


class Cases:
    """Of one document; every answer is kept."""

    def __init__(self, document: Document, evaluator: Evaluator, check_time: Callable[[], None]):
        self._document = document
        self._evaluator = evaluator
        self._check_time = check_time
        self._known: dict[tuple[Literal, bool], Alternatives] = {}
        self._open: set[Literal] = set()

    def of(self, wanted: Term) -> Alternatives:
        """Raises Unsupported or GrammarError, with a JSON pointer."""
        if wanted == NOTHING:
            return []
        cases = self._all([self._literal(literal, apart=False) for literal in _ordered(wanted)])
        return [case for each in cases if (case := self._settled(each, wanted)) is not None]

    def _settled(self, case: Case, wanted: Term) -> Case | None:
        """With the values that are none left out, where values are given."""
        if case.values is None:
            return case
        values = tuple(v for v in case.values if self._evaluator.fits(v.value, wanted))
        return replace(case, values=values) if values else None

    # Conjunction and disjunction

    def _all(self, parts: Iterable[Alternatives]) -> Alternatives:
        cases = [Case()]
        for alternatives in parts:
            if len(alternatives) == 1 and alternatives[0] is _FREE:
                continue
            together = [
                case
                for a in cases
                for b in alternatives
                if (case := self._pruned(conjunction(a, b))) is not None
            ]
            cases = list(dict.fromkeys(together)) if len(together) > 1 else together
            if len(cases) > _MOST_CASES:
                raise LimitExceeded(f"its keywords make more than {_MOST_CASES} alternatives")
            self._check_time()
        return cases

    def _pruned(self, case: Case | None) -> Case | None:
        """Without objects where a required property can plainly have no value: so that a chain of
        conditions on one property leaves as many alternatives as it has values, not as many as
        there are combinations."""
        if case is None or OBJECT not in case.types or len(case.properties) < 2:
            return case
        for name in case.required:
            wanted = [
                value for layer in case.properties for key, value in layer.named if key == name
            ]
            if len(wanted) > 1 and self._has_no_value(both(wanted)):
                types = case.types - {OBJECT}
                return replace(case, types=types) if types else None
        return case

    def _has_no_value(self, wanted: Term) -> bool:
        if wanted == NOTHING:
            return True
        for place, is_wanted in wanted:
            schema = place.schema
            if not is_wanted or not isinstance(schema, Mapping) or "$ref" in schema:
                continue
            values = [schema["const"]] if "const" in schema else schema.get("enum")
            if isinstance(values, list):
                return not any(self._evaluator.fits(value, wanted) for value in values)
        return False

    # Subschemas

    def _literal(self, literal: Literal, *, apart: bool) -> Alternatives:
        """apart: alternatives of `anyOf` are told apart by which of its schemas hold, for what they
        have evaluated matters."""
        place, wanted = literal
        if not isinstance(place.schema, Mapping):
            if not isinstance(place.schema, bool):
                raise GrammarError(
                    f"{place.pointer}: a schema is an object or a bool, not {brief(place.schema)}"
                )
            return [_FREE] if place.schema is wanted else []
        key = (literal, apart)
        if key not in self._known:
            if literal in self._open:
                raise GrammarError(f"{place.pointer}: it refers to itself without end")
            self._open.add(literal)
            try:
                made = self._wanted(place, apart) if wanted else self._unwanted(place)
            finally:
                self._open.discard(literal)
            self._known[key] = made
        return self._known[key]

    def _keywords(self, place: Place) -> Iterator[tuple[str, _Rule]]:
        schema = place.schema
        assert isinstance(schema, Mapping)
        if "$ref" in schema and self._document.ref_stands_alone:
            yield "$ref", RULES["$ref"]
            return
        for keyword in schema:
            rule = RULES.get(keyword)
            if rule is not None:
                yield keyword, rule
            elif keyword not in ANNOTATIONS | KEYWORDS and keyword.lower() in _LOWER:
                place.refuse(keyword, f"this is no keyword; is {_LOWER[keyword.lower()]!r} meant?")

    def _wanted(self, place: Place, apart: bool) -> Alternatives:
        schema = place.schema
        assert isinstance(schema, Mapping)
        apart = apart or "unevaluatedProperties" in schema or "unevaluatedItems" in schema
        parts = []
        # What makes alternatives comes last, one after the other: most of them then end at once.
        for keyword, rule in sorted(self._keywords(place), key=lambda k: k[0] in _IN_PLACE):
            if keyword == "anyOf" and apart:
                parts.append(self._any_apart(place, schema[keyword]))
            elif keyword == "allOf":
                branches = self._schemas(place, keyword, schema[keyword])
                parts += [self._literal(Literal(b, True), apart=apart) for b in branches]
            elif keyword in _IN_PLACE and keyword != "oneOf" and apart:
                parts.append(self._in_place_apart(place, keyword))
            else:
                parts.append(rule(self, place, schema[keyword], True))
        cases = self._all(parts)
        if "unevaluatedProperties" in schema:
            cases = [self._closed_object(case, place) for case in cases]
        if "unevaluatedItems" in schema:
            cases = [self._closed_array(case, place) for case in cases]
        return cases

    def _unwanted(self, place: Place) -> Alternatives:
        schema = place.schema
        assert isinstance(schema, Mapping)
        for keyword in ("unevaluatedProperties", "unevaluatedItems"):
            if keyword in schema:
                place.refuse(keyword, "it is not supported where its schema must not hold")
        return [
            case
            for keyword, rule in self._keywords(place)
            for case in rule(self, place, schema[keyword], False)
        ]

    def _below(self, place: Place, *path: str | int) -> Place:
        return self._document.below(place, *path)

    def _schemas(self, place: Place, keyword: str, value: object) -> list[Place]:
        schemas = expect(value, list, f"{place.pointer}/{keyword}")
        if not schemas:
            place.wrong(keyword, "it needs at least one schema")
        return [self._below(place, keyword, i) for i in range(len(schemas))]

    def _any_apart(self, place: Place, value: object) -> Alternatives:
        branches = [
            self._literal(Literal(each, True), apart=True)
            for each in self._schemas(place, "anyOf", value)
        ]
        cases: Alternatives = []
        for size in range(1, len(branches) + 1):
            for chosen in itertools.combinations(branches, size):
                cases += self._all(chosen)
                if len(cases) > _MOST_CASES:
                    raise LimitExceeded(f"{place.pointer}/anyOf: too many ways to fit it at once")
        return cases

    def _in_place_apart(self, place: Place, keyword: str) -> Alternatives:
        def one(each: Place, wanted: bool = True) -> Alternatives:
            return self._literal(Literal(each, wanted), apart=wanted)

        schema = place.schema
        assert isinstance(schema, Mapping)
        if keyword == "not":
            return self._not(place, schema[keyword], True)
        if keyword != "if":
            return one(self._document.resolve(place, keyword))
        condition = self._below(place, "if")
        holds, fails = [one(condition)], [_unevaluating(one(condition, False))]
        if "then" in schema:
            holds.append(one(self._below(place, "then")))
        if "else" in schema:
            fails.append(one(self._below(place, "else")))
        return self._all(holds) + self._all(fails)

    def _closed_object(self, case: Case, place: Place) -> Case:
        """What no keyword beside or within has spoken of must fit `unevaluatedProperties`."""
        layers = [layer for layer in case.properties if layer.evaluates]
        if any(layer.explicit for layer in layers):
            return case
        rest = term(self._below(place, "unevaluatedProperties"))
        named = {name: ANYTHING for layer in layers for name, _ in layer.named}
        patterns = {text: ANYTHING for layer in layers for text, _ in layer.patterns}
        closing = Properties(tuple(named.items()), tuple(patterns.items()), rest, explicit=True)
        return replace(case, properties=(*case.properties, closing))

    def _closed_array(self, case: Case, place: Place) -> Case:
        if case.contains:
            place.refuse("unevaluatedItems", "it is not supported beside 'contains'")
        layers = [layer for layer in case.items if layer.evaluates]
        if any(layer.explicit for layer in layers):
            return case
        known = max((len(layer.prefix) for layer in layers), default=0)
        rest = term(self._below(place, "unevaluatedItems"))
        return replace(case, items=(*case.items, Items((ANYTHING,) * known, rest)))

    # Keywords: schemas made of schemas

    def _reference(self, place: Place, value: object, wanted: bool, keyword: str) -> Alternatives:
        return self._literal(Literal(self._document.resolve(place, keyword), wanted), apart=False)

    def _all_of(self, place: Place, value: object, wanted: bool) -> Alternatives:
        parts = [
            self._literal(Literal(each, wanted), apart=False)
            for each in self._schemas(place, "allOf", value)
        ]
        return self._all(parts) if wanted else list(itertools.chain(*parts))

    def _any_of(self, place: Place, value: object, wanted: bool) -> Alternatives:
        parts = [
            self._literal(Literal(each, wanted), apart=False)
            for each in self._schemas(place, "anyOf", value)
        ]
        return list(itertools.chain(*parts)) if wanted else self._all(parts)

    def _one_of(self, place: Place, value: object, wanted: bool) -> Alternatives:
        schemas = self._schemas(place, "oneOf", value)
        if wanted and self._are_told_apart(schemas):
            return [case for s in schemas for case in self._literal(Literal(s, True), apart=False)]
        holds = [self._literal(Literal(each, True), apart=False) for each in schemas]
        # A pair that cannot hold together needs no further telling apart.
        overlaps = {
            (i, j): self._all((holds[i], holds[j]))
            for i, j in itertools.combinations(range(len(schemas)), 2)
        }
        if not wanted:
            none = self._all(self._literal(Literal(each, False), apart=False) for each in schemas)
            return none + [case for cases in overlaps.values() for case in cases]
        out: Alternatives = []
        for i, cases in enumerate(holds):
            rivals = [j for j in range(len(schemas)) if j != i and overlaps[min(i, j), max(i, j)]]
            fails = [
                _unevaluating(self._literal(Literal(schemas[j], False), apart=False))
                for j in rivals
            ]
            out += self._all((cases, *fails))
        return out

    def _are_told_apart(self, schemas: Sequence[Place]) -> bool:
        """Whether no two can hold together, by their types or a required property's values."""
        faces = [self._face(place) for place in schemas]
        return all(_faces_differ(a, b) for a, b in itertools.combinations(faces, 2))

    def _face(self, place: Place) -> tuple[frozenset[str], dict[str, list[object]], object]:
        """Types, the values of required properties, and the values that it allows (None: any)."""
        schema = place.schema
        for _ in range(8):
            if not isinstance(schema, Mapping) or "$ref" not in schema:
                break
            if len(schema) > 1 and not self._document.ref_stands_alone:
                break
            place = self._document.resolve(place, "$ref")
            schema = place.schema
        if not isinstance(schema, Mapping):
            return TYPES, {}, None
        types = TYPES
        if "type" in schema:
            types = frozenset(_types(place, schema["type"]))
        values = [schema["const"]] if "const" in schema else schema.get("enum")
        tags: dict[str, list[object]] = {}
        properties, required = schema.get("properties"), schema.get("required")
        if isinstance(properties, Mapping) and isinstance(required, list):
            for name in required:
                inner = properties.get(name) if isinstance(name, str) else None
                if isinstance(inner, Mapping):
                    tag = [inner["const"]] if "const" in inner else inner.get("enum")
                    if isinstance(tag, list):
                        tags[name] = tag
        return types, tags, values if isinstance(values, list) else None

    def _not(self, place: Place, value: object, wanted: bool) -> Alternatives:
        inner = Literal(self._below(place, "not"), not wanted)
        return _unevaluating(self._literal(inner, apart=False))

    def _if(self, place: Place, value: object, wanted: bool) -> Alternatives:
        schema = place.schema
        assert isinstance(schema, Mapping)
        condition = self._below(place, "if")
        out: Alternatives = []
        for keyword, holds in (("then", True), ("else", False)):
            if keyword in schema:
                branch = self._literal(Literal(self._below(place, keyword), wanted), apart=False)
            elif wanted:
                branch = [_FREE]
            else:
                continue
            if wanted and keyword not in schema and "then" not in schema and "else" not in schema:
                return [_FREE]
            out += self._all((self._literal(Literal(condition, holds), apart=False), branch))
        return out

    # Keywords: any type

    def _type(self, place: Place, value: object, wanted: bool) -> Alternatives:
        types = frozenset(_types(place, value))
        kept = types if wanted else TYPES - types
        return [Case(kept)] if kept else []

    def _enum(self, place: Place, value: object, wanted: bool) -> Alternatives:
        values = tuple(expect(value, list, f"{place.pointer}/enum"))
        return self._values(place, "enum", values, wanted)

    def _const(self, place: Place, value: object, wanted: bool) -> Alternatives:
        return self._values(place, "const", (value,), wanted)

    def _values(
        self, place: Place, keyword: str, values: tuple[object, ...], wanted: bool
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

    # Keywords: numbers

    def _bound(self, place: Place, value: object, wanted: bool, keyword: str) -> Alternatives:
        schema = place.schema
        assert isinstance(schema, Mapping)
        is_low = "inimum" in keyword
        is_exclusive = keyword.startswith("exclusive")
        if isinstance(value, bool) and is_exclusive:  # draft 4: it changes its neighbour
            return [_FREE] if wanted else []
        excludes = schema.get("exclusiveMinimum" if is_low else "exclusiveMaximum") is True
        limit = Limit(number(value, f"{place.pointer}/{keyword}"), is_exclusive or excludes)
        if wanted:
            return [Case(least=limit) if is_low else Case(most=limit)]
        numbers = frozenset((INTEGER, FRACTION))
        opposite = Limit(limit.value, not limit.excluded)
        return [Case(numbers, most=opposite) if is_low else Case(numbers, least=opposite)]

    def _multiple(self, place: Place, value: object, wanted: bool) -> Alternatives:
        of = number(value, f"{place.pointer}/multipleOf")
        if of <= 0:
            place.wrong("multipleOf", f"{brief(value)} is not above 0")
        case = Case(steps=(Step(of, wanted),))
        return [case if wanted else case.only(INTEGER, FRACTION)]

    # Keywords: strings

    def _length(self, place: Place, value: object, wanted: bool, keyword: str) -> Alternatives:
        limit = count(value, f"{place.pointer}/{keyword}")
        bounds = _bounds(limit, "min" in keyword, wanted)
        if bounds is None:
            return []
        case = Case(length=bounds)
        return [case if wanted else case.only(STRING)]

    def _pattern(self, place: Place, value: object, wanted: bool) -> Alternatives:
        text = expect(value, str, f"{place.pointer}/pattern")
        case = Case(matching=(Matching("pattern", text, wanted, f"{place.pointer}/pattern"),))
        return [case if wanted else case.only(STRING)]

    def _format(self, place: Place, value: object, wanted: bool) -> Alternatives:
        name = expect(value, str, f"{place.pointer}/format")
        if name not in FORMATS:
            return [_FREE] if wanted else []
        case = Case(matching=(Matching("format", name, wanted, f"{place.pointer}/format"),))
        return [case if wanted else case.only(STRING)]

    # Keywords: arrays

    def _items(self, place: Place, value: object, wanted: bool) -> Alternatives:
        schema = place.schema
        assert isinstance(schema, Mapping)
        if isinstance(value, list):
            prefix = self._terms(place, "items", len(value), wanted)
            rest, has_rest = ANYTHING, "additionalItems" in schema
            if has_rest:
                rest = term(self._below(place, "additionalItems"), wanted=wanted)
        else:
            given = expect(schema.get("prefixItems", []), list, f"{place.pointer}/prefixItems")
            prefix = self._terms(place, "prefixItems", len(given), wanted)
            rest, has_rest = term(self._below(place, "items"), wanted=wanted), True
        if wanted:
            return [Case(items=(Items(prefix, rest, has_rest),))]
        return self._broken_items(place, prefix, rest if has_rest else None)

    def _prefix_items(self, place: Place, value: object, wanted: bool) -> Alternatives:
        schema = place.schema
        assert isinstance(schema, Mapping)
        if "items" in schema and not isinstance(schema["items"], list):
            return [_FREE] if wanted else []  # `items` has spoken of them
        given = expect(value, list, f"{place.pointer}/prefixItems")
        prefix = self._terms(place, "prefixItems", len(given), wanted)
        if wanted:
            return [Case(items=(Items(prefix, ANYTHING, explicit=False),))]
        return self._broken_items(place, prefix, None)

    def _broken_items(
        self, place: Place, prefix: tuple[Term, ...], rest: Term | None
    ) -> Alternatives:
        arrays = Case().only(ARRAY)
        out = [
            replace(
                arrays,
                items=(Items((ANYTHING,) * i + (broken,), ANYTHING, explicit=False),),
                num_items=(i + 1, None),
            )
            for i, broken in enumerate(prefix)
        ]
        if rest is not None and rest != NOTHING:
            if not prefix:
                out.append(replace(arrays, contains=(Contains(rest, 1, None),)))
            elif rest == ANYTHING:  # `false`: any further item breaks it
                out.append(replace(arrays, num_items=(len(prefix) + 1, None)))
            else:
                place.refuse("items", "after a prefix it is not supported where it must not hold")
        return out

    def _terms(self, place: Place, keyword: str, size: int, wanted: bool) -> tuple[Term, ...]:
        return tuple(term(self._below(place, keyword, i), wanted=wanted) for i in range(size))

    def _num_items(self, place: Place, value: object, wanted: bool, keyword: str) -> Alternatives:
        limit = count(value, f"{place.pointer}/{keyword}")
        bounds = _bounds(limit, "min" in keyword, wanted)
        if bounds is None:
            return []
        case = Case(num_items=bounds)
        return [case if wanted else case.only(ARRAY)]

    def _contains(self, place: Place, value: object, wanted: bool) -> Alternatives:
        schema = place.schema
        assert isinstance(schema, Mapping)
        low = count(schema.get("minContains", 1), f"{place.pointer}/minContains")
        high = schema.get("maxContains")
        high = None if high is None else count(high, f"{place.pointer}/maxContains")
        item = term(self._below(place, "contains"))
        if wanted:
            if high is not None and low > high:
                return [Case(TYPES - {ARRAY})]
            if low == 0 and high is None:
                return [_FREE]
            return [Case(contains=(Contains(item, low, high),))]
        arrays = Case().only(ARRAY)
        out = []
        if low:
            out.append(replace(arrays, contains=(Contains(item, 0, low - 1),)))
        if high is not None:
            out.append(replace(arrays, contains=(Contains(item, high + 1, None),)))
        return out

    def _unique(self, place: Place, value: object, wanted: bool) -> Alternatives:
        if value is not True:
            return [_FREE] if wanted else []
        if not wanted:
            place.refuse("uniqueItems", "it is not supported where it must not hold")
        return [Case(unique=f"{place.pointer}/uniqueItems")]

    # Keywords: objects

    def _layer(self, place: Place, wanted: bool) -> Properties:
        schema = place.schema
        assert isinstance(schema, Mapping)
        at = place.pointer

        def terms(keyword: str) -> tuple[tuple[str, Term], ...]:
            names = expect(schema.get(keyword, {}), dict, f"{at}/{keyword}")
            return tuple((n, term(self._below(place, keyword, n), wanted=wanted)) for n in names)

        explicit = "additionalProperties" in schema
        rest = ANYTHING
        if explicit:
            rest = term(self._below(place, "additionalProperties"), wanted=wanted)
        return Properties(terms("properties"), terms("patternProperties"), rest, explicit)

    def _properties(self, place: Place, value: object, wanted: bool, keyword: str) -> Alternatives:
        """The three keywords together, at the first of them that stands there."""
        schema = place.schema
        assert isinstance(schema, Mapping)
        if keyword != next(k for k in schema if k in _LAYER):
            return [_FREE] if wanted else []
        layer = self._layer(place, wanted)
        if wanted:
            return [Case(properties=(layer,))]
        objects = Case().only(OBJECT)
        out = [
            replace(
                objects,
                properties=(Properties(((name, broken),)),),
                required=(name,),
            )
            for name, broken in layer.named
            if broken != NOTHING
        ]
        some = [Some(layer, text, broken) for text, broken in layer.patterns if broken != NOTHING]
        if layer.explicit and layer.rest != NOTHING:
            some.append(Some(layer, None, layer.rest))
        return out + [replace(objects, some=(each,)) for each in some]

    def _required(self, place: Place, value: object, wanted: bool) -> Alternatives:
        if isinstance(value, bool):  # draft 3 wrote it beside each property
            place.refuse("required", "a bool is not supported; list the names beside 'properties'")
        names = _names(value, f"{place.pointer}/required")
        if wanted:
            return [Case(required=names)]
        objects = Case().only(OBJECT)
        return [replace(objects, properties=(_without(name),)) for name in names]

    def _num_properties(
        self, place: Place, value: object, wanted: bool, keyword: str
    ) -> Alternatives:
        limit = count(value, f"{place.pointer}/{keyword}")
        bounds = _bounds(limit, "min" in keyword, wanted)
        if bounds is None:
            return []
        case = Case(num_properties=bounds)
        return [case if wanted else case.only(OBJECT)]

    def _property_names(self, place: Place, value: object, wanted: bool) -> Alternatives:
        keys = term(self._below(place, "propertyNames"), wanted=wanted)
        if wanted:
            return [Case(keys=keys)]
        place.refuse("propertyNames", "it is not supported where it must not hold")

    def _dependent(self, place: Place, value: object, wanted: bool, keyword: str) -> Alternatives:
        if keyword == "dependencies" and not wanted and self._document.draft >= 2019:
            place.refuse(keyword, "this draft has it no more, so what breaks it is not sure")
        parts = []
        given = expect(value, dict, f"{place.pointer}/{keyword}")
        for name, needs in given.items():
            if isinstance(needs, list):
                names = _names(needs, f"{place.pointer}/{keyword}/{escape(name)}")
                parts.append(_needing(name, names, wanted))
            else:
                parts.append(self._dependent_schema(place, keyword, name, wanted))
        if wanted:
            return self._all(parts)
        return list(itertools.chain(*parts))

    def _dependent_schema(
        self, place: Place, keyword: str, name: str, wanted: bool
    ) -> Alternatives:
        inner = self._literal(Literal(self._below(place, keyword, name), wanted), apart=False)
        present = Case(required=(name,)).only(OBJECT)
        with_it = self._all(([present], inner))
        return [Case(properties=(_without(name),)), *with_it] if wanted else with_it


def _ordered(wanted: Term) -> list[Literal]:
    """By place: the order of what is generated does not depend on hashes."""
    return sorted(wanted, key=lambda literal: (literal.place.number, literal.wanted))


def _unevaluating(cases: Alternatives) -> Alternatives:
    """What is known because a schema does not hold counts as evaluated by nobody."""
    return [
        replace(
            case,
            properties=tuple(replace(p, evaluates=False) for p in case.properties),
            items=tuple(replace(i, evaluates=False) for i in case.items),
        )
        if case.properties or case.items
        else case
        for case in cases
    ]


def _without(name: str) -> Properties:
    return Properties(((name, NOTHING),))


def _needing(name: str, names: tuple[str, ...], wanted: bool) -> Alternatives:
    if wanted:
        return [Case(needs=tuple((name, other) for other in names if other != name))]
    present = Case(required=(name,)).only(OBJECT)
    return [replace(present, properties=(_without(other),)) for other in names]


def _bounds(limit: int, is_low: bool, wanted: bool) -> tuple[int, int | None] | None:
    if wanted:
        return (limit, None) if is_low else (0, limit)
    if is_low:
        return (0, limit - 1) if limit else None
    return limit + 1, None


def _names(value: object, at: str) -> tuple[str, ...]:
    return tuple(expect(name, str, at) for name in expect(value, list, at))


def _types(place: Place, declared: object) -> list[str]:
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


def _faces_differ(a: Any, b: Any) -> bool:
    (a_types, a_tags, a_values), (b_types, b_tags, b_values) = a, b
    if not a_types & b_types:
        return True
    if a_values is not None and b_values is not None:
        return not {*map(Given, a_values)} & {*map(Given, b_values)}
    if a_types == b_types == {OBJECT}:
        return any(
            not {*map(Given, a_tags[name])} & {*map(Given, b_tags[name])}
            for name in a_tags.keys() & b_tags.keys()
        )
    return False


def _named(rule: Any, keyword: str) -> _Rule:
    return lambda cases, place, value, wanted: rule(cases, place, value, wanted, keyword)


_FREE: Final = Case()
_IN_PLACE: Final = frozenset(
    ("$ref", "$dynamicRef", "$recursiveRef", "allOf", "anyOf", "oneOf", "not", "if")
)
_LAYER: Final = ("properties", "patternProperties", "additionalProperties")

RULES: Final[dict[str, _Rule]] = {
    "type": Cases._type,
    "enum": Cases._enum,
    "const": Cases._const,
    "allOf": Cases._all_of,
    "anyOf": Cases._any_of,
    "oneOf": Cases._one_of,
    "not": Cases._not,
    "if": Cases._if,
    "multipleOf": Cases._multiple,
    "pattern": Cases._pattern,
    "format": Cases._format,
    "items": Cases._items,
    "prefixItems": Cases._prefix_items,
    "contains": Cases._contains,
    "uniqueItems": Cases._unique,
    "required": Cases._required,
    "propertyNames": Cases._property_names,
    **{k: _named(Cases._reference, k) for k in ("$ref", "$dynamicRef", "$recursiveRef")},
    **{
        k: _named(Cases._bound, k)
        for k in ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")
    },
    **{k: _named(Cases._length, k) for k in ("minLength", "maxLength")},
    **{k: _named(Cases._num_items, k) for k in ("minItems", "maxItems")},
    **{k: _named(Cases._num_properties, k) for k in ("minProperties", "maxProperties")},
    **{k: _named(Cases._properties, k) for k in _LAYER},
    **{
        k: _named(Cases._dependent, k)
        for k in ("dependentRequired", "dependentSchemas", "dependencies")
    },
}
KEYWORDS: Final = frozenset(RULES) | {
    "additionalItems",
    "unevaluatedProperties",
    "unevaluatedItems",
    "then",
    "else",
    "minContains",
    "maxContains",
}
"""The keywords that are honoured."""
_LOWER: Final = {keyword.lower(): keyword for keyword in KEYWORDS}
