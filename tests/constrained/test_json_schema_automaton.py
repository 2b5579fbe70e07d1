"""JSON schemas as automata, judged by the `jsonschema` package and compared with outlines-core."""

import datetime
import enum
import json
import re
import uuid
from decimal import Decimal
from typing import Annotated, Literal

import jsonschema
import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from outlines_core.json_schema import build_regex_from_schema

from sapwood.constrained import CompileLimits, GrammarError, JsonSchema, LimitExceeded, Unsupported
from sapwood.constrained.json_check import ANNOTATIONS, KEYWORDS
from sapwood.constrained.json_numbers import bounded_integer, bounded_number
from sapwood.constrained.lower import lower

LIMITS = CompileLimits()

POINT = {
    "type": "object",
    "properties": {"x": {"type": "integer"}, "y": {"type": "integer"}},
    "required": ["x", "y"],
    "additionalProperties": False,
}

# name -> schema, texts that must be accepted, texts that must be refused
CASES: dict[str, tuple[object, list[str], list[str]]] = {
    "null": ({"type": "null"}, ["null"], ["nul", "0"]),
    "boolean": ({"type": "boolean"}, ["true", "false"], ["True", "1"]),
    "integer": ({"type": "integer"}, ["0", "-7", "120"], ["01", "1.5", "+1", ""]),
    "number": ({"type": "number"}, ["0", "-7.25", "1e+9", "2.5E-3"], [".5", "1.", "1e"]),
    "string": (
        {"type": "string"},
        ['""', '"Zoë 😀"', r'"a\"b\\\n"'],
        ['"', '"a', '"a\nb"', r'"\x"', '"\x00"'],
    ),
    "types": ({"type": ["integer", "null"]}, ["3", "null"], ["true", '"3"']),
    "types with keywords": (
        {"type": ["string", "integer", "null"], "maxLength": 2, "minimum": 5},
        ['"ab"', "5", "null"],
        ['"abc"', "4", "true"],
    ),
    "length": (
        {"type": "string", "minLength": 2, "maxLength": 3},
        ['"ab"', '"é😀"', r'"\n\"\\"'],
        ['"a"', '"abcd"', r'"\n"'],
    ),
    "length by a whole float": ({"type": "string", "maxLength": 1.0}, ['"a"'], ['"ab"']),
    "pattern is searched": ({"type": "string", "pattern": "b+"}, ['"abbc"', '"b"'], ['"ac"']),
    "pattern with anchors": ({"type": "string", "pattern": r"^\d{2}$"}, ['"12"'], ['"123"', '"1"']),
    "pattern needs escapes": (
        {"type": "string", "pattern": r'^["\\/\n]{2}$'},
        [r'"\"\\"', r'"/\n"', r'"\n\n"'],
        ['"""', r'"\\"', '"\n\n"'],
    ),
    "pattern and length": (
        {"type": "string", "pattern": "^a+b?$", "minLength": 2, "maxLength": 3},
        ['"aa"', '"ab"', '"aab"'],
        ['"a"', '"aaab"', '"b"'],
    ),
    "pattern reads classes as every validator does": (
        {"type": "string", "pattern": r"^\w\W$"},
        ['"a-"'],
        ['"é-"', '"aé"'],
    ),
    "enum": (
        {"enum": ['a"b', 1, None, 1.5, {"a": [1, True]}, "é"]},
        [r'"a\"b"', "1", "null", "1.5", '{"a": [1, true]}', '"é"'],
        ['"a', "2", "{}"],
    ),
    "enum under a type": ({"type": "string", "enum": ["a", 1]}, ['"a"'], ["1"]),
    "enum of regex characters": (
        {"enum": ["a.*", "(", "\\d"]},
        ['"a.*"', '"("', r'"\\d"'],
        ['"a"'],
    ),
    "const": ({"const": "x/é\n"}, [r'"x/é\n"'], ['"x"']),
    "bounds": (
        {"type": "integer", "minimum": -3, "exclusiveMaximum": 12},
        ["-3", "0", "11"],
        ["-4", "12", "-0"],
    ),
    "both kinds of bound": (
        {"type": "integer", "minimum": 1, "exclusiveMinimum": 5},
        ["6"],
        ["5", "1"],
    ),
    "number bounds": (
        {"type": "number", "minimum": -0.5, "exclusiveMaximum": 1.25, "maximum": 7},
        ["-0.5", "0", "1.2499", "1", "-0.25"],
        ["-0.51", "1.25", "2", "-1"],
    ),
    "object": (
        POINT,
        ['{"x": 1, "y": -2}'],
        ['{"x": 1}', '{"y": 1, "x": 2}', '{"x":1,"y":2}', '{"x": 1, "y": 2, "z": 3}'],
    ),
    "optional properties": (
        {
            "properties": {"a": {"type": "null"}, "b": {"type": "null"}, "c": {"type": "null"}},
            "required": ["b"],
        },
        ['{"b": null}', '{"a": null, "b": null}', '{"b": null, "c": null}'],
        ["{}", '{"a": null}', '{"b": null,}', '{, "b": null}', '{"c": null, "b": null}'],
    ),
    "no required property": (
        {"properties": {"a": {"type": "null"}, "b": {"type": "null"}}},
        ["{}", '{"a": null}', '{"b": null}', '{"a": null, "b": null}'],
        ['{"a": null, }', '{"b": null, "a": null}'],
    ),
    "awkward names": (
        {"properties": {'a"b\\.*': {"type": "null"}, "é/~": {"type": "null"}}},
        [r'{"a\"b\\.*": null, "é/~": null}'],
        ['{"a": null}'],
    ),
    "required but not declared": (
        {"type": "object", "required": ["k"], "additionalProperties": {"type": "boolean"}},
        ['{"k": true}'],
        ["{}", '{"k": 1}'],
    ),
    "impossible optional property": (
        {"properties": {"a": False, "b": {"type": "null"}}},
        ["{}", '{"b": null}'],
        ['{"a": null}'],
    ),
    "map": (
        {"type": "object", "additionalProperties": {"type": "integer"}},
        ["{}", '{"a": 1}', '{"a": 1, "é": -2}'],
        ['{"a": "1"}', '{"a": 1,}', "{a: 1}"],
    ),
    "empty object": ({"type": "object", "additionalProperties": False}, ["{}"], ['{"a": 1}']),
    "array": (
        {"type": "array", "items": {"type": "integer"}},
        ["[]", "[1]", "[1, -2, 3]"],
        ["[1,2]", "[1, ]", "[ ]", '["1"]', "[1"],
    ),
    "array bounds": (
        {"type": "array", "items": {"type": "null"}, "minItems": 1, "maxItems": 3},
        ["[null]", "[null, null, null]"],
        ["[]", "[null, null, null, null]"],
    ),
    "array of at least": (
        {"items": {"type": "null"}, "minItems": 2},
        ["[null, null]", "[null, null, null]"],
        ["[]", "[null]"],
    ),
    "array of none": ({"type": "array", "maxItems": 0}, ["[]"], ["[1]"]),
    "unique but at most one": (
        {"type": "array", "uniqueItems": True, "maxItems": 1, "items": {"type": "null"}},
        ["[]", "[null]"],
        ["[null, null]"],
    ),
    "tuple": (
        {
            "type": "array",
            "prefixItems": [{"type": "integer"}, {"type": "null"}],
            "minItems": 2,
            "maxItems": 2,
        },
        ["[1, null]"],
        ["[]", "[1]", "[null, 1]", "[1, null, 1]"],
    ),
    "short tuple": (
        {"prefixItems": [{"type": "integer"}, {"type": "null"}], "items": False},
        ["[]", "[1]", "[1, null]"],
        ["[null]", "[1, null, 2]"],
    ),
    "tuple and more": (
        {"prefixItems": [{"type": "integer"}], "items": {"type": "null"}, "minItems": 1},
        ["[1]", "[1, null]", "[1, null, null]"],
        ["[]", "[null]", "[1, 1]"],
    ),
    "tuple cut short": (
        {"prefixItems": [{"type": "integer"}, {"type": "null"}], "maxItems": 1},
        ["[]", "[1]"],
        ["[1, null]"],
    ),
    "nested arrays": (
        {"type": "array", "items": {"type": "array", "items": POINT, "maxItems": 2}},
        ["[]", "[[]]", '[[{"x": 1, "y": 2}], []]'],
        ["[[], ]", "[1]"],
    ),
    "anyOf": ({"anyOf": [{"type": "integer"}, POINT]}, ["1", '{"x": 1, "y": 2}'], ["null"]),
    "oneOf of types": ({"oneOf": [{"type": "integer"}, {"type": "string"}]}, ["1", '"a"'], ["1.5"]),
    "oneOf of values": ({"oneOf": [{"const": "a"}, {"enum": ["b", "c"]}]}, ['"a"', '"c"'], ['"d"']),
    "oneOf with a tag": (
        {
            "oneOf": [
                {
                    "properties": {"kind": {"const": "a"}, "v": {"type": "null"}},
                    "required": ["kind"],
                },
                {"properties": {"kind": {"const": "b"}}, "required": ["kind"]},
            ],
            "discriminator": {"propertyName": "kind"},
        },
        ['{"kind": "a", "v": null}', '{"kind": "b"}'],
        ['{"kind": "c"}', '{"kind": "b", "v": null}'],
    ),
    "allOf of one": ({"allOf": [{"type": "null"}], "title": "x"}, ["null"], ["1"]),
    "references": (
        {
            "$defs": {"p": POINT, "a/b": {"$ref": "#/$defs/p"}},
            "type": "array",
            "items": {"$ref": "#/$defs/a~1b", "description": "a point"},
            "maxItems": 1,
        },
        ["[]", '[{"x": 1, "y": 2}]'],
        ["[1]"],
    ),
    "references by percent-encoding": (
        {
            "$defs": {"e f/%": {"type": "null"}, "é": {"type": "boolean"}},
            "prefixItems": [{"$ref": "#/$defs/e%20f~1%25"}, {"$ref": "#/%24defs/%C3%A9"}],
            "minItems": 2,
            "items": False,
        },
        ["[null, true]"],
        ["[true, null]", "[null]"],
    ),
    "reference beside what asserts nothing": (
        {
            "$defs": {"n": {"type": "integer", "minimum": 3}},
            "$ref": "#/$defs/n",
            "default": 5,
            "description": "d",
            "x-y": 1,
        },
        ["3"],
        ["2", "null"],
    ),
    "reference beside a type": (
        {"$defs": {"n": {"enum": [1, 1.5, "a", 2.0]}}, "$ref": "#/$defs/n", "type": "integer"},
        ["1", "2.0"],
        ["1.5", '"a"'],
    ),
    "anyOf beside a type": (
        {"type": "object", "anyOf": [POINT, {"required": ["a"]}]},
        ['{"x": 1, "y": 2}', '{"a": 1}'],
        ["{}", "null", "[]"],
    ),
    "anyOf beside a type that narrows it": (
        {"type": ["integer", "null"], "anyOf": [{"type": "number"}, {"type": "string"}, True]},
        ["1", "null", "-20"],
        ["1.5", '"a"', "true", "[]"],
    ),
    "anyOf of integers under the type number": (
        {"type": "number", "anyOf": [{"type": "integer", "minimum": 3}, {"const": 0.5}]},
        ["3", "0.5"],
        ["2", "1.5"],
    ),
    "oneOf and allOf beside a type": (
        {
            "type": "array",
            "oneOf": [{"type": "string"}, {"allOf": [{"maxItems": 1}], "type": "array"}],
        },
        ["[]", "[1]"],
        ['"a"', "[1, 2]"],
    ),
    "annotations": (
        {
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "$id": "https://example.org/s",
            "$comment": "c",
            "title": "t",
            "description": "d",
            "default": 1,
            "examples": [1],
            "deprecated": True,
            "readOnly": True,
            "writeOnly": False,
            "$anchor": "here",
            "contentEncoding": "base64",
            "contentMediaType": "text/plain",
            "contentSchema": {"type": "null"},
            "x-order": 3,
            "type": "null",
        },
        ["null"],
        ["1"],
    ),
    "anything": (
        True,
        ["1", '"a"', "[]", "{}", '{"a": [1, {"b": null}]}', "[[[1]]]"],
        ["", "[[[[1]]]]", "a"],
    ),
    "no keyword": ({}, ["1.5", "{}"], ["nul"]),
    "any object": ({"type": "object"}, ["{}", '{"a": {"b": [1, 2]}}'], ["[]", "1"]),
    "any array": ({"type": "array"}, ["[]", '[1, "a", {}]'], ["{}", "1"]),
    "date": (
        {"type": "string", "format": "date"},
        ['"2024-02-29"', '"1999-12-31"'],
        ['"2023-02-29"', '"2024-13-01"', '"2024-04-31"', '"1900-02-29"'],
    ),
    "time": (
        {"type": "string", "format": "time"},
        ['"23:59:59Z"', '"00:00:00.25+02:00"'],
        ['"24:00:00Z"', '"12:00:00"'],
    ),
    "date-time": (
        {"type": "string", "format": "date-time"},
        ['"2024-02-29T12:30:00Z"', '"1999-01-01T00:00:00.5-11:30"'],
        ['"2024-02-30T12:30:00Z"', '"2024-02-29 12:30:00Z"'],
    ),
    "uuid": (
        {"type": "string", "format": "uuid"},
        ['"123e4567-e89b-12d3-a456-426614174000"'],
        ['"123e4567"'],
    ),
}

