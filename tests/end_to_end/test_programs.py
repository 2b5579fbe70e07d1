"""Programs on the real weights: what the main job promises, counted."""

import json
import re

import jsonschema
import pytest

import sapwood as sw
from sapwood.runtime.models.source import resolve_model
from sapwood.runtime.tokenizer import load_tokenizer

LONG = (
    "Sapwood carries what the roots have drawn up to every branch of the tree. " * 31
)  # ~500 tokens

PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 20},
        "age": {"type": "integer"},
        "likes": {"type": "array", "items": {"enum": ["tea", "coffee"]}, "maxItems": 2},
    },
    "required": ["name", "age", "likes"],
    "additionalProperties": False,
}


def token_ids(text: str) -> list[int]:
    return list(load_tokenizer(resolve_model(None)).tokenizer.encode(text).ids)


def computed(engine: "sw.Engine") -> int:
    return int(engine.stats()["tokens_computed"])


def test_a_prompt_forked_eight_ways_is_prefilled_once(engine: "sw.Engine") -> None:
    @sw.function
    def program(s, text):  # type: ignore[no-untyped-def]
        s += text
        forks = s.fork(8)
        for number, fork in enumerate(forks):
            fork += f" Branch {number}:" + sw.gen("out", max_tokens=6, ignore_eos=True)
        forks.join()

    engine.flush_cache()
    before = computed(engine)
    state = program.run(text=LONG, backend=engine, temperature=0)
    assert len(state["out"]) == 8
    prompt = len(token_ids(LONG))
    assert 450 <= prompt <= 550
    own = 8 * (5 + 6)  # " Branch n:" and the outputs
    assert computed(engine) - before <= prompt + 8 * 15 + own


def test_branches_submitted_in_the_same_instant_share_their_prompt(engine: "sw.Engine") -> None:
    engine.flush_cache()
    before = computed(engine)
    answers = engine.generate(
        [f"{LONG} Branch {number}:" for number in range(8)],
        {"max_new_tokens": 4, "temperature": 0, "ignore_eos": True},
    )
    prompt = answers[0]["meta_info"]["prompt_tokens"]
    assert 400 <= prompt <= 600
    assert computed(engine) - before <= prompt + 8 * (15 + 5 + 3)


def test_the_whole_language_in_one_program(engine: "sw.Engine") -> None:
    @sw.function
    def program(s, city):  # type: ignore[no-untyped-def]
        s += sw.system("You are a travel guide.")
        s += sw.user(f"I want to visit {city}.")
        s += sw.assistant("Well, " + sw.gen("intro", max_tokens=12, stop="."))
        s += sw.user("Which season?")
        s += sw.assistant(sw.select("season", choices=["spring", "summer", "autumn", "winter"]))
        forks = s.fork(2)
        for fork, topic in zip(forks, ["food", "museums"], strict=True):
            fork += sw.user(f"One tip about {topic}.")
            fork += sw.assistant(sw.gen("tip", max_tokens=8))
        forks.join()
        s += sw.user("Introduce the guide.")
        s += sw.assistant(sw.gen("card", max_tokens=90, json_schema=json.dumps(PERSON)))

    state = program.run(city="Lisbon", backend=engine, temperature=0)
    assert state["season"] in ("spring", "summer", "autumn", "winter")
    assert len(state["tip"]) == 2
    jsonschema.validate(json.loads(state["card"]), PERSON)
    text = state.text()
    assert text.startswith("<|im_start|>system\nYou are a travel guide.<|im_end|>\n")
    assert [message["role"] for message in state.messages()] == [
        "system", "user", "assistant", "user", "assistant", "user", "assistant",
    ]  # fmt: skip
    meta = state.get_meta_info("card")
    keys = {"prompt_tokens", "cached_tokens", "completion_tokens", "forced_tokens", "finish_reason"}
    assert keys <= set(meta)
    assert meta["forced_tokens"] > 0
    assert meta["cached_tokens"] > 0.5 * meta["prompt_tokens"]


def test_a_batch_of_mixed_constraints(engine: "sw.Engine") -> None:
    @sw.function
    def program(s, kind, number):  # type: ignore[no-untyped-def]
        s += sw.user(f"Write example number {number} of a {kind}.")
        s += sw.assistant_begin()
        if kind == "person":
            s += sw.gen("out", max_tokens=80, json_schema=json.dumps(PERSON))
        elif kind == "date":
            s += sw.gen("out", max_tokens=30, regex=r"\d{4}-(0[1-9]|1[0-2])-[0-3]\d")
        elif kind == "word":
            s += sw.gen("out", max_tokens=12, regex=r"[A-Z][a-zé]{2,9}!?")
        elif kind == "integer":
            s += sw.gen("out", max_tokens=12, dtype=int)
        else:
            s += sw.gen("out", choices=["red", "green", "dark green"])
        s += sw.assistant_end()

    kinds = ["person", "date", "word", "integer", "colour"]
    items = [{"kind": kinds[i % 5], "number": i} for i in range(64)]
    states = program.run_batch(items, backend=engine, temperature=0.8, seed=1)
    assert len(states) == 64
    for item, state in zip(items, states, strict=True):
        out = state["out"]
        assert f"example number {item['number']} of a {item['kind']}." in state.text()
        if item["kind"] == "person":
            jsonschema.validate(json.loads(out), PERSON)
        elif item["kind"] == "date":
            assert re.fullmatch(r"\d{4}-(0[1-9]|1[0-2])-[0-3]\d", out)
        elif item["kind"] == "word":
            assert re.fullmatch(r"[A-Z][a-zé]{2,9}!?", out)
        elif item["kind"] == "integer":
            int(out)
        else:
            assert out in ("red", "green", "dark green")
    engine.check_integrity()


def test_seeded_programs_repeat_whatever_runs_beside_them(engine: "sw.Engine") -> None:
    @sw.function
    def story(s, topic):  # type: ignore[no-untyped-def]
        s += f"A short story about {topic}:" + sw.gen("out", max_tokens=12)

    alone = story.run(topic="rain", backend=engine, temperature=1.0, seed=11)["out"]
    batch = story.run_batch(
        [{"topic": topic} for topic in ("snow", "rain", "wind")],
        backend=engine,
        temperature=1.0,
        seed=11,
    )
    assert batch[1]["out"] == alone
    assert story.run(topic="rain", backend=engine, temperature=1.0, seed=12)["out"] != alone


@pytest.mark.slow
def test_a_pool_of_64_pages_serves_32_requests(engine: "sw.Engine") -> None:
    """200 + 200 tokens each: all finish, as with ample memory, and every page comes back."""
    words = ["root", "branch", "leaf", "bark", "sap", "wood", "tree"]
    prompts = [token_ids(f"{words[n % 7]} {n} " + LONG)[:200] for n in range(32)]
    params = {"max_new_tokens": 200, "temperature": 0, "ignore_eos": True}
    ample = engine.generate(input_ids=prompts, sampling_params=params)
    with sw.Engine(dtype="float32", max_tokens_in_cache=64 * 16) as small:
        answers = small.generate(input_ids=prompts, sampling_params=params)
        small.check_integrity()
        stats = small.stats()
    assert [a["output_ids"] for a in answers] == [a["output_ids"] for a in ample]
    assert stats["pages_total"] == 64
    assert stats["pages_free"] + stats["pages_evictable"] == 64
