"""Drafts change how many steps an output takes, and nothing else of it."""

from array import array
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sapwood.constrained import GrammarState
from sapwood.runtime.config import EngineConfig, ScheduleOptions
from sapwood.runtime.drafts import Drafter, Guess
from sapwood.runtime.errors import InvalidRequest
from sapwood.runtime.protocol import JsonSchema, LogprobOptions, Regex

MakeDriver = Callable[..., Any]

LETTERS = tuple((ord(letter), 20.0) for letter in "abcdefgh")
PEOPLE = JsonSchema(
    '{"type": "object", "properties": {"name": {"enum": ["Ann", "Anna", "Bob"]},'
    ' "tags": {"type": "array", "items": {"enum": ["red", "reed"]}, "maxItems": 4}},'
    ' "required": ["name", "tags"], "additionalProperties": false}'
)
CASES: dict[str, dict[str, Any]] = {
    "greedy": {"max_tokens": 40, "ignore_eos": True},
    "ends of text": {"max_tokens": 40, "logit_bias": ((256, 2.0),), "temperature": 1.0},
    "sampled": {"max_tokens": 40, "temperature": 1.0, "logit_bias": LETTERS},
    "cold": {"max_tokens": 40, "temperature": 0.05, "top_k": 5, "top_p": 0.9, "ignore_eos": True},
    "penalties": {
        "max_tokens": 40,
        "ignore_eos": True,
        "frequency_penalty": 0.05,
        "presence_penalty": 0.1,
        "repetition_penalty": 1.05,
    },
    "stop string": {
        "max_tokens": 60,
        "temperature": 1.0,
        "logit_bias": LETTERS,
        "stop": ("ab", "dd"),
        "min_tokens": 9,
    },
    "stop pattern": {
        "max_tokens": 60,
        "temperature": 1.0,
        "logit_bias": LETTERS,
        "stop_regex": ("[ab]c+",),
        "no_stop_trim": True,
    },
    "stop ids": {
        "max_tokens": 60,
        "temperature": 1.0,
        "logit_bias": LETTERS,
        "stop_token_ids": (ord("e"), ord("f")),
        "min_tokens": 12,
    },
    "regex": {"max_tokens": 50, "temperature": 1.0, "constraint": Regex("(abc|abd|x{3}y){3,9}")},
    "regex, tight": {"max_tokens": 12, "temperature": 1.0, "constraint": Regex("(abcd|ae)+!")},
    "json": {"max_tokens": 70, "temperature": 1.0, "constraint": PEOPLE},
    "json, tight": {"max_tokens": 40, "temperature": 1.0, "constraint": PEOPLE},
    "one token": {"max_tokens": 1, "ignore_eos": True},
    "two tokens": {"max_tokens": 2, "ignore_eos": True},
    "no token": {"max_tokens": 0},
}
LOGPROBS = [None, LogprobOptions(start=0, top=2)]
PROMPT = "abcabdabcaeab and so on, abcabdabcaeab"


def equal(found: Any, expected: Any) -> None:
    """All that an engine said, but for the grouping into chunks."""
    assert found.error is None and expected.error is None
    assert found.token_ids == expected.token_ids
    assert (found.finish, found.cut) == (expected.finish, expected.cut)
    for field in ("logprobs", "prompt_logprobs"):
        entries, others = getattr(found, field) or (), getattr(expected, field) or ()
        assert [entry.token_id for entry in entries] == [entry.token_id for entry in others]
        for entry, other in zip(entries, others, strict=True):
            assert entry.logprob == pytest.approx(other.logprob, abs=1e-4)
            assert len(entry.top) == len(other.top)


def stat(driver: Any, name: str) -> int:
    return int(driver.loop.control("stats")[name])


@pytest.fixture
def guess(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Any], None]]:
    """guess(f): from now on the guesses are f(tokens so far), thought to be certain."""

    def install(script: Callable[[list[int]], list[int]]) -> None:
        def scripted(
            self: Drafter, tokens: "array[int]", most: int, least_chance: float
        ) -> list[Guess]:
            return [Guess(token, 1.0) for token in script(tokens.tolist())[:most]]

        monkeypatch.setattr(Drafter, "guess", scripted)

    yield install


