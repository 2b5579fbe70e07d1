"""What a type's constraint lets through is read back, and what a value is written as gets through.

The judge is the constraint's own machine, driven by random bytes and by hypothesis.
"""

import collections
import dataclasses
import datetime
import enum
import ipaddress
import json
import random
import uuid
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from functools import reduce
from operator import or_
from typing import Annotated, Any, Generic, Literal, NamedTuple, Optional, TypedDict, TypeVar

import pydantic
import pydantic.dataclasses
import pytest
import typing_extensions
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import Field, StringConstraints

import sapwood as sw
from sapwood.constrained import CompileLimits
from sapwood.constrained.lower import lower
from sapwood.constrained.pushdown.machine import DEAD, Machine
from sapwood.lang.typed import Decoder, decoder_of
from sapwood.runtime.protocol import FinishKind, FinishReason
from sapwood.runtime.scripted import ScriptedClient

pytestmark = pytest.mark.timeout(300)

STOP = FinishReason(FinishKind.STOP)


class Colour(enum.Enum):
    RED = "red"
    SKY = "sky blue"


class Mixed(enum.Enum):
    A = "a"
    B = 2
    C = 0.5


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 20


@dataclasses.dataclass
class Weather:
    city: Annotated[str, Field(min_length=1, max_length=8)]
    degrees: float | None = None
    seen: list[datetime.date] = dataclasses.field(default_factory=list)


class Row(TypedDict, total=False):
    name: str
    size: Annotated[int, Field(gt=0, multiple_of=3)]


class Point(NamedTuple):
    x: int
    y: Annotated[float, Field(gt=0, lt=1)] = 0.5


class Cat(pydantic.BaseModel):
    kind: Literal["cat"] = "cat"
    lives: Annotated[int, Field(ge=1, le=9)]


