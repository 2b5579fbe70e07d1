"""Planning the next step while one is in flight changes when tokens are told, and nothing else."""

import importlib
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sapwood.runtime.drafts import Drafter, Guess
from sapwood.runtime.errors import OutOfMemory
from sapwood.runtime.models.llama import LlamaModel
from sapwood.runtime.protocol import JsonSchema, LogprobOptions, Regex
from sapwood.runtime.wire import Probe

sys.path.append(str(Path(__file__).parent))
lagging = importlib.import_module("lagging")

MakeDriver = Callable[..., Any]

LETTERS = tuple((ord(letter), 20.0) for letter in "abcdefgh")
PEOPLE = JsonSchema(
    '{"type": "object", "properties": {"name": {"enum": ["Ann", "Anna", "Bob"]},'
    ' "tags": {"type": "array", "items": {"enum": ["red", "reed"]}, "maxItems": 4}},'
    ' "required": ["name", "tags"], "additionalProperties": false}'
)
WARM: dict[str, Any] = {"max_tokens": 40, "temperature": 1.0, "logit_bias": LETTERS}
KINDS: dict[str, dict[str, Any]] = {
    "greedy": {"max_tokens": 30, "ignore_eos": True},
    "sampled": WARM,
    "ends of text": {"max_tokens": 40, "logit_bias": ((256, 3.0),), "temperature": 1.0},
    "penalties": {
        "max_tokens": 30,
        "ignore_eos": True,
        "frequency_penalty": 0.05,
        "presence_penalty": 0.1,
        "repetition_penalty": 1.05,
    },
    "stop string": {**WARM, "stop": ("ab", "dd"), "min_tokens": 9},
    "stop pattern": {**WARM, "stop_regex": ("[ab]c+",), "no_stop_trim": True},
    "stop ids": {**WARM, "stop_token_ids": (ord("e"), ord("f")), "min_tokens": 5},
    "regex": {**WARM, "constraint": Regex("(abc|abd|x{3}y){3,9}")},
    "regex, tight": {"max_tokens": 12, "temperature": 1.0, "constraint": Regex("(abcd|ae)+!")},
    "json": {"max_tokens": 70, "temperature": 1.0, "constraint": PEOPLE},
    "one token": {"max_tokens": 1, "ignore_eos": True},
    "two tokens": {"max_tokens": 2, "ignore_eos": True},
    "no token": {"max_tokens": 0},
    "healed": {**WARM, "tentative": 3},
    "healed regex": {**WARM, "tentative": 1, "constraint": Regex("(abcd|ae)+!")},
}
LOGPROBS = [None, LogprobOptions(), LogprobOptions(start=0, top=2)]
SETUPS: list[dict[str, Any]] = [
    {},
    {"token_budget": 7},
    {"num_pages": 11},
    {"num_pages": 200, "page_size": 1},
    {"max_running": 2},
]


def said(answer: Any) -> tuple[Any, ...]:
    """All that an engine said of tokens, but for the grouping into chunks."""
    reports = [*answer.logprobs, *(answer.prompt_logprobs or ())]
    return (answer.token_ids, answer.finish, answer.cut, [report.token_id for report in reports])


def mixed(seed: int, count: int = 10) -> list[dict[str, Any]]:
    """Requests of all kinds, some of which share a beginning."""
    rng = random.Random(seed)
    stems = ["the tree " * 7, "a page of sap and leaf ", "root"]
    requests = [
        {
            "prompt": rng.choice(stems) + rng.choice(["", "a", "abc", f"{number} things"]),
            "stream": number,
            "logprobs": rng.choice(LOGPROBS),
            **KINDS[rng.choice(sorted(KINDS))],
        }
        for number in range(count)
    ]
    return [probing(request) if rng.random() < 0.1 else request for request in requests]


def probing(request: dict[str, Any]) -> dict[str, Any]:
    prompt = request["prompt"]
    probe = Probe(len(prompt) - 1, ((1, 2), (3,)))
    return {"prompt": prompt, "max_tokens": 0, "probe": probe}


@pytest.mark.parametrize("setup", SETUPS, ids=str)
@pytest.mark.parametrize("seed", range(4))
def test_outputs_are_the_same(make_driver: MakeDriver, setup: dict[str, Any], seed: int) -> None:
    requests = mixed(seed)
    alone = make_driver(max_drafts=0)
    expected = [said(alone.answer(**request)) for request in requests]
    driver = make_driver(**setup, overlaps=True)
    ids = [driver.submit(**request) for request in requests]
    answers = driver.run()
    assert [said(answers[id]) for id in ids] == expected


