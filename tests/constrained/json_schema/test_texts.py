"""JSON schemas and texts, keyword by keyword, with `jsonschema` as the judge of the table."""

import datetime
import json

import jsonschema
import pytest

from sapwood.constrained import CompileLimits, JsonSchema
from sapwood.constrained.json_schema.cases import ANNOTATIONS, KEYWORDS
from sapwood.constrained.lower import lower
from sapwood.constrained.pushdown.machine import DEAD, Machine

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
        {
            "properties": {'a"b\\.*': {"type": "null"}, "é/~": {"type": "null"}},
            "additionalProperties": False,
        },
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
        ['{"kind": "c"}', '{"kind": "a", "v": 1}'],
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
        ["1", "2"],
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
        ["", "[[[[1]]]", "a"],
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
    "open object": (
        {"type": "object", "properties": {"a": {"type": "null"}, "b": {"type": "null"}}},
        ['{"a": null, "x": [1, {}]}', '{"x": 1, "y": 2}', '{"a": null, "b": null, "ab": 1}'],
        ['{"x": 1, "a": null}', '{"a": 1}', '{"b": null, "a": null}', r'{"\u0061": 1}'],
    ),
    "any depth": (
        {"type": "array"},
        ["[" * 60 + "]" * 60, '[{"a": [[{"b": {}}]]}]'],
        ["[" * 60 + "]" * 59],
    ),
    "recursion": (
        {
            "type": "object",
            "properties": {"v": {"type": "integer"}, "next": {"$ref": "#"}},
            "required": ["v"],
            "additionalProperties": False,
        },
        ['{"v": 1, "next": {"v": 2, "next": {"v": 3}}}', '{"v": 1}'],
        ['{"v": 1, "next": {}}', '{"v": 1, "next": null}'],
    ),
    "patterns of keys": (
        {
            "type": "object",
            "patternProperties": {"^x_": {"type": "integer"}, "_n$": {"minimum": 3}},
            "additionalProperties": False,
        },
        ['{"x_a": 1}', '{"x_n": 3, "x_": 2}', '{"a_n": "any"}', "{}"],
        ['{"x_n": 2}', '{"x_a": "1"}', '{"a": 1}', r'{"\u0078_a": 1}'],
    ),
    "names of properties": (
        {"type": "object", "propertyNames": {"pattern": "^[a-z]{1,2}$"}},
        ['{"a": 1, "zz": 2}'],
        ['{"abc": 1}', '{"": 1}', '{"A": 1}'],
    ),
    "number of properties": (
        {"type": "object", "minProperties": 1, "maxProperties": 2},
        ['{"a": 1}', '{"a": 1, "b": 2}'],
        ["{}", '{"a": 1, "b": 2, "c": 3}'],
    ),
    "one that needs another": (
        {
            "type": "object",
            "properties": {"a": {"type": "null"}, "b": {"type": "null"}, "c": {"type": "null"}},
            "dependentRequired": {"a": ["b"], "c": ["a"]},
            "additionalProperties": False,
        },
        ["{}", '{"b": null}', '{"a": null, "b": null}', '{"a": null, "b": null, "c": null}'],
        ['{"a": null}', '{"c": null}', '{"b": null, "c": null}'],
    ),
    "one that changes the others": (
        {
            "type": "object",
            "properties": {"a": {"type": "null"}},
            "dependentSchemas": {"a": {"required": ["b"], "properties": {"b": {"const": 1}}}},
        },
        ["{}", '{"b": 2}', '{"a": null, "b": 1}'],
        ['{"a": null}', '{"a": null, "b": 2}'],
    ),
    "if": (
        {"if": {"type": "integer"}, "then": {"minimum": 3}, "else": {"type": "string"}},
        ["3", "44", '"a"'],
        ["2", "true", "1.5"],
    ),
    "not": ({"not": {"type": ["string", "object"]}}, ["1", "[]", "null"], ['"a"', "{}"]),
    "not this text": (
        {"type": "string", "not": {"enum": ["a", "é"]}},
        ['""', '"b"', '"aa"'],
        ['"a"', '"é"', r'"\u0061"', r'"\u00e9"'],
    ),
    "not a whole number": (
        {"type": "number", "not": {"type": "integer"}},
        ["0.5", "-3.25", "1.50"],
        ["1", "1.0", "1.00000000000000000001", "1e2"],
    ),
    "oneOf that overlap": (
        {"oneOf": [{"type": "integer"}, {"type": "number", "minimum": 2}]},
        ["1", "2.5", "-3"],
        ["2", "1.5", "30"],
    ),
    "allOf of several": (
        {"allOf": [{"minimum": 2}, {"maximum": 5}, {"type": "integer"}, {"not": {"const": 4}}]},
        ["2", "3", "5"],
        ["1", "4", "6", "2.5"],
    ),
    "nothing that is not spoken of": (
        {
            "type": "object",
            "allOf": [{"properties": {"a": {"type": "null"}}}],
            "anyOf": [{"properties": {"b": {"type": "null"}}, "required": ["b"]}, True],
            "unevaluatedProperties": False,
        },
        ["{}", '{"a": null}', '{"a": null, "b": null}'],
        ['{"c": 1}', '{"a": 1}', '{"b": 1}'],
    ),
    "items that are not spoken of": (
        {"type": "array", "prefixItems": [{"type": "integer"}], "unevaluatedItems": False},
        ["[]", "[1]"],
        ["[1, 2]", '["a"]'],
    ),
    "items of the old drafts": (
        {
            "$schema": "http://json-schema.org/draft-07/schema#",
            "type": "array",
            "items": [{"type": "integer"}],
            "additionalItems": {"type": "null"},
        },
        ["[]", "[1]", "[1, null]"],
        ['["a"]', "[1, 1]"],
    ),
    "contains": (
        {"type": "array", "contains": {"type": "integer"}, "minContains": 1, "maxContains": 2},
        ["[1]", '["a", 1, null, 2]'],
        ["[]", '["a"]', "[1, 2, 3]"],
    ),
    "unique texts": (
        {"type": "array", "items": {"type": "string"}, "uniqueItems": True, "minItems": 2},
        ['["a", "b"]', '["", "a", "aa"]'],
        ['["a", "a"]', '["a"]', r'["a", "\u0061"]'],
    ),
    "unique values": (
        {"type": "array", "items": {"enum": [1, "a", None]}, "uniqueItems": True},
        ["[]", '[null, 1, "a"]'],
        ["[1, 1]", '["b"]'],
    ),
    "multiples": (
        {"type": "number", "multipleOf": 0.25},
        ["0", "1", "0.75", "-2.50"],
        ["0.2", "0.3", "1e1"],
    ),
    "multiples within bounds": (
        {"type": "integer", "multipleOf": 7, "minimum": 10, "maximum": 21},
        ["14", "21"],
        ["7", "20", "28"],
    ),
    "references by name": (
        {
            "$defs": {"a": {"$anchor": "here", "type": "null"}, "b": {"$id": "/b", "const": 1}},
            "prefixItems": [{"$ref": "#here"}, {"$ref": "/b"}],
            "type": "array",
        },
        ["[null, 1]", "[]"],
        ["[1]", "[null, null]"],
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


def machine_of(schema: object, **options: object) -> Machine:
    return Machine(lower(JsonSchema.of(schema, **options), CompileLimits()))


def accepts(machine: Machine, text: str) -> bool:
    here = machine.start
    for byte in text.encode():
        if here == DEAD:
            return False
        here = machine.step(here, byte)
    return here != DEAD and machine.accepting(here)


@pytest.mark.parametrize("name", CASES)
def test_texts_are_accepted_or_refused(name):
    schema, accepted, refused = CASES[name]
    machine = machine_of(schema)
    for text in accepted:
        validate(schema, text)  # the table itself is right
        assert accepts(machine, text), text
    for text in refused:
        assert not accepts(machine, text), text


@pytest.mark.parametrize("name", CASES)
def test_whatever_is_written_under_the_masks_validates(name, compiler, write):
    schema = CASES[name][0]
    grammar = compiler.compile(JsonSchema.of(schema))
    for seed in range(12):
        # Every other output has no token to spare.
        validate(schema, write(grammar, seed, grammar.shortest + (seed % 2) * 40))


def test_every_keyword_that_is_honoured_is_in_the_table():
    text = json.dumps([schema for schema, _, _ in CASES.values()])
    missing = {k for k in KEYWORDS | ANNOTATIONS if f'"{k}"' not in text}
    assert missing == set()


PAIR = {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "null"}}}

