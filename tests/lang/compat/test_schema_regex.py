"""`build_regex_from_object`: regexes that accept what the schema accepts."""

import json
import re

import jsonschema
import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sapwood as sw
from sapwood.lang.compat.schema_regex import build_regex_from_object


class Weapon(pydantic.BaseModel):
    name: str = pydantic.Field(max_length=5)
    harm: int


class Hero(pydantic.BaseModel):
    name: str
    age: int
    weapons: list[Weapon]
    friend: str | None
    kind: str = "elf"


def test_a_model_is_translated():
    regex = build_regex_from_object(Hero)
    hero = Hero(name='A "b"', age=-3, weapons=[Weapon(name="bow", harm=2)], friend=None)
    assert re.fullmatch(regex, json.dumps(hero.model_dump()))
    assert re.fullmatch(regex, hero.model_dump_json())
    assert not re.fullmatch(regex, '{"name": "x", "age": 1.5, "weapons": [], "friend": null}')
    assert not re.fullmatch(regex, '{"name": "x"}')
    assert sw.gen("x", regex=regex)


@pytest.mark.parametrize(
    ("schema", "good", "bad"),
    [
        ({"type": "integer"}, ["0", "-12"], ["01", "1.0", ""]),
        ({"type": "number"}, ["0", "-1.5", "2e+5"], ["1.", "a"]),
        ({"type": "boolean"}, ["true"], ["True"]),
        ({"type": ["null", "integer"]}, ["null", "3"], ['"x"']),
        ({"enum": ["a.b", 1, None]}, ['"a.b"', "1", "null"], ['"axb"']),
        ({"const": "x|y"}, ['"x|y"'], ['"x"']),
        ({"type": "string", "minLength": 2, "maxLength": 3}, ['"ab"'], ['"a"', '"abcd"']),
        ({"type": "string", "pattern": "^[a-c]+$"}, ['"abc"'], ['"d"']),
        ({"type": "array", "items": {"type": "integer"}}, ["[]", "[1, 2]"], ["[1,]"]),
        (
            {"type": "array", "items": {"type": "integer"}, "minItems": 2, "maxItems": 3},
            ["[1, 2]", "[1,2,3]"],
            ["[1]", "[1, 2, 3, 4]"],
        ),
        ({"type": "array", "maxItems": 0}, ["[]"], ["[1]"]),
        (
            {"type": "array", "prefixItems": [{"type": "integer"}, {"type": "null"}]},
            ["[1, null]"],
            ["[1]"],
        ),
        ({"anyOf": [{"type": "null"}, {"type": "integer"}]}, ["null", "1"], ["x"]),
        ({"type": "object", "properties": {}}, ["{}"], ["{1}"]),
    ],
)
def test_what_is_accepted(schema, good, bad):
    regex = build_regex_from_object(json.dumps(schema))
    assert regex == build_regex_from_object(schema)
    for text in good:
        assert re.fullmatch(regex, text), text
        jsonschema.validate(json.loads(text), schema)
    for text in bad:
        assert not re.fullmatch(regex, text), text


@settings(max_examples=200, deadline=None)
@given(st.lists(st.booleans(), min_size=1, max_size=5), st.data())
def test_members_may_be_left_out_where_they_are_not_required(needed, data):
    names = [f"p{i}" for i in range(len(needed))]
    schema = {
        "type": "object",
        "properties": {name: {"type": "integer"} for name in names},
        "required": [name for name, need in zip(names, needed, strict=True) if need],
    }
    chosen = [name for name in names if data.draw(st.booleans())]
    text = json.dumps(dict.fromkeys(chosen, 1))
    fits = set(schema["required"]) <= set(chosen)
    assert bool(re.fullmatch(build_regex_from_object(schema), text)) == fits, text


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "#"},
        {"type": "array", "items": {"$ref": "#"}},
        {"$ref": "#/nowhere"},
        {"not": {}},
        5,
        "{",
        {"type": "object", "properties": {"a": 5}},
    ],
)
def test_what_has_no_regex_is_refused_by_name(schema):
    with pytest.raises(sw.InvalidRequest) as caught:
        build_regex_from_object(schema)
    assert caught.value.field == "object"