def test_who_is_displaced_is_displaced_after_landing(make_driver: MakeDriver) -> None:
    alone, driver = make_driver(max_drafts=0), make_driver(num_pages=14, overlaps=True)
    texts = [f"{number} is the number of this one, and this is its text" for number in range(8)]
    expected = [alone.answer(text, max_tokens=40, ignore_eos=True).token_ids for text in texts]
    ids = [driver.submit(text, max_tokens=40, ignore_eos=True) for text in texts]
    answers = driver.run()
    assert [answers[id].token_ids for id in ids] == expected
    assert driver.loop.control("stats")["preemptions"] > 0


def test_a_request_that_just_fits_finishes(make_driver: MakeDriver) -> None:
    """The token that its last draw would be followed by needs a page that there is not."""
    driver = make_driver(num_pages=4, overlaps=True)
    for _ in range(3):
        assert len(driver.answer("x" * 40, max_tokens=25, ignore_eos=True).token_ids) == 25
    assert driver.loop.control("stats")["preemptions"] == 0


# --- a device that is behind its work -------------------------------------------------------------


@pytest.fixture
def make_lagging(make_driver: MakeDriver) -> MakeDriver:
    """make_lagging(seed, overlaps=..., num_pages=..., ...): a Driver with a `runner`."""

    def make(seed: int = 0, overlaps: bool = True, **setup: Any) -> Any:
        rng = random.Random(seed)
        made: list[Any] = []

        def backend(model: LlamaModel, dtype: str) -> Any:
            made.append(lagging.LaggingBackend(model.config, rng, overlaps=overlaps))
            return made[0]

        driver = make_driver(backend=backend, **setup)
        driver.runner = made[0].runner
        return driver

    return make


def step(driver: Any) -> None:
    for request in driver.loop._scheduler._compiling.values():
        request.compiling.exception(timeout=60)  # so that nothing depends on the clock
    driver.step()
    lagging.check_tree(driver.loop._cache, driver.runner.device)


def finish(driver: Any) -> dict[str, Any]:
    for _ in range(5_000):
        if not driver.loop.has_work:
            driver.run()  # has nothing to do, and looks for pages that are still held
            return dict(driver.answers)
        step(driver)
    raise AssertionError("not finished")


@settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_random_traffic_over_a_lagging_device(
    make_lagging: MakeDriver, data: st.DataObject
) -> None:
    """Arrivals, aborts and failures in flight, preemptions, ends that are found a step late, shared
    prefixes, forced text; every page that is read holds what it should."""
    seed = data.draw(st.integers(0, 1 << 20), "seed")
    requests = mixed(seed, data.draw(st.integers(1, 9)))
    alone = make_lagging(overlaps=False, max_drafts=0)
    expected = [said(alone.answer(**request)) for request in requests]
    driver = make_lagging(
        seed,
        num_pages=data.draw(st.sampled_from([9, 9, 11, 14, 400])),
        page_size=data.draw(st.sampled_from([16, 16, 32])),
        token_budget=data.draw(st.sampled_from([3, 17, 64, 512])),
        max_running=data.draw(st.sampled_from([2, 5, 32])),
    )
    if data.draw(st.booleans()):  # drafts in every step that any are known for
        driver.loop._scheduler._speculator._least_gain = 0.0
    aborted, poisoned = set(), set()
    poisons = {"poison": RuntimeError("poison"), "no memory": OutOfMemory("poison")}
    for request in requests:
        driver.submit(**request)
        for _ in range(data.draw(st.sampled_from([0, 0, 1, 2, 5, 20]))):
            step(driver)
        fate = data.draw(st.sampled_from(["", "", "", "abort", "poison", "no memory", "flush"]))
        other = data.draw(st.sampled_from(sorted(driver.answers)))
        if fate == "flush":
            driver.loop.control("flush_cache")
        elif driver.answers[other].num_ends:
            continue
        elif fate == "abort":
            driver.loop.abort(other)
            aborted.add(other)
        elif fate:
            driver.runner.fails[other] = poisons[fate]
            poisoned.add(other)
    answers = finish(driver)
    for (id, answer), outcome in zip(answers.items(), expected, strict=True):
        if id in aborted:
            assert answer.num_ends == 0
        elif answer.error is not None:
            assert id in poisoned and "poison" in str(answer.error)
        else:
            assert said(answer) == outcome and answer.num_ends == 1


