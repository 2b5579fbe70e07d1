"""`gen(..., type=T)`: the value is a T, wherever a program reads it; the answers are scripted."""

import dataclasses
import datetime
import enum
import ipaddress
import re
import uuid
from collections.abc import Hashable
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, NewType, NotRequired, TypedDict

import pydantic
import pytest

import sapwood as sw
from sapwood.runtime.protocol import Choice, FinishKind, FinishReason
from sapwood.runtime.scripted_replies import Reply

pytestmark = pytest.mark.timeout(60)


class Colour(enum.Enum):
    RED = "red"
    SKY = "sky blue"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


@dataclasses.dataclass
class Weather:
    city: str
    degrees: float | None = None


class Row(TypedDict):
    name: str
    size: NotRequired[int]


class Point(NamedTuple):
    x: int
    y: int = 0


class Cat(pydantic.BaseModel):
    kind: Literal["cat"] = "cat"
    lives: Annotated[int, pydantic.Field(ge=1, le=9)]


class Dog(pydantic.BaseModel):
    kind: Literal["dog"]
    coat: Colour


Pet = Annotated[Cat | Dog, pydantic.Field(discriminator="kind")]
Metres = NewType("Metres", int)
UTC = datetime.UTC

VALUES: list[tuple[Any, str, Any]] = [
    (int, "-42", -42),
    (float, "1.5e3", 1500.0),
    (float, "2", 2.0),
    (bool, "true", True),
    (str, 'as it "is"\n', 'as it "is"\n'),
    (type(None), "null", None),
    (datetime.date, "2024-02-29", datetime.date(2024, 2, 29)),
    (datetime.time, "12:30:00", datetime.time(12, 30)),
    (datetime.datetime, "2024-01-02T03:04:05", datetime.datetime(2024, 1, 2, 3, 4, 5)),
    (datetime.datetime, "2024-01-02T03:04:05Z", datetime.datetime(2024, 1, 2, 3, 4, 5, tzinfo=UTC)),
    (datetime.timedelta, "P1DT2H", datetime.timedelta(days=1, hours=2)),
    (uuid.UUID, str(uuid.UUID(int=7)), uuid.UUID(int=7)),
    (Decimal, "1.10", Decimal("1.10")),
    (Literal["yes", "no"], "no", "no"),
    (Literal["a", 1, None], "1", 1),
    (Literal["a", 1, None], '"a"', "a"),
    (Colour, "sky blue", Colour.SKY),
    (Level, "2", Level.HIGH),
    (Colour | datetime.date, "red", Colour.RED),
    (int | None, "null", None),
    (int | str, '"7"', "7"),
    (list[Colour], '["red", "sky blue"]', [Colour.RED, Colour.SKY]),
    (tuple[int, str], '[1, "a"]', (1, "a")),
    (tuple[int, ...], "[1, 2]", (1, 2)),
    (dict[int, bool], '{"-1": true}', {-1: True}),
    (dict[Colour, int], '{"red": 1}', {Colour.RED: 1}),
    (set[int], "[1, 2]", {1, 2}),
    (frozenset[str], '["a"]', frozenset("a")),
    (Metres, "12", 12),
    (Annotated[str, pydantic.Field(max_length=3)], "abc", "abc"),
    (Weather, '{"city": "Oslo"}', Weather("Oslo")),
    (Row, '{"name": "a", "size": 1}', {"name": "a", "size": 1}),
    (list[Row], '[{"name": "a"}]', [{"name": "a"}]),
    (Point, "[1]", Point(1)),
    (Pet, '{"kind": "dog", "coat": "red"}', Dog(kind="dog", coat=Colour.RED)),
    (list[Pet], '[{"kind": "cat", "lives": 9}]', [Cat(lives=9)]),
    (Any, '{"a": [1]}', {"a": [1]}),
]