FORMATS = jsonschema.FormatChecker()


@FORMATS.checks("date-time", raises=ValueError)
def is_date_time(value: object) -> bool:
    return not isinstance(value, str) or bool(datetime.datetime.fromisoformat(value))


@FORMATS.checks("time", raises=ValueError)
def is_time(value: object) -> bool:
    return not isinstance(value, str) or bool(datetime.time.fromisoformat(value).tzinfo)


def validate(schema: object, text: str) -> None:
    jsonschema.Draft202012Validator(schema, format_checker=FORMATS).validate(json.loads(text))


@pytest.mark.parametrize("name", CASES)
def test_texts_are_accepted_or_refused(name):
    schema, accepted, refused = CASES[name]
    built = lower(JsonSchema.of(schema), LIMITS)
    for text in accepted:
        validate(schema, text)  # the table itself is right
        assert built.accepts(text.encode()), text
    for text in refused:
        assert not built.accepts(text.encode()), text


@pytest.mark.parametrize("name", CASES)
def test_whatever_is_written_under_the_masks_validates(name, compiler, write):
    schema = CASES[name][0]
    grammar = compiler.compile(JsonSchema.of(schema))
    for seed in range(25):
        # Every other output has no token to spare.
        validate(schema, write(grammar, seed, grammar.shortest + (seed % 2) * 40))