def test_a_step_is_launched_before_the_one_before_is_waited_for(
    make_lagging: MakeDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver = make_lagging()
    calls: list[str] = []

    def note(owner: Any, name: str) -> None:
        inner = getattr(owner, name)

        def noted(*args: Any) -> Any:
            calls.append(name)
            return inner(*args)

        monkeypatch.setattr(owner, name, noted)

    for owner, name in (
        *((driver.runner, "launch"), (lagging.LaggingFlight, "draw")),
        (lagging.LaggingFlight, "collect"),
    ):
        note(owner, name)
    driver.submit("a prompt", max_tokens=3, ignore_eos=True)
    driver.run()
    assert " ".join(calls) == "launch draw launch collect draw launch collect draw collect"


def test_nobody_waits_for_a_step_that_does_not_come(make_lagging: MakeDriver) -> None:
    driver = make_lagging()
    id = driver.submit("a prompt", max_tokens=1)
    assert driver.step() == [] and driver.loop.has_work
    driver.step()
    assert driver.answers[id].num_ends == 1 and not driver.loop.has_work


def test_what_was_aborted_in_flight_still_lands(make_lagging: MakeDriver) -> None:
    driver = make_lagging()
    id = driver.submit("a prompt", max_tokens=9, ignore_eos=True)
    driver.step()
    driver.loop.abort(id)
    assert driver.loop.has_work
    again = driver.submit("a prompt", id=id, max_tokens=9, ignore_eos=True)
    answer = finish(driver)[again]
    expected = make_lagging(overlaps=False).answer("a prompt", max_tokens=9, ignore_eos=True)
    assert said(answer) == said(expected)


def test_an_engine_is_closed_with_a_step_in_flight(make_lagging: MakeDriver) -> None:
    driver = make_lagging()
    driver.submit("a prompt")
    driver.step()
    assert driver.loop.control("check_integrity") == {"ok": True}
    assert driver.loop.control("flush_cache") == {"flushed_pages": 0}
    driver.loop.close()
    assert all(entry is not None for entry in driver.runner.device.pages[0][:8])


def test_an_end_that_is_found_late_costs_one_token(make_lagging: MakeDriver) -> None:
    """And no more: neither of the output nor of the tree, where nothing stands after the end."""
    plain, driver = make_lagging(overlaps=False, max_drafts=0), make_lagging()
    options = {"max_tokens": 60, "temperature": 1.0, "logit_bias": ((256, 5.0),)}
    for stream in range(6):
        text = f"{stream} of six"
        expected = plain.answer(text, stream=stream, **options)
        assert said(driver.answer(text, stream=stream, **options)) == said(expected)
    stats, others = (each.loop.control("stats") for each in (driver, plain))
    assert stats["tokens_computed"] == others["tokens_computed"] + 6
    for name in ("requests_finished", "pages_evictable", "tokens_reused", "steps"):
        assert stats[name] == others[name] + (6 if name == "steps" else 0)


# --- drafts ---------------------------------------------------------------------------------------


def test_drafts_are_computed_where_they_bring_more_than_overlapping(
    make_lagging: MakeDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A text that repeats is guessed; another one keeps its steps overlapping."""
    options = {"max_tokens": 60, "ignore_eos": True}
    expected = {}
    for text in ("it goes on", "on it goes"):
        plain = make_lagging(overlaps=False, max_drafts=0)
        expected[text] = plain.answer(text, **options).token_ids

    def clairvoyant(self: Drafter, tokens: Any, most: int, least_chance: float) -> list[Guess]:
        if tokens[0] != ord("i"):
            return [Guess(0, 0.5)][:most]
        rest = expected["it goes on"][len(tokens) - 10 :]
        return [Guess(token, 0.9) for token in rest[:most]]

    monkeypatch.setattr(Drafter, "guess", clairvoyant)
    for text, is_guessed in (("it goes on", True), ("on it goes", False)):
        driver = make_lagging()
        assert driver.answer(text, **options).token_ids == expected[text]
        stats = driver.loop.control("stats")
        assert (stats["tokens_drafted"] > 0) is is_guessed
        assert stats["tokens_accepted"] == stats["tokens_drafted"]
        assert (stats["steps"] < 10) is is_guessed
