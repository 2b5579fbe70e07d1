"""From subschemas to alternatives: schemas made of schemas, wanted and not wanted.

`Cases.of(term)` says which alternatives of plain constraints a conjunction of subschemas leaves; it
looks as deep as a value of one level goes, and speaks of the values below it in terms. What the
other keywords mean is in `keywords`. Alternatives may overlap, for the machine follows all of them.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final

from ..errors import GrammarError, LimitExceeded
from .constraints import (
    ANYTHING,
    FREE,
    NOTHING,
    OBJECT,
    TYPES,
    Alternatives,
    Case,
    Given,
    Items,
    Literal,
    Properties,
    Term,
    both,
    conjunction,
    term,
)
from .document import Document, Place
from .evaluate import Evaluator
from .keywords import OF_ONE_TYPE, Rule, declared_types, with_name
from .values import brief, expect

ANNOTATIONS: Final = frozenset(
    "$schema $id id $anchor $dynamicAnchor $recursiveAnchor $comment $defs definitions $vocabulary "
    "title description default example examples deprecated readOnly writeOnly discriminator "
    "contentEncoding contentMediaType contentSchema externalDocs xml nullable "
    "then else minContains maxContains".split()
)
"""Keywords that assert nothing by themselves. Unknown keywords are annotations too, as the
specification says; what looks like a keyword of ours in another case is refused."""

_MOST_CASES: Final = 400


class Cases:
    """Of one document; every answer is kept."""

    def __init__(self, document: Document, evaluator: Evaluator, check_time: Callable[[], None]):
        self.document = document
        self._evaluator = evaluator
        self._check_time = check_time
        self._known: dict[tuple[Literal, bool], Alternatives] = {}
        self._open: set[Literal] = set()

    def of(self, wanted: Term) -> Alternatives:
        """Raises Unsupported or GrammarError, with a JSON pointer."""
        if wanted == NOTHING:
            return []
        cases = self.together([self.literal(each, apart=False) for each in _ordered(wanted)])
        return [case for each in cases if (case := self._settled(each, wanted)) is not None]

    def _settled(self, case: Case, wanted: Term) -> Case | None:
        """With the values that are none left out, where values are given."""
        if case.values is None:
            return case
        values = tuple(v for v in case.values if self._evaluator.fits(v.value, wanted))
        return case._replace(values=values) if values else None

    # Conjunction and disjunction

    def together(self, parts: Iterable[Alternatives]) -> Alternatives:
        """The alternatives in which one of each part holds."""
        cases = [FREE]
        for alternatives in parts:
            if len(alternatives) == 1 and alternatives[0] is FREE:
                continue
            is_first = len(cases) == 1 and cases[0] is FREE
            together = alternatives if is_first else self._products(cases, alternatives)
            cases = list(dict.fromkeys(together)) if len(together) > 1 else together
            if len(cases) > _MOST_CASES:
                raise LimitExceeded(f"its keywords make more than {_MOST_CASES} alternatives")
            self._check_time()
        return cases

    def _products(self, left: Alternatives, right: Alternatives) -> Alternatives:
        return [
            case
            for a in left
            for b in right
            if (case := self._pruned(conjunction(a, b))) is not None
        ]

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
                return case._replace(types=types) if types else None
        return case

    def _has_no_value(self, wanted: Term) -> bool:
        if wanted == NOTHING:
            return True
        for place, is_wanted in wanted:
            schema = place.schema
            if not is_wanted or not isinstance(schema, dict) or "$ref" in schema:
                continue
            values = [schema["const"]] if "const" in schema else schema.get("enum")
            if isinstance(values, list):
                return not any(self._evaluator.fits(value, wanted) for value in values)
        return False

    # Subschemas

    def literal(self, literal: Literal, *, apart: bool) -> Alternatives:
        """What one subschema leaves, wanted or not.

        apart: alternatives of `anyOf` are told apart by which of its schemas hold, for what they
        have evaluated matters.
        """
        place, wanted = literal
        if not isinstance(place.schema, dict):
            if not isinstance(place.schema, bool):
                raise GrammarError(
                    f"{place.pointer}: a schema is an object or a bool, not {brief(place.schema)}"
                )
            return [FREE] if place.schema is wanted else []
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

    def _keywords(self, place: Place) -> Iterator[tuple[str, Rule]]:
        schema = place.schema
        assert isinstance(schema, dict)
        if "$ref" in schema and self.document.ref_stands_alone:
            yield "$ref", RULES["$ref"]
            return
        for keyword in schema:
            rule = RULES.get(keyword)
            if rule is not None:
                yield keyword, rule
            elif keyword not in _KNOWN and keyword.lower() in _LOWER:
                place.refuse(keyword, f"this is no keyword; is {_LOWER[keyword.lower()]!r} meant?")

    def _wanted(self, place: Place, apart: bool) -> Alternatives:
        schema = place.schema
        assert isinstance(schema, dict)
        apart = apart or "unevaluatedProperties" in schema or "unevaluatedItems" in schema
        parts = []
        found = list(self._keywords(place))
        # What makes alternatives comes last, one after the other: most of them then end at once.
        if not schema.keys().isdisjoint(_IN_PLACE):
            found.sort(key=lambda each: each[0] in _IN_PLACE)
        for keyword, rule in found:
            if keyword == "anyOf" and apart:
                parts.append(self._any_apart(place, schema[keyword]))
            elif keyword == "allOf":
                branches = self._schemas(place, keyword, schema[keyword])
                parts += [self.literal(Literal(b, True), apart=apart) for b in branches]
            elif keyword in _IN_PLACE and keyword != "oneOf" and apart:
                parts.append(self._in_place_apart(place, keyword))
            else:
                parts.append(rule(self, place, schema[keyword], True))
        cases = self.together(parts)
        if "unevaluatedProperties" in schema:
            cases = [self._closed_object(case, place) for case in cases]
        if "unevaluatedItems" in schema:
            cases = [self._closed_array(case, place) for case in cases]
        return cases

    def _unwanted(self, place: Place) -> Alternatives:
        schema = place.schema
        assert isinstance(schema, dict)
        for keyword in ("unevaluatedProperties", "unevaluatedItems"):
            if keyword in schema:
                place.refuse(keyword, "it is not supported where its schema must not hold")
        return [
            case
            for keyword, rule in self._keywords(place)
            for case in rule(self, place, schema[keyword], False)
        ]

    def below(self, place: Place, *path: str | int) -> Place:
        return self.document.below(place, *path)

    def _schemas(self, place: Place, keyword: str, value: object) -> list[Place]:
        schemas = expect(value, list, f"{place.pointer}/{keyword}")
        if not schemas:
            place.wrong(keyword, "it needs at least one schema")
        return [self.below(place, keyword, i) for i in range(len(schemas))]

    def _any_apart(self, place: Place, value: object) -> Alternatives:
        branches = [
            self.literal(Literal(each, True), apart=True)
            for each in self._schemas(place, "anyOf", value)
        ]
        cases: Alternatives = []
        for size in range(1, len(branches) + 1):
            for chosen in itertools.combinations(branches, size):
                cases += self.together(chosen)
                if len(cases) > _MOST_CASES:
                    raise LimitExceeded(f"{place.pointer}/anyOf: too many ways to fit it at once")
        return cases

    def _in_place_apart(self, place: Place, keyword: str) -> Alternatives:
        def one(each: Place, wanted: bool = True) -> Alternatives:
            return self.literal(Literal(each, wanted), apart=wanted)

        schema = place.schema
        assert isinstance(schema, dict)
        if keyword == "not":
            return self._not(place, schema[keyword], True)
        if keyword != "if":
            return one(self.document.resolve(place, keyword))
        condition = self.below(place, "if")
        holds, fails = [one(condition)], [_unevaluating(one(condition, False))]
        if "then" in schema:
            holds.append(one(self.below(place, "then")))
        if "else" in schema:
            fails.append(one(self.below(place, "else")))
        return self.together(holds) + self.together(fails)

    def _closed_object(self, case: Case, place: Place) -> Case:
        """What no keyword beside or within has spoken of must fit `unevaluatedProperties`."""
        layers = [layer for layer in case.properties if layer.evaluates]
        if any(layer.explicit for layer in layers):
            return case
        rest = term(self.below(place, "unevaluatedProperties"))
        named = {name: ANYTHING for layer in layers for name, _ in layer.named}
        patterns = {text: ANYTHING for layer in layers for text, _ in layer.patterns}
        closing = Properties(tuple(named.items()), tuple(patterns.items()), rest, explicit=True)
        return case._replace(properties=(*case.properties, closing))

    def _closed_array(self, case: Case, place: Place) -> Case:
        if case.contains:
            place.refuse("unevaluatedItems", "it is not supported beside 'contains'")
        layers = [layer for layer in case.items if layer.evaluates]
        if any(layer.explicit for layer in layers):
            return case
        known = max((len(layer.prefix) for layer in layers), default=0)
        rest = term(self.below(place, "unevaluatedItems"))
        return case._replace(items=(*case.items, Items((ANYTHING,) * known, rest)))

    # Keywords: schemas made of schemas

    def _reference(self, place: Place, value: object, wanted: bool, keyword: str) -> Alternatives:
        return self.literal(Literal(self.document.resolve(place, keyword), wanted), apart=False)

    def _all_of(self, place: Place, value: object, wanted: bool) -> Alternatives:
        parts = [
            self.literal(Literal(each, wanted), apart=False)
            for each in self._schemas(place, "allOf", value)
        ]
        return self.together(parts) if wanted else list(itertools.chain(*parts))

    def _any_of(self, place: Place, value: object, wanted: bool) -> Alternatives:
        parts = [
            self.literal(Literal(each, wanted), apart=False)
            for each in self._schemas(place, "anyOf", value)
        ]
        return list(itertools.chain(*parts)) if wanted else self.together(parts)

    def _one_of(self, place: Place, value: object, wanted: bool) -> Alternatives:
        schemas = self._schemas(place, "oneOf", value)
        if wanted and self._are_told_apart(schemas):
            return [case for s in schemas for case in self.literal(Literal(s, True), apart=False)]
        holds = [self.literal(Literal(each, True), apart=False) for each in schemas]
        # A pair that cannot hold together needs no further telling apart.
        overlaps = {
            (i, j): self.together((holds[i], holds[j]))
            for i, j in itertools.combinations(range(len(schemas)), 2)
        }
        if not wanted:
            none = self.together(
                self.literal(Literal(each, False), apart=False) for each in schemas
            )
            return none + [case for cases in overlaps.values() for case in cases]
        out: Alternatives = []
        for i, cases in enumerate(holds):
            rivals = [j for j in range(len(schemas)) if j != i and overlaps[min(i, j), max(i, j)]]
            fails = [
                _unevaluating(self.literal(Literal(schemas[j], False), apart=False)) for j in rivals
            ]
            out += self.together((cases, *fails))
        return out

    def _are_told_apart(self, schemas: Sequence[Place]) -> bool:
        """Whether no two can hold together, by their types or a required property's values."""
        faces = [self._face(place) for place in schemas]
        return all(_faces_differ(a, b) for a, b in itertools.combinations(faces, 2))

    def _face(self, place: Place) -> tuple[frozenset[str], dict[str, list[object]], object]:
        """Types, the values of required properties, and the values that it allows (None: any)."""
        schema = place.schema
        for _ in range(8):
            if not isinstance(schema, dict) or "$ref" not in schema:
                break
            if len(schema) > 1 and not self.document.ref_stands_alone:
                break
            place = self.document.resolve(place, "$ref")
            schema = place.schema
        if not isinstance(schema, dict):
            return TYPES, {}, None
        types = TYPES
        if "type" in schema:
            types = frozenset(declared_types(place, schema["type"]))
        values = [schema["const"]] if "const" in schema else schema.get("enum")
        tags: dict[str, list[object]] = {}
        properties, required = schema.get("properties"), schema.get("required")
        if isinstance(properties, dict) and isinstance(required, list):
            for name in required:
                inner = properties.get(name) if isinstance(name, str) else None
                if isinstance(inner, dict):
                    tag = [inner["const"]] if "const" in inner else inner.get("enum")
                    if isinstance(tag, list):
                        tags[name] = tag
        return types, tags, values if isinstance(values, list) else None

    def _not(self, place: Place, value: object, wanted: bool) -> Alternatives:
        inner = Literal(self.below(place, "not"), not wanted)
        return _unevaluating(self.literal(inner, apart=False))

    def _if(self, place: Place, value: object, wanted: bool) -> Alternatives:
        schema = place.schema
        assert isinstance(schema, dict)
        condition = self.below(place, "if")
        out: Alternatives = []
        for keyword, holds in (("then", True), ("else", False)):
            if keyword in schema:
                branch = self.literal(Literal(self.below(place, keyword), wanted), apart=False)
            elif wanted:
                branch = [FREE]
            else:
                continue
            if wanted and keyword not in schema and "then" not in schema and "else" not in schema:
                return [FREE]
            out += self.together((self.literal(Literal(condition, holds), apart=False), branch))
        return out


