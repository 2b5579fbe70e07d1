"""Values in place of texts: what a program reads is an Enum, a date, a dataclass, already checked.

Look at `type=`: the output is held to the type token by token, and `s["x"]` is a value of it. A
value alone is written as people write it, without JSON's quotes; inside others it is JSON.
"""

import dataclasses
import datetime
import enum
from typing import Annotated

import pydantic

import sapwood as sw


class Mood(enum.Enum):
    GLAD = "glad"
    UPSET = "upset"


@dataclasses.dataclass
class Item:
    what: Annotated[str, pydantic.Field(max_length=16)]
    pieces: Annotated[int, pydantic.Field(ge=1, le=99)]


@dataclasses.dataclass
class Order:
    items: Annotated[list[Item], pydantic.Field(min_length=1, max_length=2)]
    gift: bool


@sw.function
def read_letter(s: sw.ProgramState, letter: str) -> Order:
    s += sw.user(f"A letter: {letter}")
    s += sw.user("Is the writer glad or upset?") + sw.assistant(sw.gen("mood", type=Mood))
    s += sw.user("When is it needed? Write YYYY-MM-DD.")
    s += sw.assistant(sw.gen("day", type=datetime.date))
    s += sw.user("What was ordered? Write JSON with items (what, pieces) and gift.")
    s += sw.assistant(sw.gen("order", type=Order, max_tokens=120))
    return s.get("order", Order)


def main() -> None:
    letter = "Thank you so much! I take three lamps and a chair, by 2024-05-17. They are a gift."
    state = read_letter.run(letter, temperature=0)
    print(repr(state.get("mood", Mood)))
    print(repr(state.get("day", datetime.date)))
    print(state.ret_value)
    print("as it was written:", state.get_meta_info("order")["text"])


if __name__ == "__main__":
    main()
