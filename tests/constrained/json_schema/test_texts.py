"""JSON schemas and texts, keyword by keyword, with `jsonschema` as the judge of the table."""

import datetime
import importlib.util
import json
from pathlib import Path

import jsonschema
import pytest

from sapwood.constrained import CompileLimits, JsonSchema
from sapwood.constrained.json_schema.cases import ANNOTATIONS, KEYWORDS
from sapwood.constrained.lower import lower
from sapwood.constrained.pushdown.machine import DEAD, Machine

HERE = Path(__file__).parent


def load(name: str):
    spec = importlib.util.spec_from_file_location(name, HERE / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


CASES = load("table_basic").CASES | load("table_further").CASES
FORMATS = jsonschema.FormatChecker()


@FORMATS.checks("date-time", raises=ValueError)
def is_date_time(value: object) -> bool:
    return not isinstance(value, str) or bool(datetime.datetime.fromisoformat(value))


@FORMATS.checks("time", raises=ValueError)
def is_time(value: object) -> bool:
    return not isinstance(value, str) or bool(datetime.time.fromisoformat(value).tzinfo)


def validate(schema: object, text: str) -> None:
    made = jsonschema.validators.validator_for(schema, jsonschema.Draft202012Validator)
    made(schema, format_checker=FORMATS).validate(json.loads(text))


def machine_of(schema: object, **options: object) -> Machine:
    return Machine(lower(JsonSchema.of(schema, **options), CompileLimits()))


def accepts(machine: Machine, text: str) -> bool:
    here = machine.start
    for byte in text.encode():
        if here == DEAD:
            return False
        machine.begin_work()
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
    assert missing == {"nullable"}  # OpenAPI's, which JSON Schema does not know; see OPTIONS


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
        {"whitespace": "printed"},
        {**PAIR, "required": ["a"]},
        [
            '{"a": 1, "b": null}',
            '{ "a": 1, "c": [] }',
            '{\n  "a": 1,\n  "b": null\n}',
            '{\r\n\t"a": 1,\r\n\t"c": {}}',
            '{"a": 1, "c": [\n 1, 2\n]}',
        ],
        ['{"a":1}', '{"a" : 1}', '{"a":\n1}', '{"a": 1 , "b": null}', '{"a": 1,"b": null}', "{ }"],
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
    ({}, {"type": "integer", "nullable": True}, ["1"], ["true", "null"]),
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
