"""What a schema cannot ask for, and how it is told."""

import pytest

from sapwood.constrained import CompileLimits, GrammarError, JsonSchema, LimitExceeded, Unsupported
from sapwood.constrained.lower import lower
from sapwood.constrained.pushdown.machine import DEAD, Machine

LIMITS = CompileLimits()
_INT = {"type": "integer"}


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        (
            {"type": "array", "uniqueItems": True},
            "#/uniqueItems: it is supported for items that are",
        ),
        ({"items": {"type": "array"}, "uniqueItems": True}, "#/uniqueItems: .*scalars only"),
        ({"prefixItems": [_INT], "uniqueItems": True}, "#/uniqueItems: .*beside prefixItems"),
        (
            {"contains": _INT, "uniqueItems": True},
            "#/uniqueItems: .*beside prefixItems or contains",
        ),
        ({"not": {"uniqueItems": True}}, "#/not/uniqueItems: .*must not hold"),
        ({"not": {"propertyNames": {"maxLength": 2}}}, "#/not/propertyNames: .*must not hold"),
        ({"not": {"unevaluatedProperties": False}}, "#/not/unevaluatedProperties: .*must not hold"),
        ({"not": {"const": [1]}}, "#/not/const: .*an array must not be"),
        ({"minProperties": 2}, "#/minProperties: 2 is not supported where names are free"),
        (
            {"properties": {"a": _INT}, "additionalProperties": _INT, "minProperties": 2},
            "#/minProperties: 2 is not supported where names are free",
        ),
        ({"contains": {}, "unevaluatedItems": False}, "#/unevaluatedItems: .*beside 'contains'"),
        ({"required": True}, "#/required: a bool"),
        ({"Type": "integer"}, "#/Type: this is no keyword; is 'type' meant"),
        ({"properties": {"a/b": {"additionalproperties": 1}}}, "#/properties/a~1b/additionalprop"),
        ({"$ref": "https://example.org/x"}, r"#/\$ref: only references within"),
        ({"pattern": r"(a)\1"}, "#/pattern: .*backreference"),
        ({"patternProperties": {r"(?<=a)b": True}}, ".*lookbehind"),
        ({"type": "number", "multipleOf": 0.00012345}, "#: multiples of .*too many digits"),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_name(schema, message):
    with pytest.raises(Unsupported, match=message):
        lower(JsonSchema.of(schema), LIMITS)


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ({"type": "text"}, '#/type: "text" is not a JSON type'),
        ({"type": []}, "#/type: no type"),
        ({"properties": []}, "#/properties: .* is not of type dict"),
        ({"properties": {"a": 3}}, "#/properties/a: a schema is"),
        ({"required": "a"}, "#/required: .* is not of type list"),
        ({"type": "string", "minLength": -1}, "#/minLength: -1 is not a count"),
        ({"type": "string", "maxLength": True}, "#/maxLength: true is not a count"),
        ({"type": "integer", "minimum": "3"}, '#/minimum: "3" is not a number'),
        ({"multipleOf": 0}, "#/multipleOf: 0 is not above 0"),
        ({"enum": []}, "#/enum: it allows no value"),
        ({"anyOf": []}, "#/anyOf: it needs at least one"),
        ({"$ref": "#"}, "#: it refers to itself without end"),
        ({"allOf": [{"$ref": "#/allOf/0"}]}, "#/allOf/0: it refers to itself without end"),
        ({"$ref": "#/$defs/x"}, r'#/\$ref: there is no "#/\$defs/x"'),
        ({"$ref": "#anchor"}, r'#/\$ref: there is no "#anchor"'),
        ({"$ref": "#/$defs/%FF"}, r"#/\$ref: .*percent-encoded"),
        ({"type": "string", "pattern": "("}, "#/pattern: it is not a valid regex"),
    ],
)
def test_wrong_schemas_say_where(schema, message):
    with pytest.raises(GrammarError, match=message):
        lower(JsonSchema.of(schema), LIMITS)


@pytest.mark.parametrize(
    "schema",
    [
        False,
        {"type": "integer", "minimum": 3, "maximum": 2},
        {"type": "number", "minimum": 3, "exclusiveMaximum": 3},
        {"type": "integer", "enum": ["a"]},
        {"type": "string", "minLength": 3, "maxLength": 2},
        {"type": "string", "pattern": "^a{3}$", "maxLength": 2},
        {"type": "string", "format": "date", "maxLength": 3},
        {"type": "object", "required": ["a"], "additionalProperties": False},
        {"type": "object", "required": ["a"], "properties": {"a": False}},
        {"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]},
        {"type": "array", "items": {"enum": [1, 2]}, "uniqueItems": True, "minItems": 3},
        {"type": "array", "items": {"pattern": "^[ab]$", "type": "string"}, "uniqueItems": True}
        | {"minItems": 3},
        {"type": "array", "items": False, "minItems": 1},
        {"allOf": [{"type": "string"}, {"type": "null"}]},
        {"oneOf": [{"const": 1}, {"const": 1.0}]},
        {"type": "object", "additionalProperties": False, "not": {"additionalProperties": False}},
    ],
    ids=str,
)
def test_what_no_value_fits_accepts_no_text(schema):
    assert Machine(lower(JsonSchema.of(schema), LIMITS)).start == DEAD


def test_combinations_without_end_meet_a_limit():
    pairs = [{"anyOf": [{"required": [f"{i}"]}, {"required": [f"{i}x"]}]} for i in range(20)]
    with pytest.raises(LimitExceeded, match="more than 400 alternatives"):
        lower(JsonSchema.of({"allOf": pairs}), LIMITS)