def truth(outputs: dict[int, list[int]], prompt_len: int) -> Callable[[list[int]], list[int]]:
    """The guesser that knows the output (of the prompt's first token, so that prompts differ)."""
    return lambda tokens: outputs[tokens[0]][len(tokens) - prompt_len :]


# --- the same outputs -----------------------------------------------------------------------------


@pytest.mark.parametrize("logprobs", LOGPROBS, ids=["plain", "logprobs"])
@pytest.mark.parametrize("case", CASES)
def test_outputs_are_those_without_drafts(
    make_driver: MakeDriver, case: str, logprobs: LogprobOptions | None
) -> None:
    options = {**CASES[case], "logprobs": logprobs}
    plain, drafting = make_driver(max_drafts=0), make_driver()
    for stream in range(2):
        expected = plain.answer(PROMPT, stream=stream, namespace=str(stream), **options)
        found = drafting.answer(PROMPT, stream=stream, namespace=str(stream), **options)
        equal(found, expected)
        assert found.usage == expected.usage
    assert stat(plain, "tokens_drafted") == 0
    for name in ("tokens_computed", "tokens_forced", "requests_finished"):
        assert stat(drafting, name) == stat(plain, name)


@settings(
    deadline=None, max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_outputs_are_the_same_whatever_is_guessed(
    make_driver: MakeDriver, guess: Callable[[Any], None], data: st.DataObject
) -> None:
    chosen = data.draw(st.lists(st.sampled_from(sorted(CASES)), min_size=1, max_size=4))
    requests = [
        {
            **CASES[case],
            "prompt": chr(ord("A") + number) + PROMPT,
            "stream": data.draw(st.integers(0, 3)),
            "logprobs": data.draw(st.sampled_from(LOGPROBS)),
        }
        for number, case in enumerate(chosen)
    ]
    setup = data.draw(
        st.sampled_from(
            [{}, {"token_budget": 7}, {"num_pages": 24}, {"num_pages": 200, "page_size": 1}]
        )
    )
    plain = make_driver(max_drafts=0)
    expected = [plain.answer(**request) for request in requests]

    outputs = {ord("A") + n: answer.token_ids for n, answer in enumerate(expected)}
    tell = truth(outputs, len(PROMPT) + 1)

    def sometimes_right(tokens: list[int]) -> list[int]:
        right = tell(tokens)
        length = data.draw(st.integers(0, 9))
        wrong_at = data.draw(st.integers(0, 12))
        wrong = data.draw(st.integers(0, 256))
        guesses = (right + [ord("a")] * length)[:length]
        return [wrong if at == wrong_at else token for at, token in enumerate(guesses)]

    guess(sometimes_right)
    drafting = make_driver(**setup)
    ids = [drafting.submit(**request) for request in requests]
    answers = drafting.run()
    for id, answer in zip(ids, expected, strict=True):
        equal(answers[id], answer)
    # What the tree now holds is what was said: going on from it is the same.
    for request, answer in zip(requests, expected, strict=True):
        longer = [*request["prompt"].encode(), *answer.token_ids, ord("z")]
        options = {"max_tokens": 3, "ignore_eos": True}
        again, fresh = drafting.answer(longer, **options), make_driver().answer(longer, **options)
        assert again.token_ids == fresh.token_ids


# --- what drafts cost and save --------------------------------------------------------------------


@pytest.mark.parametrize("case", ["greedy", "sampled", "penalties", "regex"])
def test_right_drafts_save_steps(
    make_driver: MakeDriver, guess: Callable[[Any], None], case: str
) -> None:
    plain = make_driver(max_drafts=0)
    expected = plain.answer(PROMPT, **CASES[case])
    guess(truth({ord(PROMPT[0]): expected.token_ids}, len(PROMPT)))
    drafting = make_driver(max_drafts=4)
    equal(drafting.answer(PROMPT, **CASES[case]), expected)
    accepted = stat(drafting, "tokens_accepted")
    assert accepted == stat(drafting, "tokens_drafted") > 0
    assert stat(drafting, "steps") == stat(plain, "steps") - accepted
    if case != "regex":
        assert stat(drafting, "steps") == 40 // 5


def test_wrong_drafts_leave_no_trace(make_driver: MakeDriver, guess: Callable[[Any], None]) -> None:
    """In a pool too small for all, they take no page that another needs."""
    drivers = make_driver(num_pages=14, max_drafts=0), make_driver(num_pages=14, max_drafts=8)
    guess(lambda tokens: [0] * 8)  # biased away below
    for driver in drivers:
        for number in range(5):
            prompt = chr(ord("A") + number) + "x" * 40
            driver.submit(prompt, max_tokens=30, ignore_eos=True, logit_bias=((0, -100.0),))
        driver.run()
    plain, drafting = drivers
    assert stat(drafting, "tokens_drafted") > 0 == stat(drafting, "tokens_accepted")
    assert stat(plain, "preemptions") > 0
    for name in ("steps", "preemptions", "tokens_computed", "tokens_reused"):
        assert stat(drafting, name) == stat(plain, name)
    for id, answer in plain.answers.items():
        assert drafting.answers[id].token_ids == answer.token_ids


@pytest.mark.parametrize("setup", [{"max_drafts": 0}, {"token_budget": 1}], ids=str)
def test_no_drafts_where_none_are_wanted_or_none_fit(
    make_driver: MakeDriver, guess: Callable[[Any], None], setup: dict[str, int]
) -> None:
    guess(lambda tokens: [0] * 8)
    driver = make_driver(**setup)
    driver.answer(PROMPT, ignore_eos=True)
    assert stat(driver, "tokens_drafted") == 0


@pytest.mark.parametrize(
    "num_requests, chance, is_worth_it",
    [(1, 0.5, True), (1, 0.07, False), (4, 0.5, True), (4, 0.2, False), (15, 0.9, True),
     (15, 0.5, False), (16, 1.0, False)],  # the driver's backend is torch's
)  # fmt: skip
def test_drafts_must_pay(
    make_driver: MakeDriver,
    monkeypatch: pytest.MonkeyPatch,
    num_requests: int,
    chance: float,
    is_worth_it: bool,
) -> None:
    def likely(self: Drafter, tokens: "array[int]", most: int, least_chance: float) -> list[Guess]:
        return [Guess(0, chance)] if chance >= least_chance and most else []

    monkeypatch.setattr(Drafter, "guess", likely)
    driver = make_driver()
    for number in range(num_requests):
        driver.submit(chr(ord("A") + number) + "xy", max_tokens=5, ignore_eos=True)
    driver.step()
    drafted = stat(driver, "tokens_drafted")
    assert drafted == (min(num_requests, 16 - num_requests) if is_worth_it else 0)
    driver.run()


def test_drafts_beyond_the_budget_of_an_output_are_not_computed(
    make_driver: MakeDriver, guess: Callable[[Any], None]
) -> None:
    """A pool and a context that the output just fills."""
    guess(lambda tokens: [0] * 8)
    driver = make_driver(num_pages=4)
    for _ in range(3):
        answer = driver.answer("x" * 40, max_tokens=25, ignore_eos=True)
        assert len(answer.token_ids) == 25 and answer.error is None


def test_what_fails_in_a_draft_fails_no_request(
    make_driver: MakeDriver, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(self: GrammarState) -> GrammarState:
        raise RuntimeError("no snapshot")

    expected = make_driver(max_drafts=0).answer(PROMPT, **CASES["regex"])
    monkeypatch.setattr(GrammarState, "snapshot", fail)
    equal(make_driver().answer(PROMPT, **CASES["regex"]), expected)
    assert "no drafts" in caplog.text


def test_a_snapshot_goes_its_own_way(make_driver: MakeDriver) -> None:
    compiler = make_driver().loop._compiler
    state = compiler.compile(Regex("ab*c")).start()
    assert state.accept(ord("a"))
    ahead = state.snapshot()
    assert ahead.accept(ord("c")) and ahead.is_finished and not state.is_finished
    assert state.accept(ord("b")) and not ahead.accept(ord("b"))
    ahead.rollback(1)
    assert ahead.accept(ord("b"))


def test_options_reach_the_scheduler() -> None:
    assert EngineConfig(schedule=ScheduleOptions(max_drafts=0)).schedule.max_drafts == 0
    with pytest.raises(InvalidRequest, match="max_drafts: -1"):
        EngineConfig(schedule=replace(ScheduleOptions(), max_drafts=-1))