# options, schema, texts that must be accepted, texts that must be refused
OPTIONS = [
    ({"key_order": "any"}, PAIR, ['{"b": null, "a": 1}', '{"c": 0, "a": 1}'], ['{"a": 1, "a": 1}']),
    (
        {"whitespace": "compact"},
        PAIR,
        ['{"a":1,"b":null}', "{}"],
        ['{"a": 1}', '{"a":1, "b":null}'],
    ),
    (
        {"whitespace": "flexible"},
        PAIR,
        ['{"a":1,"b": null}', '{ "a" : 1 }', '{\n  "a": 1,\n  "b": null\n}', '{\r\n\t"a":1}'],
        [' {"a":1}', '{"a":1} ', '{  "a":1}', '{"a" 1}'],
    ),
    ({"integer_fraction": True}, {"type": "integer"}, ["1", "1.0", "-2.00"], ["1.5", "1."]),
    ({"integer_fraction": True}, {"enum": [1, 2.0]}, ["1", "1.0", "2.0"], ["1.5"]),
    ({}, {"type": "integer"}, ["1"], ["1.0"]),
    ({"integer_fraction": True}, {"minimum": 3, "type": "integer"}, ["3.0", "4"], ["2.0", "3.5"]),
]


@pytest.mark.parametrize(("options", "schema", "accepted", "refused"), OPTIONS)
def test_options(options, schema, accepted, refused):
    machine = machine_of(schema, **options)
    assert [text for text in accepted if not accepts(machine, text)] == []
    assert [text for text in refused if accepts(machine, text)] == []


def test_a_document_may_stand_deep_in_another():
    machine = machine_of({"$ref": "#/$defs/t", "$defs": {"t": {"items": {"$ref": "#/$defs/t"}}}})
    for depth in (1, 50, 500):
        assert accepts(machine, "[" * depth + "1" + "]" * depth)
        assert not accepts(machine, "[" * depth + "]" * (depth - 1))


def test_many_optional_properties_values_and_items_stay_linear():
    many = {"properties": {f"property_{i}": {"type": "integer"} for i in range(200)}}
    words = {"enum": [f"word {i * 7919}" for i in range(1000)]}
    items = {"type": "array", "items": {"type": "integer"}, "maxItems": 3000}
    pair = {"type": "object", "required": ["a", "b"]}
    doubling = {
        str(i): {**pair, "properties": {k: {"$ref": f"#/$defs/{i + 1}"} for k in "ab"}}
        for i in range(40)
    }
    deep = {"$ref": "#/$defs/0", "$defs": {**doubling, "40": {"type": "null"}}}
    for schema in (many, words, items, deep):
        assert lower(JsonSchema.of(schema), CompileLimits(states=12_000)).num_states < 12_000
    machine = machine_of(items)
    assert accepts(machine, json.dumps([-7] * 3000))
    assert not accepts(machine, json.dumps([-7] * 3001))
