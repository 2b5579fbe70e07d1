"""Compiled programs: what their beginning is, when it is computed ahead, what stays as it was."""

import asyncio

import pytest

import sapwood as sw
from sapwood.runtime.toy_tokens import decode, encode_prompt

pytestmark = pytest.mark.timeout(30)

SHOTS = [("1+1", "2"), ("2+2", "4")]
RULES = "Answer briefly. " * 8


def few_shot(s, q):
    s += "Rules: " + RULES
    for question, answer in SHOTS:
        s += f"\nQ: {question} A: {answer}"
    s += f"\nQ: {q} A:" + sw.gen("a")


def messages(s, q):
    with s.system():
        s += RULES
    s += sw.user("Hello. " + q) + sw.assistant(sw.gen("a"))


def helper(s, q):
    say_rules(s)
    s += q


def say_rules(state):
    state += RULES + "!"


def asks_first(s):
    s += sw.gen("a") + RULES


def branches(s, q):
    s += "A"
    if q:
        s += "B"
    s += RULES


def scoped(s):
    with s.var_scope("x"):
        s["y"] = 1
        s += "A" + ", ".join(["b", "c"])
    s += s["x"]


PREFIXES = {
    few_shot: f"Rules: {RULES}\nQ: 1+1 A: 2\nQ: 2+2 A: 4\nQ: ",
    messages: RULES + "Hello. ",
    helper: RULES + "!",
    asks_first: "",
    branches: "A",
    scoped: "Ab, c",
}


@pytest.mark.parametrize("body", PREFIXES, ids=lambda body: body.__name__)
def test_the_beginning(body):
    assert sw.function(body).compile().prefix == PREFIXES[body]


def test_fixed_arguments_are_part_of_it():
    program = sw.function(few_shot).compile().bind(q="3+3")
    assert program.prefix == PREFIXES[few_shot] + "3+3 A:"
    assert sw.function(few_shot).bind(q="3+3").compile().prefix == program.prefix


@pytest.mark.parametrize("body", [few_shot, messages, helper])
def test_every_run_begins_with_what_was_warmed(scripted, body):
    client = scripted(lambda request: "x")
    program = sw.function(body).compile()
    assert program.warm(backend=client) > 0
    (warmed,) = client.requests
    assert warmed.sampling.max_tokens == 0
    text = program.run(q="3+3", backend=client).text()
    assert text.startswith(decode(encode_prompt(warmed.prompt)))
    assert text == sw.function(body).run(q="3+3", backend=client).text()


def test_a_batch_warms_once(scripted):
    client = scripted(lambda request: "x")
    program = sw.function(few_shot).compile()
    states = program.run_batch([{"q": str(i)} for i in range(3)], backend=client)
    assert [state["a"] for state in states] == ["x"] * 3
    assert [request.sampling.max_tokens for request in client.requests] == [0, 128, 128, 128]
    assert len(list(program.run_batch([("1",)] * 2, backend=client, generator_style=True))) == 2
    assert len(client.requests) == 7
    asyncio.run(program.arun_batch([("1",)] * 2, backend=client))
    assert [request.sampling.max_tokens for request in client.requests[7:]] == [0, 128, 128]


def test_what_is_warmed_is_no_part_of_a_recording(scripted, tmp_path, monkeypatch):
    client = scripted(lambda request: "x")
    program = sw.function(few_shot).compile()
    items = [{"q": str(i)} for i in range(3)]
    with sw.record(tmp_path / "run.jsonl"):
        assert program.warm(client) > 0
        assert [state["a"] for state in program.run_batch(items, backend=client)] == ["x"] * 3
    assert len(client.requests) == 5
    monkeypatch.setattr(sw.Engine, "__init__", lambda *_: pytest.fail("an engine was started"))
    with sw.replay(tmp_path / "run.jsonl") as recording:
        assert program.warm() == 0
        assert [state["a"] for state in program.run_batch(items)] == ["x"] * 3
        assert recording.unused() == []


NOTHING_TO_WARM = {
    "one item": (few_shot, [{"q": "1"}]),
    "no item": (few_shot, []),
    "short": (branches, [{"q": ""}] * 2),
    "no beginning": (asks_first, [{}] * 2),
}


@pytest.mark.parametrize("case", NOTHING_TO_WARM)
def test_a_batch_that_would_not_gain_sends_nothing_more(scripted, case):
    body, items = NOTHING_TO_WARM[case]
    client = scripted(lambda request: "x")
    sw.function(body).compile().run_batch(items, backend=client)
    assert 0 not in [request.sampling.max_tokens for request in client.requests]


@pytest.mark.parametrize("wrong", [{"num_threads": 0}, {"temprature": 1}])
def test_a_wrong_batch_warms_nothing(scripted, wrong):
    client = scripted(lambda request: "x")
    with pytest.raises((TypeError, sw.InvalidRequest)):
        sw.function(few_shot).compile().run_batch([{"q": "1"}] * 2, backend=client, **wrong)
    assert client.requests == []


def test_a_failed_warming_is_told(scripted):
    client = scripted(lambda request: sw.EngineError("boom"))
    with pytest.raises(sw.ProgramError, match="boom"):
        sw.function(few_shot).compile().warm(backend=client)


def test_it_is_a_program():
    program = sw.function(few_shot).compile()
    assert isinstance(program, sw.Program)
    assert program.compile().prefix == program.prefix
    assert program.check(ignore=["SW003"]) == []
    assert str(program.trace()).startswith("program few_shot(q)")


def test_without_source_it_says_so():
    with pytest.raises(sw.InvalidRequest, match="no source"):
        sw.function(lambda s: None).compile()


def test_long_loops_are_unrolled_only_so_far():
    many = list(range(100))

    @sw.function
    def program(s):
        for a in many:
            for b in many:
                for c in many:
                    s += f"{a} {b} {c};"

    prefix = program.compile().prefix
    whole = "".join(f"{a} {b} {c};" for a in (0,) for b in many for c in many)
    assert whole.startswith(prefix) and 100 < len(prefix) < len(whole)


def test_cache_computes_the_beginning_as_sglangs_programs_ask(scripted):
    @sw.function
    def program(s, question):
        s += "A long constant beginning. " + question + sw.gen("a")

    client = scripted(lambda r: "x")
    program.cache(backend=client)
    assert [r.sampling.max_tokens for r in client.requests] == [0]