@pytest.mark.parametrize(("wanted", "text", "value"), VALUES, ids=str)
def test_the_value_is_one_of_the_type_and_the_text_stays(scripted, wanted, text, value):
    @sw.function
    def program(s):
        s += "Q" + sw.gen("x", type=wanted) + "!"

    state = program.run(backend=scripted([text]))
    assert state["x"] == value and type(state["x"]) is type(value)
    assert state.text() == f"Q{text}!"
    assert state.get_meta_info("x")["text"] == text
    assert state.get("x", wanted) == value


def run(scripted, answers, *nodes, **options):
    @sw.function
    def program(s):
        for node in nodes:
            s += node

    return program.run(backend=scripted(answers), **options)


def test_every_sample_is_read(scripted):
    state = run(scripted, [["1", "22", "3"]], sw.gen("x", type=int, n=3))
    assert state["x"] == [1, 22, 3]
    assert [meta["text"] for meta in state.get_meta_info("x")] == ["1", "22", "3"]


def test_branches_gather_values(scripted):
    @sw.function
    def program(s):
        forks = s.fork(2)
        forks += [sw.gen("x", type=Weather), sw.gen("x", type=Weather)]
        forks.join()
        return s["x"]

    state = program.run(backend=scripted(lambda r: f'{{"city": "{r.random_path[-2]}"}}'))
    assert state.ret_value == [Weather("0"), Weather("1")]


def test_a_stream_is_the_text(scripted):
    reply = Reply('{"city": "Oslo"}', chunk_size=4)
    state = run(scripted, [reply], sw.gen("x", type=Weather), stream=True)
    assert "".join(state.text_iter("x")) == '{"city": "Oslo"}'
    assert state["x"] == Weather("Oslo")


def test_without_streaming_the_text_comes_in_one_piece(scripted):
    state = run(scripted, ['{"city": "Oslo"}'], sw.gen("x", type=Weather))
    assert list(state.text_iter("x")) == ['{"city": "Oslo"}']
    state = run(scripted, [["1", "2"]], sw.gen("x", type=int, n=2))
    assert list(state.text_iter("x")) == ["1"]


CUT = FinishReason(FinishKind.LENGTH)
CUTS = [
    (Weather, '{"city": "Os'),
    (Weather, '{"city": "Oslo"}'),  # an engine ends a whole object by "stop"
    (int, "12"),
    (Colour, "sky"),
    (Annotated[str, pydantic.Field(max_length=9)], "abc"),
]


@pytest.mark.parametrize(("wanted", "text"), CUTS, ids=str)
def test_what_max_tokens_cut_is_no_value(scripted, wanted, text):
    state = run(scripted, [Reply(text, finish=CUT)], sw.gen("x", type=wanted))
    with pytest.raises(sw.ProgramError, match="max_tokens cut it") as caught:
        state["x"]
    cause = caught.value.__cause__
    assert isinstance(cause, sw.DecodeError)
    assert (cause.text, cause.finish) == (text, "length")
    assert caught.value.variable == "x" and __file__ in caught.value.location


def test_free_text_is_whole_wherever_it_ends(scripted):
    assert run(scripted, [Reply("abc", finish=CUT)], sw.gen("x", type=str))["x"] == "abc"


class Even(pydantic.BaseModel):
    number: int

    @pydantic.field_validator("number")
    @classmethod
    def is_even(cls, value: int) -> int:
        if value % 2:
            raise ValueError(f"{value} is odd")
        return value


def test_what_a_validator_of_the_type_refuses_is_told_at_access(scripted):
    answers = ['{"number": 3}']
    state = run(scripted, answers, sw.gen("x", type=Even), "more", sw.gen("y"))
    with pytest.raises(sw.ProgramError, match="3 is odd") as caught:
        state["x"]
    cause = caught.value.__cause__
    assert isinstance(cause, sw.DecodeError)
    assert (cause.type_name, cause.text, cause.finish) == ("Even", '{"number": 3}', "stop")
    assert isinstance(cause.__cause__, pydantic.ValidationError)
    with pytest.raises(sw.ProgramError, match="3 is odd"):
        state["y"]


def test_one_bad_sample_fails_the_variable(scripted):
    state = run(scripted, [['{"number": 2}', '{"number": 3}']], sw.gen("x", type=Even, n=2))
    with pytest.raises(sw.ProgramError, match="3 is odd"):
        state["x"]


