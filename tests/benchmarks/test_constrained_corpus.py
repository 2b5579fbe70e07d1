"""The schemas and keyword cases of the benchmark of constraints: jsonschema agrees with each of
their documents, and what they use is spread as in real schemas."""

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator, validators

# Appended: the benchmark of the peers, which conftest.py puts first, has modules of common names.
sys.path.append(str(Path(__file__).parents[2] / "benchmarks" / "constrained"))

from corpus import KEYWORDS, Case, keyword_groups, load, schema_files
from formats import format_checker

SCHEMAS = load(schema_files())
EVERY = [*SCHEMAS, *load([KEYWORDS])]
# What the keyword cases must speak of.
LISTED = """
    type enum const properties patternProperties additionalProperties unevaluatedProperties
    propertyNames required minProperties maxProperties dependentRequired dependentSchemas
    dependencies items prefixItems additionalItems contains minContains maxContains uniqueItems
    minimum maximum exclusiveMinimum exclusiveMaximum multipleOf minLength maxLength pattern format
    anyOf oneOf allOf not if then else $ref $defs definitions $anchor $id minItems maxItems
    unevaluatedItems
""".split()
FORMATS = """
    date time date-time duration email hostname ipv4 ipv6 uri uri-reference uuid json-pointer regex
""".split()
NAMED = {"properties", "patternProperties", "$defs", "definitions", "dependentSchemas"}
VALUES = {"enum", "const", "default", "examples", "required", "dependentRequired"}


def parts(schema: Any) -> Iterator[Any]:
    """The schema and every schema within it."""
    yield schema
    if not isinstance(schema, dict):
        return
    for keyword, value in schema.items():
        if keyword in NAMED:
            below = list(value.values())
        elif keyword == "dependencies":
            below = [each for each in value.values() if not isinstance(each, list)]
        elif keyword in VALUES:
            below = []
        else:
            below = value if isinstance(value, list) else [value]
        for each in below:
            if isinstance(each, dict | bool):
                yield from parts(each)


def is_open(schema: Any) -> bool:
    """Whether some object may have a key that no keyword speaks of."""
    for part in parts(schema):
        if part == {}:
            return True
        if isinstance(part, dict) and ("properties" in part or "object" in str(part.get("type"))):
            closed = part.get("unevaluatedProperties") is False
            if part.get("additionalProperties", True) is True and not closed:
                return True
    return False


def references(schema: Any) -> set[str]:
    return {part["$ref"] for part in parts(schema) if isinstance(part, dict) and "$ref" in part}


def recurses(schema: Any) -> bool:
    """Whether a part, followed through references, is reached from itself. Local pointers only."""

    def reached(pointer: str, above: tuple[str, ...]) -> bool:
        if pointer in above:
            return True
        at = schema
        for step in pointer.removeprefix("#").strip("/").split("/"):
            at = at[step] if step else at
        return any(reached(each, (*above, pointer)) for each in references(at))

    return any(reached(each, ("#",)) for each in references(schema))


def lines(schema: Any) -> int:
    return len(json.dumps(schema, indent=1).splitlines())


@pytest.mark.parametrize("case", EVERY, ids=lambda case: f"{case.file}: {case.name}")
def test_jsonschema_agrees(case: Case) -> None:
    kind = validators.validator_for(case.schema, default=Draft202012Validator)
    kind.check_schema(case.schema)
    validator = kind(case.schema, format_checker=format_checker())
    for document in case.valid:
        validator.validate(document)
    for document in case.invalid:
        assert not validator.is_valid(document), document


def test_there_are_enough_and_each_has_a_name_of_its_own() -> None:
    assert len(SCHEMAS) >= 300
    assert len({case.name for case in SCHEMAS}) == len(SCHEMAS)
    assert len(keyword_groups()) >= 200
    assert len({group["description"] for group in keyword_groups()}) == len(keyword_groups())


@pytest.mark.parametrize("case", SCHEMAS, ids=lambda case: case.name)
def test_each_schema_has_documents_of_both_kinds(case: Case) -> None:
    assert 2 <= len(case.valid) <= 4
    assert 2 <= len(case.invalid) <= 4


@pytest.mark.parametrize(
    ("has", "least", "most"),
    [
        (lambda case: is_open(case.schema), 68, 77),
        (lambda case: bool(references(case.schema)), 22, 30),
        (lambda case: recurses(case.schema), 4, 8),
        (lambda case: "$schema" in case.schema, 60, 75),
        (lambda case: lines(case.schema) > 100, 15, 30),
        (lambda case: lines(case.schema) <= 20, 6, 25),
    ],
    ids=["open", "references", "recursive", "$schema", "long", "short"],
)
def test_the_schemas_are_like_real_ones(
    has: Callable[[Case], bool], least: float, most: float
) -> None:
    share = 100 * sum(map(has, SCHEMAS)) / len(SCHEMAS)
    assert least <= share <= most


@pytest.mark.parametrize("keyword", LISTED)
def test_the_keyword_cases_speak_of(keyword: str) -> None:
    groups = [
        group
        for group in keyword_groups()
        if any(isinstance(part, dict) and keyword in part for part in parts(group["schema"]))
    ]
    verdicts = {test["valid"] for group in groups for test in group["tests"]}
    assert verdicts == {True, False}


@pytest.mark.parametrize("name", FORMATS)
def test_the_keyword_cases_speak_of_the_format(name: str) -> None:
    schemas = [group["schema"] for group in keyword_groups()]
    assert any(isinstance(schema, dict) and schema.get("format") == name for schema in schemas)


@pytest.mark.parametrize(
    ("schema", "verdict"),
    [
        ({"type": "object"}, True),
        ({"type": "object", "additionalProperties": False}, False),
        ({"type": "object", "additionalProperties": {"type": "string"}}, False),
        ({"type": "object", "additionalProperties": {}}, True),
        ({"properties": {"a": {"type": "string"}}, "unevaluatedProperties": False}, False),
        ({"items": {"type": ["object", "null"]}}, True),
        ({"enum": [{}]}, False),
    ],
)
def test_what_counts_as_open(schema: Any, verdict: bool) -> None:
    assert is_open(schema) is verdict


@pytest.mark.parametrize(
    ("schema", "verdict"),
    [
        ({"items": {"$ref": "#"}}, True),
        ({"$ref": "#/$defs/a", "$defs": {"a": {"items": {"$ref": "#/$defs/a"}}}}, True),
        (
            {
                "$ref": "#/$defs/a",
                "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"items": {"$ref": "#/$defs/a"}}},
            },
            True,
        ),
        (
            {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"type": "null"}}},
            False,
        ),
        ({"properties": {"a": {"type": "string"}, "b": {"$ref": "#/properties/a"}}}, False),
    ],
)
def test_what_counts_as_recursive(schema: Any, verdict: bool) -> None:
    assert recurses(schema) is verdict
