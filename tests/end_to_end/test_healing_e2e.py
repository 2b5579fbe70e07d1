"""Token healing on the real weights: a text cut inside a word goes on as if it had not been cut."""

from typing import Any

import pytest

import sapwood as sw
from sapwood.runtime.protocol import Chunk, GenerateRequest, Ids, Regex, SamplingParams, Text

TEXTS = [
    "The capital of France is the city of",
    "Once upon a time there was a little",
    "The recipe needs flour, butter, sugar and",
    "def fibonacci(n):\n    if n < 2:\n        return n\n    return",
    "She opened the window and looked at the",
    "In 1969 the first astronauts walked on the",
    "Water boils at a temperature of one hundred degrees",
    "The three primary colours are red,",
]
GREEDY: dict[str, Any] = {"temperature": 0.0, "max_tokens": 6, "ignore_eos": True}


def answer(engine: "sw.Engine", *prompt: Any, heal: bool, **sampling: Any) -> list[Chunk]:
    params = SamplingParams(**{**GREEDY, **sampling})
    return list(engine.client.generate(GenerateRequest(prompt, params, heal=heal)))


def ids_of(chunks: list[Chunk]) -> list[int]:
    return [token for chunk in chunks for token in chunk.token_ids]


def text_of(chunks: list[Chunk]) -> str:
    return "".join(chunk.text for chunk in chunks)


@pytest.mark.parametrize("text", TEXTS)
def test_a_text_cut_inside_its_greedy_continuation_is_continued_so(
    engine: "sw.Engine", text: str
) -> None:
    whole = answer(engine, Text(text), heal=False)
    goes_on = text_of(whole)
    first = text_of(answer(engine, Text(text), heal=False, max_tokens=1))
    assert first, "a token of whole characters"
    assert whole[0].prompt_ids is not None
    for size in range(1, len(first)):
        cut = text + first[:size]
        healed = answer(engine, Text(cut), heal=True)
        if healed[0].prompt_ids != whole[0].prompt_ids:
            # The tokenizer backs off into the text itself: then the model had a choice there.
            assert len(healed[0].prompt_ids or ()) < len(whole[0].prompt_ids)
            continue
        assert ids_of(healed) == ids_of(whole)
        assert text_of(healed) == goes_on[size:]


@pytest.mark.parametrize("text", TEXTS)
def test_a_blank_at_the_end_does_no_harm(engine: "sw.Engine", text: str) -> None:
    """The classic: without healing, a blank of its own stands where no text has one."""
    whole = text_of(answer(engine, Text(text), heal=False))
    if whole.startswith(" "):
        assert text_of(answer(engine, Text(text + " "), heal=True)) == whole[1:]


def test_generated_tokens_and_templates_are_never_healed(engine: "sw.Engine") -> None:
    ids = answer(engine, Text("The capital of Fra"), heal=False)[0].prompt_ids
    assert ids is not None
    assert answer(engine, Ids(ids), heal=True)[0].prompt_ids == ids
    special = (Text("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n", special=True),)

    @sw.function
    def chat(s: Any) -> None:
        s += sw.user("Hi") + sw.assistant(sw.gen("x", max_tokens=4, temperature=0))

    state = chat.run(backend=engine)
    assert answer(engine, *special, heal=False)
    assert state["x"] == chat.run(backend=engine, heal=False)["x"]


@pytest.mark.parametrize(
    ("pattern", "text"),
    [(r"[0-9]{4}", "The first moon landing was in "), (r"[a-z]+\.", "The capital of Fran")],
)
def test_a_constraint_begins_where_the_text_ends(
    engine: "sw.Engine", pattern: str, text: str
) -> None:
    chunks = answer(
        engine, Text(text), heal=True, constraint=Regex(pattern), max_tokens=12, ignore_eos=False
    )
    import re

    assert chunks[-1].finish is not None
    if chunks[-1].finish.kind == "stop":
        assert re.fullmatch(pattern, text_of(chunks))


def test_programs_are_healed_unless_they_say_otherwise(engine: "sw.Engine") -> None:
    @sw.function
    def capital(s: Any, heal_here: bool | None) -> None:
        s += "The capital of France is Par"
        s += sw.gen("city", max_tokens=3, temperature=0, heal=heal_here)
        s += " It is a b"
        s += sw.gen("more", max_tokens=3, temperature=0, heal=heal_here)

    def texts(heal_here: bool | None, **options: Any) -> list[str]:
        state = capital.run(heal_here=heal_here, backend=engine, **options)
        assert state.text().startswith(
            "The capital of France is Par" + state["city"] + " It is a b"
        )
        return [state["city"], state["more"]]

    healed, plain = texts(None), texts(False)
    assert healed[0].startswith("is")
    assert healed == texts(True, heal=False) == texts(True)
    assert plain == texts(None, heal=False)
    assert healed != plain
