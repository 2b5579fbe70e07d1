"""The constraints as values."""

import pickle
import re

import pytest

from sapwood.constrained import Choice, GrammarError, JsonSchema, Regex, dtype_constraint


@pytest.mark.parametrize(
    "constraint",
    [Regex("a+"), Choice(("yes", "no")), JsonSchema.of({"type": "integer"}), JsonSchema.of(True)],
)
def test_constraints_are_keys_and_cross_a_pipe(constraint):
    twin = pickle.loads(pickle.dumps(constraint))
    assert twin == constraint
    assert {constraint: 1}[twin] == 1


def test_equal_schemas_are_equal_keys_and_keep_the_order_of_properties():
    schema = {"type": "object", "properties": {"b": True, "a": True}}
    assert JsonSchema.of(schema) == JsonSchema.of(
        '{ "type": "object",\n "properties": {"b": true, "a": true} }'
    )
    reordered = {"type": "object", "properties": {"a": True, "b": True}}
    assert JsonSchema.of(schema) != JsonSchema.of(reordered)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: JsonSchema.of("{'a': 1}"), "not JSON"),
        (lambda: JsonSchema.of('{"minimum": NaN}'), "NaN is not JSON"),
        (lambda: JsonSchema.of({"minimum": float("nan")}), "not JSON"),
        (lambda: JsonSchema.of({"default": {1, 2}}), "not JSON"),
        (lambda: JsonSchema.of("[1]"), "an object or a bool"),
        (lambda: JsonSchema({"type": "integer"}), "JsonSchema.of"),
        (lambda: Choice(()), "at least one"),
        (lambda: Choice(("a", "b", "a")), "'a' is given twice"),
        (lambda: Choice("ab"), "sequence of strings"),
        (lambda: Choice((1,)), "an option is a string"),
        (lambda: Regex(b"a"), "a regex is a string, not bytes"),
        (lambda: dtype_constraint("complex"), "int, float, bool, str"),
    ],
)
def test_wrong_constraints_are_refused_at_once(make, message):
    with pytest.raises(GrammarError, match=message):
        make()


def test_a_list_of_options_becomes_a_tuple():
    assert Choice(["a", "b"]) == Choice(("a", "b"))


@pytest.mark.parametrize(
    ("dtype", "accepted", "refused"),
    [
        (int, ["7", "-12", "+3 \n"], ["1.5", "", "x"]),
        (float, ["7", "-.5", "3.25\n"], ["1.", "e5"]),
        (bool, ["True", "False"], ["true", "1"]),
        (str, ['""', "\"Zoë, it's 5 o'clock!\"", '"a \\"b\\""'], ['"a', "a", '"a\nb"', '"\\x"']),
    ],
)
def test_dtypes(dtype, accepted, refused):
    pattern = dtype_constraint(dtype).pattern
    assert dtype_constraint(dtype.__name__).pattern == pattern
    for text in accepted:
        assert re.fullmatch(pattern, text), text
    for text in refused:
        assert not re.fullmatch(pattern, text), text
