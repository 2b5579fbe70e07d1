"""Schemas as others make and read them: pydantic's models, outlines-core's regexes, and bounds."""

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

from sapwood.constrained import CompileLimits, JsonSchema, Unsupported
from sapwood.constrained.json_schema.bounds import bounded_integer, bounded_number
from sapwood.constrained.lower import lower
from sapwood.constrained.pushdown.machine import DEAD, Machine

LIMITS = CompileLimits()
POINT = {
    "type": "object",
    "properties": {"x": {"type": "integer"}, "y": {"type": "integer"}},
    "required": ["x", "y"],
    "additionalProperties": False,
}


def accepts(machine: Machine, text: bytes) -> bool:
    here = machine.start
    for byte in text:
        if here == DEAD:
            return False
        here = machine.step(here, byte)
    return here != DEAD and machine.accepting(here)


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
    machine = Machine(lower(JsonSchema.of(schema), LIMITS))
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
        accepted = accepts(machine, spaced.encode("utf-8", "replace"))
        # It knows no \\u escapes, and no control characters beyond ASCII.
        odd = "\\u" in text or any("\x7f" <= char <= "\x9f" for char in text)
        assert accepted == bool(peer.fullmatch(text)) or (odd and accepted)

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
        jsonschema.validate(json.loads(text), schema)
        Person.model_validate_json(text)


class Money(pydantic.BaseModel):
    amount: Annotated[int, pydantic.Field(multiple_of=5, ge=0, le=100)]


class Labels(pydantic.BaseModel):
    labels: Annotated[set[str], pydantic.Field(min_length=1, max_length=3)]


class Tree(pydantic.BaseModel):
    name: str
    children: list["Tree"]


class Wait(pydantic.BaseModel):
    delay: datetime.timedelta


@pytest.mark.parametrize("model", [Money, Labels, Tree, Wait])
def test_other_pydantic_models_round_trip(model, compiler, write):
    grammar = compiler.compile(JsonSchema.of(model.model_json_schema()))
    for seed in range(10):
        text = write(grammar, seed, grammar.shortest + (seed % 2) * 40)
        jsonschema.validate(json.loads(text), model.model_json_schema())
        if model is not Wait:  # a duration of years is more than a timedelta holds
            model.model_validate_json(text)


@pytest.mark.parametrize(
    ("schema", "extra_when_closed"),
    [
        (POINT | {"additionalProperties": True}, True),
        ({k: v for k, v in POINT.items() if k != "additionalProperties"}, False),
        ({"allOf": [{"properties": {"x": {}}}, {"properties": {"y": {}}}]}, False),
        ({"properties": {"x": {}}, "patternProperties": {"^z": {}}}, True),
        ({"type": "object"}, True),
    ],
    ids=str,
)
def test_objects_that_say_nothing_of_others_are_closed_on_request(schema, extra_when_closed):
    for open_objects, expected in ((True, True), (False, extra_when_closed)):
        machine = Machine(lower(JsonSchema.of(schema, open_objects=open_objects), LIMITS))
        assert accepts(machine, b'{"x": 1, "y": 2}')
        assert accepts(machine, b'{"x": 1, "y": 2, "zz": 3}') == expected
