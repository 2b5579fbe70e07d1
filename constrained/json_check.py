"""From a JSON schema to its shape; refuses by name, with a JSON pointer, what it cannot honour.

Every value that a shape generates validates against the schema (JSON Schema 2020-12). The reverse
is not claimed, for generation needs less: objects are closed (no other properties than those
named), properties come in the order of the schema, whitespace is fixed, and values of no declared
type nest at most `ANYTHING_DEPTH` deep.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from functools import cached_property
from typing import Final, NoReturn, cast, get_args

from .errors import GrammarError, Unsupported
from .json_numbers import Bound, bounded_integer, bounded_number
from .json_shape import (
    Anything,
    Array,
    Bounded,
    Formatted,
    JsonType,
    Leaf,
    Map,
    Matching,
    Object,
    Property,
    Shape,
    Union,
    Values,
    are_disjoint,
    kinds,
    of_types,
    types_of,
)
from .json_strings import FORMATS
from .json_values import brief, count, escape, expect, fragment, number
from .spec import JsonSchema, parse_json

ANYTHING_DEPTH: Final = 3

TYPES: Final[tuple[JsonType, ...]] = get_args(JsonType)
ANNOTATIONS: Final = frozenset(
    "$schema $id $anchor $comment $defs definitions title description default examples deprecated "
    "readOnly writeOnly discriminator contentEncoding contentMediaType contentSchema".split()
)
"""The keywords that assert nothing and so are ignored, as is every extension keyword `x-...`."""
_OF_TYPE: Final[dict[JsonType, frozenset[str]]] = {
    "object": frozenset(("properties", "required", "additionalProperties")),
    "array": frozenset(("items", "prefixItems", "minItems", "maxItems", "uniqueItems")),
    "string": frozenset(("minLength", "maxLength", "pattern", "format")),
    "integer": frozenset(("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")),
    "number": frozenset(("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")),
    "boolean": frozenset(),
    "null": frozenset(),
}
_APPLICATORS: Final = ("$ref", "anyOf", "oneOf", "allOf", "enum", "const")
KEYWORDS: Final = frozenset().union({"type"}, _APPLICATORS, *_OF_TYPE.values())
"""The keywords that are honoured, all compared with the `jsonschema` package in the tests."""

Schema = Mapping[str, object]


def check_schema(spec: JsonSchema) -> Shape:
    """The shape of a schema; raises Unsupported or GrammarError with the place as JSON pointer."""
    return _Checker(parse_json(spec.schema)).shape


class _Checker:
    def __init__(self, root: object) -> None:
        self._root = root
        self._resolved: dict[str, Shape] = {}
        self._open: set[str] = set()

    @cached_property
    def shape(self) -> Shape:
        return self._shape(self._root, "#")

    def _shape(self, schema: object, at: str) -> Shape:
        if schema is True:
            return Anything(frozenset(TYPES), ANYTHING_DEPTH)
        if schema is False:
            raise GrammarError(f"{at}: the schema `false` allows no value")
        if not isinstance(schema, dict):
            raise GrammarError(f"{at}: a schema is an object or a bool, not {brief(schema)}")
        asserting = {keyword for keyword in schema if not _is_annotation(keyword)}
        for keyword in schema:
            if keyword in asserting - KEYWORDS:
                self._refuse(at, keyword, "this keyword is not supported")
        for keyword, lower in self._applicators.items():
            if keyword in schema:
                beside = asserting - {keyword, "type"}
                if beside:
                    self._refuse(at, keyword, f"it is not supported beside {sorted(beside)[0]!r}")
                return self._of_type(lower(schema, at), schema, at, keyword)
        return _union([self._typed(kind, schema, at) for kind in self._types(schema, at)])

    # Schemas made of schemas

    @cached_property
    def _applicators(self) -> dict[str, Callable[[Schema, str], Shape]]:
        return {
            "$ref": self._reference,
            "anyOf": self._any_of,
            "oneOf": self._one_of,
            "allOf": self._all_of,
            "enum": self._enum,
            "const": lambda schema, at: self._values([schema["const"]], schema, f"{at}/const"),
        }

    def _reference(self, schema: Schema, at: str) -> Shape:
        target = schema["$ref"]
        if not isinstance(target, str) or not target.startswith("#"):
            self._refuse(at, "$ref", f"only references within the schema are, not {brief(target)}")
        target = fragment(target, f"{at}/$ref")
        if target in self._open or target == "#":
            self._refuse(at, "$ref", f"{target} is recursive, which is not supported")
        if target not in self._resolved:
            self._open.add(target)
            self._resolved[target] = self._shape(self._look_up(target, at), target)
            self._open.remove(target)
        return self._resolved[target]

    def _look_up(self, target: str, at: str) -> object:
        node = self._root
        for part in target[1:].split("/")[1:]:
            key = part.replace("~1", "/").replace("~0", "~")
            if isinstance(node, dict) and key in node:
                node = node[key]
            elif isinstance(node, list) and key.isdecimal() and int(key) < len(node):
                node = node[int(key)]
            else:
                raise GrammarError(f"{at}/$ref: there is no {target}")
        if not target.startswith("#/"):
            self._refuse(at, "$ref", f"anchors such as {target} are not supported")
        return node

    def _options(self, schema: Schema, at: str, keyword: str) -> list[Shape]:
        options = expect(schema[keyword], list, f"{at}/{keyword}")
        if not options:
            raise GrammarError(f"{at}/{keyword}: it needs at least one schema")
        return [self._shape(option, f"{at}/{keyword}/{i}") for i, option in enumerate(options)]

    def _any_of(self, schema: Schema, at: str) -> Shape:
        return _union(self._options(schema, at, "anyOf"))

    def _one_of(self, schema: Schema, at: str) -> Shape:
        options = self._options(schema, at, "oneOf")
        is_open = [self._is_open(option) for option in expect(schema["oneOf"], list, at)]
        for i, option in enumerate(options):
            for j in range(i):
                told_by_tag = kinds(option) == kinds(options[j]) == {"object"}
                may_be_both = (is_open[i] or is_open[j]) and not told_by_tag
                if may_be_both or not are_disjoint(option, options[j]):
                    self._refuse(at, "oneOf", f"options {j} and {i} may allow the same value")
        return _union(options)

    def _is_open(self, schema: object) -> bool:
        """Whether a schema, found good before, lets pass what is not of the type it speaks of."""
        if not isinstance(schema, dict) or schema.keys() & {"type", "enum", "const"}:
            return False
        if "$ref" in schema:
            return self._is_open(self._look_up(fragment(schema["$ref"], "#"), "#"))
        options = [o for k in ("anyOf", "oneOf", "allOf") for o in schema.get(k, ())]
        if options:
            return any(map(self._is_open, options))
        return any(_OF_TYPE[kind] & schema.keys() for kind in TYPES)

    def _all_of(self, schema: Schema, at: str) -> Shape:
        options = self._options(schema, at, "allOf")
        if len(options) > 1:
            self._refuse(at, "allOf", "more than one schema is not supported")
        return options[0]

    def _of_type(self, shape: Shape, schema: Schema, at: str, keyword: str) -> Shape:
        """The values of `shape` that have the type declared beside `keyword`."""
        if "type" not in schema:
            return shape
        try:
            narrowed = of_types(shape, frozenset(self._types(schema, at)))
        except Unsupported as error:
            self._refuse(at, keyword, str(error))
        if narrowed is None:
            self._refuse(at, keyword, f"it is not supported beside 'type' {brief(schema['type'])}")
        return narrowed

    # Given values

    def _enum(self, schema: Schema, at: str) -> Shape:
        return self._values(expect(schema["enum"], list, f"{at}/enum"), schema, f"{at}/enum")

    def _values(self, values: list[object], schema: Schema, at: str) -> Shape:
        allowed = set(self._types(schema, at.rpartition("/")[0]))
        fitting = [value for value in values if types_of(value) & allowed]
        if not fitting:
            raise GrammarError(f"{at}: no value of the declared type")
        texts = tuple(dict.fromkeys(json.dumps(v, ensure_ascii=False) for v in fitting))
        return Values(texts, frozenset().union(*map(types_of, fitting)))

    # Types

    def _types(self, schema: Schema, at: str) -> list[JsonType]:
        """The declared types; where there are none, those that the keywords speak of, else all."""
        if "type" not in schema:
            implied = [kind for kind in TYPES if _OF_TYPE[kind] & schema.keys()]
            return [k for k in implied if k != "integer"] or list(TYPES)
        declared = schema["type"]
        names = declared if isinstance(declared, list) else [declared]
        for name in names:
            if name not in TYPES:
                raise GrammarError(f"{at}/type: {brief(name)} is not a JSON type")
        if not names:
            raise GrammarError(f"{at}/type: no type is given")
        return [cast(JsonType, name) for name in dict.fromkeys(names)]

    def _typed(self, kind: JsonType, schema: Schema, at: str) -> Shape:
        if kind == "object":
            return self._object(schema, at)
        if kind == "array":
            return self._array(schema, at)
        if kind == "string":
            return self._string(schema, at)
        if kind in ("integer", "number"):
            return self._number(kind, schema, at)
        return Leaf(kind, json.dumps({"type": kind}))

    def _object(self, schema: Schema, at: str) -> Shape:
        declared = expect(schema.get("properties", {}), dict, f"{at}/properties")
        required = expect(schema.get("required", []), list, f"{at}/required")
        others = schema.get("additionalProperties", True)
        if not declared and not required:
            if others is False:
                return Object(())
            if others is True:
                return Anything(frozenset(("object",)), ANYTHING_DEPTH)
            return Map(self._shape(others, f"{at}/additionalProperties"))
        properties = [
            Property(name, self._shape(value, f"{at}/properties/{escape(name)}"), name in required)
            for name, value in declared.items()
            if value is not False or name in required
        ]
        for name in required:
            if expect(name, str, f"{at}/required") not in declared:
                if others is False:
                    raise GrammarError(f"{at}/required: {name!r} is required, yet not allowed")
                value = self._shape(others, f"{at}/additionalProperties")
                properties.append(Property(name, value, required=True))
        return Object(tuple(properties))

    def _array(self, schema: Schema, at: str) -> Shape:
        least, most = self._range(schema, at, "minItems", "maxItems")
        if schema.get("uniqueItems", False) is not False and (most is None or most > 1):
            self._refuse(at, "uniqueItems", "it is not supported")
        prefix = expect(schema.get("prefixItems", []), list, f"{at}/prefixItems")
        shapes = [self._shape(item, f"{at}/prefixItems/{i}") for i, item in enumerate(prefix)]
        # After a prefix, more items come only where they are declared or needed.
        items = schema.get("items", not shapes or least > len(shapes))
        if isinstance(items, list):
            self._refuse(at, "items", "a list of schemas is not supported; use prefixItems")
        if items is False or (most is not None and most <= len(shapes)):
            if least > len(shapes):
                self._refuse(at, "minItems", "more items are required than allowed")
            return Array(tuple(shapes[:most]), None, least, most)
        return Array(tuple(shapes), self._shape(items, f"{at}/items"), least, most)

    def _string(self, schema: Schema, at: str) -> Shape:
        least, most = self._range(schema, at, "minLength", "maxLength")
        name, pattern = schema.get("format"), schema.get("pattern")
        if name is not None:
            if name not in FORMATS:
                self._refuse(at, "format", f"{brief(name)} is not one of {sorted(FORMATS)}")
            for keyword in ("pattern", "minLength", "maxLength"):
                if keyword in schema:
                    self._refuse(at, keyword, "it is not supported beside 'format'")
            return Formatted(FORMATS[name])
        if pattern is not None:
            text = expect(pattern, str, f"{at}/pattern")
            return Matching(text, least, most, f"{at}/pattern")
        bounds = {k: v for k, v in (("minLength", least), ("maxLength", most)) if v is not None}
        if not least:
            bounds.pop("minLength")
        return Leaf("string", json.dumps({"type": "string", **bounds}))

    def _number(self, kind: JsonType, schema: Schema, at: str) -> Shape:
        low = self._tighter(schema, at, "minimum", "exclusiveMinimum", max)
        high = self._tighter(schema, at, "maximum", "exclusiveMaximum", min)
        if low is None and high is None:
            return Leaf(kind, json.dumps({"type": kind}))
        try:
            if kind == "integer":
                return Bounded("integer", bounded_integer(low, high))
            return Bounded("number", bounded_number(low, high))
        except Unsupported as error:
            raise Unsupported(f"{at}: {error}") from error

    def _tighter(
        self,
        schema: Schema,
        at: str,
        plain: str,
        exclusive: str,
        choose: Callable[..., Decimal],
    ) -> Bound | None:
        limits = {k: number(schema[k], f"{at}/{k}") for k in (plain, exclusive) if k in schema}
        if not limits:
            return None
        value = choose(limits.values())
        return value, limits.get(exclusive) == value

    def _range(self, schema: Schema, at: str, low: str, high: str) -> tuple[int, int | None]:
        least = count(schema.get(low, 0), f"{at}/{low}")
        most = count(schema[high], f"{at}/{high}") if high in schema else None
        if most is not None and least > most:
            raise GrammarError(f"{at}/{low}: {least} is more than {high} {most}")
        return least, most

    def _refuse(self, at: str, keyword: str, why: str) -> NoReturn:
        raise Unsupported(f"{at}/{escape(keyword)}: {why}")


def _is_annotation(keyword: str) -> bool:
    return keyword in ANNOTATIONS or keyword.startswith("x-")


def _union(options: Sequence[Shape]) -> Shape:
    return options[0] if len(options) == 1 else Union(tuple(options))
