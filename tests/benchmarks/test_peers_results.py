"""The figures and tables of the benchmark of the peers, and the records that cross its pipes."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from report import figure, markdown, times_as_fast
from results import Measure, Results
from run import turns
from work import Chats, Completions, Constrained, FirstToken, Outcome, Work, to_json, work_from_json
from workloads import RECORD, TICKET, PromptMaker, Unit, complaints, workloads

from sapwood.runtime.models.source import resolve_model
from sapwood.runtime.tokenizer import load_tokenizer

RATE = Measure("single", "1 stream", "output tok/s", True)
TIME = Measure("chats", "8 chats", "s", False)


def measured(values: dict[tuple[str, str], list[float]]) -> Results:
    results = Results([RATE, TIME], {"machine": "a machine"}, {"vllm": "not there"})
    for (peer, measure), rounds in values.items():
        results.cell(peer, measure).values.extend(rounds)
    return results


BOTH = {
    ("sapwood-bf16", "single"): [90.0, 120.0, 100.0],
    ("other", "single"): [50.0, 40.0, 80.0],
    ("sapwood-bf16", "chats"): [2.0],
    ("other", "chats"): [8.0, 10.0],
}


def test_ratios_are_of_medians() -> None:
    results = measured(BOTH)
    assert results.ratio("sapwood-bf16", "other", "single") == 2.0
    assert results.ratio("sapwood-bf16", "other", "chats") == 2 / 9
    assert times_as_fast(results, "sapwood-bf16", "other", RATE) == 2.0
    assert times_as_fast(results, "sapwood-bf16", "other", TIME) == 4.5


@pytest.mark.parametrize("missing", list(BOTH))
def test_no_ratio_without_both_sides(missing: tuple[str, str]) -> None:
    results = measured({key: rounds for key, rounds in BOTH.items() if key != missing})
    assert results.ratio("sapwood-bf16", "other", missing[1]) is None
    markdown(results)


def test_the_tables_say_everything() -> None:
    results = measured(BOTH)
    results.cell("other", "chats").note("500 output tokens instead of 512")
    results.cell("other", "chats").note("500 output tokens instead of 512")
    lines = markdown(results).splitlines()
    assert "- machine: a machine" in lines
    assert "| 1 stream, output tok/s | 100 | 50.0 |" in lines
    assert "| 8 chats (less is better) | 0.22x |" in lines
    assert "- vllm: not measured, not there" in lines
    assert lines.count("- other, chats: 500 output tokens instead of 512") == 1


@pytest.mark.parametrize(
    ("value", "shown"),
    [(None, ""), (0.1234, "0.12"), (9.876, "9.88"), (98.76, "98.8"), (1234.5, "1,234")],
)
def test_figures_have_three_digits(value: float | None, shown: str) -> None:
    assert figure(value) == shown


def test_results_survive_their_file() -> None:
    results = measured(BOTH)
    results.cell("other", "single").note("slow")
    again = Results.from_json(json.loads(json.dumps(results.to_json())))
    assert again == results


@given(st.integers(1, 7), st.integers(0, 20))
def test_in_as_many_rounds_as_peers_each_is_first_once(count: int, first: int) -> None:
    peers = list(range(count))
    orders = [turns(peers, first + number) for number in range(count)]  # type: ignore[arg-type]
    assert sorted(order[0] for order in orders) == peers  # type: ignore[type-var]
    assert all(sorted(order) == peers for order in orders)  # type: ignore[type-var]


WORKS: list[Work] = [
    Completions(("a", "b"), 7, 16, n=2),
    FirstToken(("a",), 7),
    Chats((("a", "b"), ("c", "d")), 64),
    Constrained(("a", "b"), 10, schema=RECORD),
    Constrained(("a",), 10, regex=TICKET, gbnf="root ::= [a-z]"),
]


@pytest.mark.parametrize("work", WORKS, ids=lambda work: type(work).__name__)
def test_works_survive_the_pipe(work: Work) -> None:
    assert work_from_json(json.loads(json.dumps(to_json(work)))) == work


@pytest.mark.parametrize(
    ("unit", "expected"),
    [
        (Unit.OUTPUT_RATE, 50.0),
        (Unit.PROMPT_RATE, 150.0),
        (Unit.SECONDS, 2.0),
        (Unit.MILLISECONDS, 2000.0),
    ],
)
def test_units(unit: Unit, expected: float) -> None:
    assert unit.figure(Outcome(2.0, 300, 100)) == expected


VALID_RECORD = json.dumps(
    {
        "name": "Ada",
        "city": "Oslo",
        "year_of_birth": 1950,
        "is_member": True,
        "interests": ["chess", "music"],
    }
)
VALID_TICKET = "ABC-1234: low priority, due 2026-11-21"
TWO_RECORDS, ONE_TICKET = WORKS[3], WORKS[4]


@pytest.mark.parametrize(
    ("work", "outcome", "found"),
    [
        (WORKS[0], Outcome(1, 14, 64), []),
        (WORKS[0], Outcome(1, 16, 64), ["16 prompt tokens instead of 14"]),
        (WORKS[0], Outcome(1, 14, 63), ["63 output tokens instead of 64"]),
        (WORKS[1], Outcome(1, 7, 1), []),
        (WORKS[2], Outcome(1, 999, 256), []),
        (WORKS[2], Outcome(1, 999, 200), ["200 output tokens instead of 256"]),
        (TWO_RECORDS, Outcome(1, 0, 0, (VALID_RECORD, VALID_RECORD)), []),
        (TWO_RECORDS, Outcome(1, 0, 0, (VALID_RECORD, "{}")), ["1 of 2 answers valid"]),
        (TWO_RECORDS, Outcome(1, 0, 0, (VALID_RECORD, "no")), ["1 of 2 answers valid"]),
        (TWO_RECORDS, Outcome(1, 0, 0, (VALID_RECORD,)), ["1 of 2 answers valid"]),
        (ONE_TICKET, Outcome(1, 0, 0, (VALID_TICKET,)), []),
        (ONE_TICKET, Outcome(1, 0, 0, (VALID_TICKET + "x",)), ["0 of 1 answers valid"]),
    ],
)
def test_complaints(work: Work, outcome: Outcome, found: list[str]) -> None:
    assert complaints(work, outcome) == found


def test_prompts_have_their_exact_lengths_and_begin_differently() -> None:
    tokenizer = load_tokenizer(resolve_model(None)).tokenizer
    seen: list[list[int]] = []
    for workload in workloads(tokenizer):
        work = workload.work
        if isinstance(work, Completions | FirstToken):
            ids = [
                tokenizer.encode(prompt, add_special_tokens=False).ids for prompt in work.prompts
            ]
            assert {len(each) for each in ids} == {work.prompt_tokens}
            if workload.name == "shared-prefix":
                assert len({tuple(each[:1024]) for each in ids}) == 1
                assert len({tuple(each[1024:1040]) for each in ids}) == len(ids)
                ids = ids[:1]
            seen += ids
    assert len({tuple(ids[:8]) for ids in seen}) == len(seen)


def test_a_maker_of_prompts_never_repeats_itself() -> None:
    make = PromptMaker(load_tokenizer(resolve_model(None)).tokenizer)
    assert len(set(make.prompts(20, 16))) == 20