def test_every_keyword_that_is_honoured_is_in_the_table():
    text = json.dumps([schema for schema, _, _ in CASES.values()])
    missing = [k for k in KEYWORDS | ANNOTATIONS if f'"{k}"' not in text]
    assert sorted(missing) == ["definitions"]  # the old name of $defs


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ({"not": {"type": "null"}}, "#/not: this keyword is not supported"),
        ({"properties": {"a/b": {"if": True}}}, "#/properties/a~1b/if: this keyword"),
        ({"type": "object", "patternProperties": {}}, "#/patternProperties"),
        ({"type": "object", "minProperties": 1}, "#/minProperties"),
        ({"type": "object", "propertyNames": {"maxLength": 2}}, "#/propertyNames"),
        ({"type": "object", "unevaluatedProperties": False}, "#/unevaluatedProperties"),
        ({"type": "object", "dependentRequired": {"a": ["b"]}}, "#/dependentRequired"),
        ({"items": {"type": "integer", "multipleOf": 3}}, "#/items/multipleOf"),
        ({"type": "array", "uniqueItems": True}, "#/uniqueItems: it is not supported"),
        ({"type": "array", "contains": {}}, "#/contains"),
        ({"items": [{"type": "null"}]}, "#/items: .*prefixItems"),
        ({"type": "string", "format": "email"}, '#/format: "email" is not one of'),
        ({"type": "string", "format": "date", "maxLength": 3}, "#/maxLength: .*beside 'format'"),
        ({"anyOf": [{"type": "null"}], "type": "integer"}, "#/anyOf: .*beside 'type' \"integer\""),
        ({"anyOf": [{"type": "null"}], "minimum": 3}, "#/anyOf: .*beside 'minimum'"),
        ({"anyOf": [{"minimum": 3}], "type": "integer"}, "#/anyOf: a number with bounds"),
        ({"$defs": {"a": True}, "$ref": "#/$defs/a", "minLength": 1}, r"#/\$ref: .*'minLength'"),
        ({"type": "integer", "x_order": 1}, "#/x_order: this keyword"),
        ({"oneOf": [{"minLength": 3}, {"minimum": 3}]}, "#/oneOf: options 0 and 1 may"),
        ({"oneOf": [{"type": "null"}, {"anyOf": [{"minimum": 3}]}]}, "#/oneOf: options 0 and 1"),
        (
            {"$defs": {"a": {"minLength": 3}}, "oneOf": [{"const": 3}, {"$ref": "#/$defs/a"}]},
            "#/oneOf: options 0 and 1",
        ),
        ({"enum": ["a"], "minLength": 3}, "#/enum: .*beside 'minLength'"),
        ({"oneOf": [{"type": "integer"}, {"type": "number"}]}, "#/oneOf: options 0 and 1 may"),
        ({"oneOf": [{"const": 1}, {"const": 1.0}]}, "#/oneOf: options 0 and 1"),
        ({"oneOf": [POINT, {"type": "object"}]}, "#/oneOf: options 0 and 1"),
        ({"allOf": [{"type": "null"}, {"const": None}]}, "#/allOf: more than one"),
        ({"$ref": "#"}, r"#/\$ref: # is recursive"),
        ({"$ref": "https://example.org/x"}, r"#/\$ref: only references within"),
        ({"$ref": "#anchor"}, r"#/\$ref: anchors"),
        (
            {"$defs": {"t": {"properties": {"n": {"$ref": "#/$defs/t"}}}}, "$ref": "#/$defs/t"},
            r"#/\$defs/t/properties/n/\$ref: #/\$defs/t is recursive",
        ),
        ({"type": "string", "pattern": r"(a)\1"}, "#/pattern: .*backreference"),
        ({"type": "string", "nullable": True}, "#/nullable: this keyword"),
        ({"type": "integer", "minimum": 3, "maximum": 2}, "#: no integer lies within"),
        ({"type": "number", "minimum": 3, "exclusiveMaximum": 3}, "#: no number"),
        ({"type": "number", "minimum": 1e20}, "#: bounds of more than 15 digits"),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_name(schema, message):
    with pytest.raises(Unsupported, match=message):
        lower(JsonSchema.of(schema), LIMITS)


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        (False, "#: the schema `false` allows no value"),
        ({"type": "text"}, '#/type: "text" is not a JSON type'),
        ({"type": []}, "#/type: no type"),
        ({"properties": []}, "#/properties: .* is not of type dict"),
        ({"properties": {"a": 3}}, "#/properties/a: a schema is"),
        ({"required": "a"}, "#/required: .* is not of type list"),
        ({"type": "string", "minLength": -1}, "#/minLength: -1 is not a count"),
        ({"type": "string", "maxLength": True}, "#/maxLength: true is not a count"),
        ({"minLength": 3, "maxLength": 2}, "#/minLength: 3 is more than maxLength 2"),
        ({"type": "integer", "minimum": "3"}, '#/minimum: "3" is not a number'),
        ({"type": "integer", "enum": ["a"]}, "#/enum: no value of the declared type"),
        ({"enum": []}, "#/enum: no value"),
        ({"anyOf": []}, "#/anyOf: it needs at least one"),
        ({"$ref": "#/$defs/x"}, r"#/\$ref: there is no #/\$defs/x"),
        ({"$ref": "#/$defs/%FF"}, r"#/\$ref: .*percent-encoded"),
        ({"required": ["a"], "additionalProperties": False}, "'a' is required, yet not allowed"),
        ({"type": "string", "pattern": "("}, "#/pattern: it is not a valid regex"),
        ({"pattern": "^a{3}$", "maxLength": 2}, "#/pattern: no string of an allowed length"),
    ],
)
def test_wrong_schemas_say_where(schema, message):
    with pytest.raises(GrammarError, match=message):
        lower(JsonSchema.of(schema), LIMITS)