def _ordered(wanted: Term) -> list[Literal]:
    """By place: the order of what is generated does not depend on hashes."""
    if len(wanted) == 1:
        return list(wanted)
    return sorted(wanted, key=lambda literal: (literal.place.number, literal.wanted))


def _unevaluating(cases: Alternatives) -> Alternatives:
    """What is known because a schema does not hold counts as evaluated by nobody."""
    return [
        case._replace(
            properties=tuple(p._replace(evaluates=False) for p in case.properties),
            items=tuple(i._replace(evaluates=False) for i in case.items),
        )
        if case.properties or case.items
        else case
        for case in cases
    ]


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


_IN_PLACE: Final = frozenset(
    ("$ref", "$dynamicRef", "$recursiveRef", "allOf", "anyOf", "oneOf", "not", "if")
)

RULES: Final[dict[str, Rule]] = {
    "allOf": Cases._all_of,
    "anyOf": Cases._any_of,
    "oneOf": Cases._one_of,
    "not": Cases._not,
    "if": Cases._if,
    **{k: with_name(Cases._reference, k) for k in ("$ref", "$dynamicRef", "$recursiveRef")},
    **OF_ONE_TYPE,
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
_KNOWN: Final = ANNOTATIONS | KEYWORDS
_LOWER: Final = {keyword.lower(): keyword for keyword in KEYWORDS}
