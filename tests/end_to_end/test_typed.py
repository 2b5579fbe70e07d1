"""Typed generation on the real weights: whatever is drawn is a value of the type."""

import enum
from typing import Annotated

import pydantic
import pytest

import sapwood as sw

pytestmark = pytest.mark.timeout(300)


class Sky(enum.Enum):
    CLEAR = "clear"
    CLOUDY = "half cloudy"


class Place(pydantic.BaseModel):
    name: Annotated[str, pydantic.Field(min_length=1, max_length=12)]
    height: Annotated[int, pydantic.Field(ge=0, le=9000)] | None


class Report(pydantic.BaseModel):
    place: Place
    skies: Annotated[list[Sky], pydantic.Field(min_length=1, max_length=3)]
    degrees: Annotated[float, pydantic.Field(ge=-50, le=60)]


def test_every_draw_is_a_value(engine: sw.Engine) -> None:
    @sw.function
    def report(s: sw.ProgramState) -> tuple[Report, Sky, int]:
        s += "The weather in Oslo today, as JSON: " + sw.gen("report", type=Report, max_tokens=96)
        s += "\nIn one word: " + sw.gen("sky", type=Sky, max_tokens=8)
        s += "\nHours of rain: " + sw.gen("hours", type=int, max_tokens=24)
        return s.get("report", Report), s.get("sky", Sky), s.get("hours", int)

    states = report.run_batch([{}] * 20, backend=engine, temperature=1.0, seed=list(range(20)))
    for state in states:
        told, sky, hours = state.ret_value
        assert isinstance(told, Report) and all(isinstance(one, Sky) for one in told.skies)
        assert isinstance(sky, Sky) and type(hours) is int
        assert Report.model_validate_json(state.get_meta_info("report")["text"]) == told
    assert len({state.get_meta_info("report")["text"] for state in states}) > 10
    engine.check_integrity()
