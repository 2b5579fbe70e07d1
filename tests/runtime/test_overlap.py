"""Planning the next step while one is in flight changes when tokens are told, and nothing else."""

import random
from collections.abc import Callable
from typing import Any

import pytest

from sapwood.runtime.protocol import JsonSchema, LogprobOptions, Regex

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
    return [
        {
            "prompt": rng.choice(stems) + rng.choice(["", "a", "abc", f"{number} things"]),
            "stream": number,
            "logprobs": rng.choice(LOGPROBS),
            **KINDS[rng.choice(sorted(KINDS))],
        }
        for number in range(count)
    ]


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