def test_a_schema_that_doubles_with_each_reference_meets_a_limit():
    pair = {"a": {"$ref": "#/$defs/0"}}
    definitions: dict[str, object] = {
        str(i): {
            "properties": {k: {"$ref": f"#/$defs/{i + 1}"} for k in "ab"},
            "required": ["a", "b"],
        }
        for i in range(40)
    }
    definitions["40"] = {"type": "null"}
    schema = {"$defs": definitions, "properties": pair}
    with pytest.raises(LimitExceeded, match="more than 200000 automaton states"):
        lower(JsonSchema.of(schema), LIMITS)


def test_optional_properties_and_enums_stay_linear():
    many = {"properties": {f"property_{i}": {"type": "integer"} for i in range(60)}}
    assert lower(JsonSchema.of(many), LIMITS).num_states < 60 * 60
    words = {"enum": [f"word {i * 7919}" for i in range(1000)]}
    assert lower(JsonSchema.of(words), CompileLimits(states=60_000)).num_states < 10_000


def test_a_long_array_is_minimized_link_by_link():
    """Each length is told apart by the next alone, which by rounds over all states is quadratic."""
    schema = {"type": "array", "items": {"type": "integer"}, "maxItems": 3000}
    built = lower(JsonSchema.of(schema), CompileLimits(states=60_000))
    assert built.num_states == 15_001
    assert built.accepts(json.dumps([-7] * 3000).encode())
    assert not built.accepts(json.dumps([-7] * 3001).encode())