class Dated(pydantic.BaseModel):
    when: Annotated[datetime.datetime, pydantic.Field(gt=datetime.datetime(2020, 1, 1))]


class Aliased(pydantic.BaseModel):
    inner: int = pydantic.Field(validation_alias=pydantic.AliasPath("outer", "inner"))


@dataclasses.dataclass
class Deep:
    points: list[dict[str, tuple[Point, bytes]]]


class Tree(pydantic.BaseModel):
    children: list["Tree"] = []
    data: bytes = b""


class Odd(enum.Enum):
    A = (1, 2)


class Behind(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(regex_engine="python-re")

    code: Annotated[str, pydantic.Field(pattern=r"(?<=a)b")]


@dataclasses.dataclass
class Twin:
    x: int


@dataclasses.dataclass
class Other:
    x: int


REFUSED = [
    (bytes, "bytes: bytes are not supported"),
    (Deep, r"Deep\.points\[\.\.\.\]\[value\]\[\.\.\.\]: bytes"),
    (Tree, r"Tree\.data: bytes"),
    (dict[str, complex], r"dict\[str, complex\]\[value\]: complex"),
    (dict[tuple[int, int], int], "keys of a dict"),
    (dict[Level, int], "keys of a dict"),
    (Dated, r"Dated\.when: gt is not supported"),
    (pydantic.PastDate, "now_op"),
    (Aliased, r"Aliased\.inner: the alias path"),
    (list[Odd], r"list\[.*Odd\]\[\.\.\.\]: the value \(1, 2\)"),
    (Annotated[int, pydantic.Field(ge=5, le=3)], r"Annotated\[int, \.\.\.\]: .*no text"),
    (Annotated[list[int], pydantic.Field(min_length=3, max_length=2)], "no text"),
    (Annotated[set[float], pydantic.Field(min_length=2)], "min_length of a set"),
    (
        Annotated[
            datetime.date,
            pydantic.Field(gt=datetime.date(2024, 1, 1), lt=datetime.date(2024, 1, 2)),
        ],
        "no date lies",
    ),
    (Annotated[Decimal, pydantic.Field(gt=3, lt=2)], "no number"),
    (Annotated[Decimal, pydantic.Field(multiple_of=3)], "multiple_of"),
    (Behind, "lookbehind"),
    (Annotated[str, pydantic.Field(pattern="(")], "regex parse error"),
    (pydantic.HttpUrl, "URL"),
    (set[Any], "hashable"),
    (list[set[Cat]], r"\[\.\.\.\]: a set needs items that are hashable"),
    (Hashable, "class of Python's own"),
    (type[int], "a class has no JSON form"),
    (ipaddress.IPv4Network, "format 'ipv4network'"),
    (
        Annotated[
            Annotated[Cat, pydantic.Tag("a")] | Annotated[Dog, pydantic.Tag("b")],
            pydantic.Discriminator(lambda value: "a"),
        ],
        "a discriminator that is a function",
    ),
    (int | bytes, "bytes are"),
    (Any | bytes, "bytes are"),
    (object(), "object object"),
    (sw.Program, "Program"),
    (3, "3"),
    ("int", "'int' is a text"),
    (list["Nowhere"], "Nowhere"),  # noqa: F821
    (enum.Enum, "Enum"),
    (lambda s: s, "a function is no type"),
    (re.Pattern[str], "format 'regex'"),
]


@pytest.mark.parametrize(("wanted", "message"), REFUSED, ids=str)
def test_what_cannot_be_honoured_is_refused_by_name(wanted, message):
    with pytest.raises(sw.InvalidRequest, match=f"^type: .*{message}") as caught:
        sw.gen("x", type=wanted)
    assert caught.value.field == "type"


def test_a_text_that_fits_two_types_is_the_first_whichever_was_asked_for_before(scripted):
    for wanted, first in [(Twin | Other, Twin), (Other | Twin, Other), (Twin | Other, Twin)]:
        state = run(scripted, ['[{"x": 1}]'], sw.gen("x", type=list[wanted]))
        assert type(state["x"][0]) is first


OTHERS = [{"dtype": int}, {"regex": "a"}, {"json_schema": {}}, {"choices": ["a"]}]
OTHERS += [{"constraint": Choice(("a",))}]


@pytest.mark.parametrize("other", OTHERS, ids=str)
def test_a_type_is_the_only_constraint(other):
    with pytest.raises(sw.InvalidRequest, match="cannot go together"):
        sw.gen("x", type=int, **other)


def test_a_type_has_no_room_for_reasoning():
    with pytest.raises(sw.InvalidRequest, match="type: int"):
        sw.separate_reasoning(sw.gen("x", type=int), "qwen3")


WRONG: list[tuple[Any, Any]] = [
    ("a", int),
    (1, str),
    ([1, "a"], list[int]),
    ({"size": 1}, Row),
    (None, Weather),
    (1, Colour | None),
]


@pytest.mark.parametrize(("value", "wanted"), WRONG, ids=str)
def test_get_checks_what_it_is_told(scripted, value, wanted):
    state = run(scripted, [])
    state["x"] = value
    assert state.get("x") == value
    with pytest.raises(TypeError, match="variable 'x' is"):
        state.get("x", wanted)


RIGHT: list[tuple[Any, Any]] = [
    (1, int),
    ([1, 2], list[int]),
    ({"name": "a"}, Row),
    (Weather("a"), Weather),
    (None, Colour | None),
    ([Cat(lives=1)], list[Pet]),
]


@pytest.mark.parametrize(("value", "wanted"), RIGHT, ids=str)
def test_get_returns_the_very_value(scripted, value, wanted):
    state = run(scripted, [])
    state["x"] = value
    assert state.get("x", wanted) is value


def test_async_programs_read_values_too(scripted):
    @sw.function
    async def program(s):
        s += sw.gen("x", type=Weather)
        with pytest.raises(TypeError, match="variable 'x' is Weather"):
            await s.get("x", int)
        return await s.get("x", Weather)

    state = program.run(backend=scripted(['{"city": "Oslo"}']))
    assert state.ret_value == Weather("Oslo")


SNIPPET = """
import dataclasses
import sapwood as sw

@dataclasses.dataclass
class Weather:
    city: str

@sw.function
def ask(s: sw.ProgramState, city: str) -> Weather:
    s += city + sw.gen("x", type=Weather)
    return s.get("x", Weather)

@sw.function
async def later(s: sw.AsyncProgramState, city: str) -> Weather:
    s += city + sw.gen("x", type=Weather)
    return await s.get("x", Weather)

state = ask.run("Oslo")
reveal_type(state.get("x", Weather))
reveal_type(state.get("x", list[int]))
reveal_type(state.get("x"))
reveal_type(state.ret_value)
reveal_type(ask.bind(city="Rome")().ret_value)
reveal_type(ask.run_batch([{"city": "Rome"}])[0].ret_value)
reveal_type(later.run("Oslo").ret_value)
"""
REVEALED = ["Weather", "list[int]", "Any", "Weather", "Weather", "Weather", "Weather"]
# What a program need not know is what takes long to check.
MYPY_INI = """
[mypy]
strict = true
follow_imports = silent
[mypy-torch.*,transformers.*,huggingface_hub.*,sapwood.constrained.*]
follow_imports = skip
"""


@pytest.mark.timeout(300)
def test_mypy_knows_the_types(tmp_path, monkeypatch):
    from mypy import api

    (tmp_path / "sapwood").symlink_to(Path(sw.__file__).parent)
    (tmp_path / "snippet.py").write_text(SNIPPET)
    (tmp_path / "mypy.ini").write_text(MYPY_INI)
    monkeypatch.chdir(tmp_path)
    out, errors, status = api.run(["--config-file=mypy.ini", "--cache-dir=cache", "snippet.py"])
    assert (errors, status) == ("", 0), out
    revealed = [line.split('"')[1] for line in out.splitlines() if "Revealed type" in line]
    assert [name.removeprefix("snippet.") for name in revealed] == REVEALED