class Dog(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid")
    kind: Literal["dog"]
    name: Annotated[str, Field(alias="dogName", pattern=r"^[A-Z]\w{0,4}$")]


class Bird(pydantic.BaseModel):
    kind: Literal["owl", "hen"]
    wings: tuple[Point, Point]


class Tree(pydantic.BaseModel):
    name: Colour
    children: Annotated[list["Tree"], Field(max_length=2)] = []


class Strict(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(strict=True, extra="allow")
    when: datetime.datetime
    price: Decimal
    ids: set[uuid.UUID]
    pair: tuple[float, int]
    length: datetime.timedelta
    colour: Colour


class Stripped(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(str_strip_whitespace=True, allow_inf_nan=False)
    name: Annotated[str, Field(min_length=2)]
    share: float


T = TypeVar("T")


class Box(pydantic.BaseModel, Generic[T]):
    model_config = pydantic.ConfigDict(frozen=True)
    thing: T
    more: tuple[T, ...] = ()


class Boxes(pydantic.BaseModel):
    some: set[Box[int]]
    others: frozenset[Box[int]]


class Roots(pydantic.RootModel[list[dict[str, int]]]): ...


class Named(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(validate_by_alias=False, validate_by_name=True)
    size: int = Field(alias="Size")
    sizes: list[int] = Field(validation_alias=pydantic.AliasChoices("all", "sizes"))


class First(pydantic.BaseModel):
    tag: Literal[1] = Field(alias="type")
    tree: Tree


class Second(pydantic.BaseModel):
    tag: Literal[2, 3] = Field(alias="type")


class Extra(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, int]
    name: str


@pydantic.dataclasses.dataclass(kw_only=True)
class Chained:
    size: pydantic.PositiveInt
    next: Optional["Chained"] = None


@dataclasses.dataclass
class Prepared:
    given: dataclasses.InitVar[int]
    made: int = dataclasses.field(init=False, default=0)


Pet = Annotated[Cat | Dog | Bird, Field(discriminator="kind")]
DAY = datetime.date

TYPES: list[Any] = [
    int,
    float,
    bool,
    type(None),
    DAY,
    datetime.time,
    datetime.datetime,
    datetime.timedelta,
    uuid.UUID,
    *(getattr(pydantic, f"UUID{n}") for n in (1, 3, 4, 5)),
    pydantic.AwareDatetime,
    pydantic.NaiveDatetime,
    Decimal,
    Literal["a", "ab", ""],
    Literal["a", 1, True, None],
    Colour,
    Mixed,
    Level,
    Colour | DAY,
    str | None,
    int | str,
    Any,
    list,
    dict,
    list[Any],
    Annotated[int, Field(ge=-5, lt=120)],
    Annotated[int, Field(multiple_of=7)],
    Annotated[float, Field(ge=0.5)],
    Annotated[float, Field(gt=0)],
    Annotated[float, Field(gt=0, allow_inf_nan=False)],
    Annotated[float, Field(gt=0.1, lt=0.2)],
    Annotated[float, Field(multiple_of=0.5)],
    pydantic.FiniteFloat,
    Annotated[Decimal, Field(gt=0, le=Decimal("10.5"))],
    Annotated[Decimal, Field(max_digits=4, decimal_places=2)],
    Annotated[Decimal, Field(max_digits=3)],
    Annotated[Decimal, Field(decimal_places=1, ge=0)],
    Annotated[DAY, Field(ge=DAY(2023, 12, 30), lt=DAY(2024, 3, 1))],
    Annotated[str, Field(min_length=1, max_length=3)],
    Annotated[str, Field(pattern="^a|b$")],
    Annotated[str, Field(pattern=r"^\w+\s\d$", max_length=5)],
    Annotated[str, StringConstraints(strip_whitespace=True, min_length=2)],
    Annotated[str, StringConstraints(to_lower=True, pattern="^[A-Z]+$")],
    Annotated[list[int], Field(min_length=2, max_length=3)],
    tuple[()],
    tuple[int, str],
    tuple[bool, ...],
    set[Colour],
    Annotated[set[Annotated[int, Field(ge=0, le=3)]], Field(min_length=2)],
    Annotated[frozenset[DAY], Field(min_length=1)],
    Annotated[set[Literal["a", "b", "c"]], Field(min_length=2, max_length=2)],
    set[tuple[int, bool]],
    set[float],
    set[int],
    dict[str, int],
    dict[int, str],
    dict[Annotated[int, Field(ge=0, le=9)], bool],
    dict[Colour, Level],
    dict[DAY, None],
    dict[uuid.UUID, int],
    Annotated[dict[Literal["a", "b"], int], Field(min_length=2)],
    Annotated[dict[str, int], Field(min_length=1, max_length=2)],
    Weather,
    Row,
    Point,
    Pet,
    list[Pet],
    Pet | list[Weather] | None,
    Tree,
    Strict,
    Stripped,
    Box[Colour],
    Boxes,
    Roots,
    Named,
    Annotated[First | Second, Field(discriminator="tag")],
    Extra,
    Chained,
    Prepared,
    list[ipaddress.IPv4Address | ipaddress.IPv6Address],
    collections.OrderedDict[int, int],
    collections.deque[bool],
    Mapping[DAY, None],
    Sequence[str],
    Annotated[str, Field(pattern="(?i)^abc")],
    list[Annotated[str, Field(pattern=r"(?i)^\w$")]],
]


class Texts:
    """The machine of a decoder's constraint."""

    def __init__(self, decoder: Decoder) -> None:
        assert decoder.constraint is not None
        self.machine = Machine(lower(decoder.constraint, CompileLimits()))
        self._next: dict[int, list[tuple[int, int]]] = {}

    def accepts(self, text: str) -> bool:
        here = self.machine.start
        for byte in text.encode():
            here = self.machine.step(here, byte)
            if here == DEAD:
                return False
        return self.machine.accepting(here)

    def _steps(self, here: int) -> list[tuple[int, int]]:
        if here not in self._next:
            reached = ((byte, self.machine.step(here, byte)) for byte in range(256))
            self._next[here] = [(byte, there) for byte, there in reached if there != DEAD]
        return self._next[here]

    def write(self, rng: random.Random, length: int) -> str:
        """A random accepted text; from `length` bytes on, straight to its end."""
        here, out = self.machine.start, bytearray()
        while True:
            steps = self._steps(here)
            may_end = self.machine.accepting(here)
            if may_end and (not steps or len(out) >= length or rng.random() < 0.1):
                return out.decode()
            if len(out) >= length or rng.random() < 0.3:
                least = min(self.machine.shortest(there) for _, there in steps)
                steps = [step for step in steps if self.machine.shortest(step[1]) == least]
            byte, here = rng.choice(steps)
            out.append(byte)


def cut(text: str, decoder: Decoder) -> str:
    """As an engine cuts it at the decoder's stop strings."""
    ends = [text.find(stop) for stop in decoder.stops if stop in text]
    return text[: min(ends)] if ends else text


@pytest.mark.parametrize("wanted", TYPES, ids=str)
def test_whatever_the_constraint_lets_through_is_a_value(wanted):
    decoder = decoder_of(wanted)
    texts, rng = Texts(decoder), random.Random(str(wanted))
    for size in [0, 5, 10, 20, 40] * 4:
        text = cut(texts.write(rng, size), decoder)
        decoder.decode(text, STOP)


ACCEPTS: list[tuple[Any, str, str]] = [
    (int, "0 -1 42", "007 +1 1.0 1e3 x"),
    (bool, "true false", "True 1 null"),
    (float, "1 1.5 -2e10", "1. .5 nan inf"),
    (DAY, "2024-02-29 0001-01-01", "2023-02-29 2024-13-01 0000-01-01 24-01-01"),
    (datetime.time, "12:30:00 12:30:00.5Z 00:00:00+05:30", "24:00:00 12:30 12:30:60"),
    (datetime.datetime, "2024-01-02T03:04:05 2024-01-02T03:04:05.000001-01:00", "2024-01-02"),
    (datetime.timedelta, "P1D PT1.5S -P1DT2H P1Y", "P PT 1D P1DT P1W"),
    (pydantic.NaiveDatetime, "2024-01-02T03:04:05", "2024-01-02T03:04:05Z"),
    (pydantic.AwareDatetime, "2024-01-02T03:04:05Z", "2024-01-02T03:04:05"),
    (uuid.UUID, str(uuid.UUID(int=5)), "0 " + "g" * 32),
    (pydantic.UUID4, str(uuid.UUID(int=5, version=4)), str(uuid.UUID(int=5, version=1))),
    (Decimal, "1 -1.50 0.001", "1e3 .5 01 NaN"),
    (Annotated[Decimal, Field(ge=0, decimal_places=2)], "0 1.25 100", "-1 1.255"),
    (Literal["yes", "no"], "yes no", 'maybe "yes"'),
    (Colour, "red", "RED green"),
    (Level, "1 20", "2 LOW"),
    (Annotated[int, Field(ge=3, le=12)], "3 12", "2 13"),
    (Annotated[DAY, Field(gt=DAY(2024, 2, 28))], "2024-02-29 9999-12-31", "2024-02-28"),
    (Annotated[str, Field(max_length=2)], "a ab é", "abc"),
    (Annotated[str, Field(pattern="^a+$")], "a aa", "b ab"),
    (tuple[int, int], "[1,_2]", "[1] [1,_2,_3]"),
    (set[Colour], '["red"] []', '["red",_"red"]'),
    (dict[int, int], '{"1":_2}', '{"a":_2} {"01":_2}'),
    (Cat, '{"lives":_9}', '{"lives":_10} {"lives":_9,_"more":_1}'),
    (Pet, '{"kind":_"cat",_"lives":_1}', '{"lives":_1} {"kind":_"cat"}'),
    (Dog, '{"kind":_"dog",_"dogName":_"Rex"}', '{"kind":_"dog",_"name":_"Rex"}'),
    (int | None, "null 1", "none"),
]


@pytest.mark.parametrize(("wanted", "accepted", "refused"), ACCEPTS, ids=str)
def test_the_texts_of_a_type(wanted, accepted, refused):
    texts = Texts(decoder_of(wanted))
    for text in accepted.split(" "):
        assert texts.accepts(text.replace("_", " ")), text
    for text in refused.split(" "):
        assert not texts.accepts(text.replace("_", " ")), text


# --- random types, and values of them ---------------------------------------------------------

Pair = tuple[Any, st.SearchStrategy[Any]]
DECIMALS = st.decimals(
    allow_nan=False, allow_infinity=False, places=3, min_value=-999, max_value=999
)
LONGEST = datetime.timedelta(days=365 * 999_999)
SCALARS: list[Pair] = [
    (int, st.integers()),
    (bool, st.booleans()),
    (str, st.text(st.characters(exclude_categories=["Cs"]), max_size=6)),
    (float, st.floats(allow_nan=False, allow_infinity=False)),
    (DAY, st.dates()),
    (datetime.time, st.times()),
    (datetime.datetime, st.datetimes(timezones=st.sampled_from([None, datetime.UTC]))),
    (datetime.timedelta, st.timedeltas(min_value=-LONGEST, max_value=LONGEST)),
    (uuid.UUID, st.uuids()),
    (Decimal, DECIMALS),
    (Colour, st.sampled_from(Colour)),
    (Level, st.sampled_from(Level)),
    (Literal["x", 3, None], st.sampled_from(["x", 3, None])),
    (Annotated[int, Field(ge=-3, le=300)], st.integers(-3, 300)),
    (
        Annotated[DAY, Field(ge=DAY(1999, 3, 7), le=DAY(2024, 11, 30))],
        st.dates(DAY(1999, 3, 7), DAY(2024, 11, 30)),
    ),
]
# Of a union's members one alone reads each text.
APART: list[Pair] = [SCALARS[0], SCALARS[2], (type(None), st.none())]
KEYS: list[Pair] = [SCALARS[0], SCALARS[2], SCALARS[4], SCALARS[8]]


def containers(inner: st.SearchStrategy[Pair]) -> st.SearchStrategy[Pair]:
    """Types made of others, each with a strategy for its values."""
    return st.one_of(
        inner.map(lambda one: (list[one[0]], st.lists(one[1], max_size=3))),
        st.tuples(inner, inner).map(
            lambda two: (tuple[two[0][0], two[1][0]], st.tuples(*[p[1] for p in two]))
        ),
        inner.map(lambda one: (tuple[one[0], ...], st.lists(one[1], max_size=2).map(tuple))),
        st.tuples(st.sampled_from(KEYS), inner).map(
            lambda two: (
                dict[two[0][0], two[1][0]],
                st.dictionaries(two[0][1], two[1][1], max_size=2),
            )
        ),
        st.sampled_from(KEYS).map(
            lambda one: (frozenset[one[0]], st.frozensets(one[1], max_size=3))
        ),
        inner.map(lambda one: (one[0] | None, st.none() | one[1])),
        st.lists(st.sampled_from(APART), min_size=2, max_size=3, unique_by=id).map(
            lambda many: (reduce(or_, [p[0] for p in many]), st.one_of([p[1] for p in many]))
        ),
        st.lists(inner, min_size=1, max_size=3).map(model),
        st.lists(inner, min_size=1, max_size=3).map(data_class),
        st.lists(inner, min_size=1, max_size=3).map(typed_dict),
        st.lists(inner, min_size=1, max_size=3).map(named_tuple),
    )


def fields(pairs: list[Pair]) -> tuple[dict[str, Any], dict[str, st.SearchStrategy[Any]]]:
    names = [f"field_{index}" for index in range(len(pairs))]
    types = {name: pair[0] for name, pair in zip(names, pairs, strict=True)}
    return types, {name: pair[1] for name, pair in zip(names, pairs, strict=True)}


def model(pairs: list[Pair]) -> Pair:
    types, values = fields(pairs)
    made = pydantic.create_model("Model", **{name: (kind, ...) for name, kind in types.items()})
    return made, st.fixed_dictionaries(values).map(lambda given: made.model_construct(**given))


def data_class(pairs: list[Pair]) -> Pair:
    types, values = fields(pairs)
    made = dataclasses.make_dataclass("Data", types.items())
    return made, st.fixed_dictionaries(values).map(lambda given: made(**given))


def typed_dict(pairs: list[Pair]) -> Pair:
    types, values = fields(pairs)
    # Python 3.11's own is none that pydantic takes within a dataclass or a model.
    made = typing_extensions.TypedDict("Row", types, total=False)
    given = st.fixed_dictionaries({}, optional=values)
    return made, given.map(lambda row: {name: row[name] for name in types if name in row})


def named_tuple(pairs: list[Pair]) -> Pair:
    types, values = fields(pairs)
    made: Callable[..., Any] = NamedTuple("Named", types.items())
    return made, st.fixed_dictionaries(values).map(lambda given: made(**given))


ANY_TYPE = st.recursive(st.sampled_from(SCALARS), containers, max_leaves=4)


def written(wanted: object, value: object) -> str:
    """As pydantic writes it, laid out as ours; without quotes where all values are texts."""
    from sapwood.lang.typed.decoder import adapter_of

    python = adapter_of(wanted).dump_python(value, mode="json")
    if isinstance(python, str) and not decoder_of(wanted).read.__name__ == "validate_json":
        return python
    return json.dumps(python, ensure_ascii=False)


@settings(
    deadline=None, max_examples=150, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)
@given(st.data())
def test_values_survive_being_written_and_read(data):
    wanted, values = data.draw(ANY_TYPE)
    value = data.draw(values)
    decoder = decoder_of(wanted)
    text = written(wanted, value)
    assert decoder.constraint is None or Texts(decoder).accepts(text), text
    client = ScriptedClient([text])

    @sw.function
    def program(s):
        s += sw.gen("x", type=wanted)

    try:
        assert program.run(backend=client)["x"] == value
    finally:
        client.close()
    assert client.requests[0].sampling.constraint == decoder.constraint