LEAVES = [
    {"type": "string"},
    {"type": "string", "minLength": 1, "maxLength": 3},
    {"type": "integer"},
    {"type": "number"},
    {"type": "boolean"},
    {"type": "null"},
]


@pytest.mark.parametrize("schema", [*LEAVES, POINT, {"type": "array", "items": LEAVES[2]}], ids=str)
def test_outlines_core_is_the_peer(schema):
    """Where outlines-core is right, the two agree; compact text is brought to our spacing."""
    built = lower(JsonSchema.of(schema), LIMITS)
    peer = re.compile(build_regex_from_schema(json.dumps(schema), ""))
    texts = st.from_regex(peer, fullmatch=True) | st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats(allow_nan=False)
        | st.text(max_size=4),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("xyz"), inner),
        max_leaves=4,
    ).map(lambda value: json.dumps(value, ensure_ascii=False, separators=(",", ":")))

    @settings(deadline=None, max_examples=150, database=None)
    @given(texts)
    def check(text):
        spaced = text if '"' in text and schema is not POINT else re.sub("([,:])", r"\1 ", text)
        assert built.accepts(spaced.encode("utf-8", "replace")) == bool(peer.fullmatch(text))

    check()


BOUNDS = st.decimals(-2000, 2000, places=2) | st.integers(-2000, 2000).map(Decimal)
MAYBE = st.none() | st.tuples(BOUNDS, st.booleans())


def within(value: Decimal, low, high) -> bool:
    above = low is None or (value > low[0] if low[1] else value >= low[0])
    return above and (high is None or (value < high[0] if high[1] else value <= high[0]))


@settings(deadline=None, max_examples=300)
@given(MAYBE, MAYBE, st.integers(-2500, 2500))
def test_integer_bounds_are_exact(low, high, near):
    try:
        regex = bounded_integer(low, high)
    except Unsupported:
        assert not any(within(Decimal(i), low, high) for i in range(-2001, 2002))
        return
    samples = [near, *(int(bound[0]) + d for bound in (low, high) if bound for d in (-1, 0, 1))]
    for value in samples:
        assert bool(re.fullmatch(regex, str(value))) == within(Decimal(value), low, high), value


@settings(deadline=None, max_examples=300)
@given(MAYBE, MAYBE, st.decimals(-2500, 2500, places=3))
def test_number_bounds_are_exact(low, high, near):
    try:
        regex = bounded_number(low, high)
    except Unsupported:
        assert not within(near, low, high)
        return
    step = Decimal("0.001")
    samples = [near, *(bound[0] + d * step for bound in (low, high) if bound for d in (-1, 0, 1))]
    for value in samples:
        text = format(value, "f")
        expected = within(value, low, high) and not (value == 0 and text.startswith("-"))
        assert bool(re.fullmatch(regex, text)) == expected, text
        if within(value, low, high) and value == int(value):
            assert re.fullmatch(regex, str(int(value)))


class Colour(enum.Enum):
    RED = "red"
    GREEN = "green"


class Address(pydantic.BaseModel):
    street: Annotated[str, pydantic.Field(min_length=1, max_length=12)]
    number: Annotated[int, pydantic.Field(ge=1, lt=1000)]


class Cat(pydantic.BaseModel):
    kind: Literal["cat"]
    lives: Annotated[int, pydantic.Field(ge=1, le=9)] = 9


class Dog(pydantic.BaseModel):
    kind: Literal["dog"]
    name: str


class Person(pydantic.BaseModel):
    """A person."""

    model_config = pydantic.ConfigDict(extra="forbid")

    name: str = pydantic.Field(description="full name", examples=["Ada"])
    code: Annotated[str, pydantic.Field(pattern=r"^[A-Z]{2}\d{3}$")]
    age: int | None = None
    weight: Annotated[float, pydantic.Field(gt=0, le=300.5)]
    colour: Colour
    role: Literal["admin", "user", 3]
    home: Address
    others: Annotated[list[Address], pydantic.Field(max_length=2)] = []
    pair: tuple[int, str]
    born: datetime.date
    seen: datetime.datetime
    token: uuid.UUID
    scores: dict[str, float]
    pet: Annotated[Cat | Dog, pydantic.Field(discriminator="kind")]


def test_an_ordinary_pydantic_model_round_trips(compiler, write):
    schema = Person.model_json_schema()
    grammar = compiler.compile(JsonSchema.of(schema))
    for seed in range(15):
        text = write(grammar, seed, grammar.shortest + (seed % 2) * 80)
        validate(schema, text)
        Person.model_validate_json(text)


class Money(pydantic.BaseModel):
    amount: Annotated[int, pydantic.Field(multiple_of=5)]


class Labels(pydantic.BaseModel):
    labels: set[str]


class Tree(pydantic.BaseModel):
    children: list["Tree"]


class Wait(pydantic.BaseModel):
    delay: datetime.timedelta


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (Money, "#/properties/amount/multipleOf"),
        (Labels, "#/properties/labels/uniqueItems"),
        (Tree, "is recursive"),
        (Wait, '#/properties/delay/format: "duration"'),
    ],
)
def test_other_pydantic_models_are_refused_by_name(model, message):
    with pytest.raises(Unsupported, match=message):
        lower(JsonSchema.of(model.model_json_schema()), LIMITS)
