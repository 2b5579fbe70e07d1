"""Many runs at a time: order, errors, arguments, abort."""

import threading

import pytest

import sapwood as sw
from sapwood.runtime.scripted_replies import STALL, Reply
from sapwood.runtime.toy_tokens import decode, encode_prompt

pytestmark = pytest.mark.timeout(60)


def answer(request):
    """Repeats its prompt; fails where the prompt says so."""
    prompt = decode(encode_prompt(request.prompt))
    return sw.EngineError("boom") if "bad" in prompt else prompt


@sw.function
def program(s, q, extra=""):
    s += q + extra
    s += sw.gen("a")


@pytest.mark.parametrize("num_threads", ["auto", 1, 3])
@pytest.mark.parametrize("generator_style", [False, True])
def test_results_are_in_order(scripted, num_threads, generator_style):
    items = [{"q": f"q{i}"} for i in range(300)]
    states = program.run_batch(
        items,
        backend=scripted(answer),
        num_threads=num_threads,
        generator_style=generator_style,
    )
    assert isinstance(states, list) != generator_style
    assert [state["a"] for state in states] == [item["q"] for item in items]


def test_positional_items_and_no_items(scripted):
    client = scripted(answer)
    states = program.run_batch([("x",), ["y", "z"], {"q": "w", "extra": "v"}], backend=client)
    assert [state["a"] for state in states] == ["x", "yz", "wv"]
    assert program.run_batch([], backend=client) == []
    assert list(program.run_batch([], backend=client, generator_style=True)) == []
    bound = program.bind(extra="!").run_batch([{"q": "x", "extra": "?"}], backend=client)
    assert bound[0]["a"] == "x!"


BAD_CALLS = {
    "too many": ([("a", "b", "c")], {}, TypeError, "item 0"),
    "missing": ([{"q": "x"}, {}], {}, TypeError, "item 1.*'q'"),
    "unknown": ([{"q": "x", "z": 1}], {}, TypeError, "'z'"),
    "no list": ("abc", {}, TypeError, "str"),
    "no item": ([5], {}, TypeError, "item 0"),
    "option": ([], {"temprature": 1}, TypeError, "did you mean 'temperature'"),
    "num_threads": ([{"q": "x"}], {"num_threads": 0}, sw.InvalidRequest, "num_threads"),
    "on_error": ([{"q": "x"}], {"on_error": "ignore"}, sw.InvalidRequest, "on_error"),
    "seeds": ([{"q": "x"}], {"seed": [1, 2]}, sw.InvalidRequest, "seed"),
}


@pytest.mark.parametrize("case", BAD_CALLS)
def test_bad_calls_run_nothing(scripted, case):
    items, options, error, message = BAD_CALLS[case]
    client = scripted(answer)
    with pytest.raises(error, match=message):
        program.run_batch(items, backend=client, **options)
    assert client.requests == []


def test_the_function_runs_once_per_item(scripted):
    calls = []

    @sw.function
    def counting(s, q):
        calls.append(q)
        s += sw.gen()

    counting.run_batch([{"q": i} for i in range(20)], backend=scripted(lambda r: "x"))
    assert sorted(calls) == list(range(20))


def test_seeds(scripted):
    client = scripted(answer)
    items = [{"q": str(i)} for i in range(3)]
    program.run_batch(items, backend=client, seed=5, num_threads=1)
    program.run_batch(items, backend=client, seed=[1, 2, 3], num_threads=1)
    seeds = {decode(encode_prompt(r.prompt)): r.sampling.seed for r in client.requests[3:]}
    assert [r.sampling.seed for r in client.requests[:3]] == [5, 5, 5]
    assert seeds == {"0": 1, "1": 2, "2": 3}


@sw.function
def fails_in_body(s, q):
    s += q
    if q == "bad":
        raise ZeroDivisionError("mine")
    s += sw.gen("a")


KINDS = {"gen": (program, sw.ProgramError), "body": (fails_in_body, ZeroDivisionError)}
ITEMS = [{"q": "x"}, {"q": "bad"}, {"q": "y"}]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("generator_style", [False, True])
def test_on_error_raise_names_the_item(scripted, kind, generator_style):
    func, error = KINDS[kind]
    with pytest.raises(error) as caught:
        list(func.run_batch(ITEMS, backend=scripted(answer), generator_style=generator_style))
    assert "in item 1 of run_batch" in caught.value.__notes__


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("generator_style", [False, True])
def test_on_error_keep_keeps_positions(scripted, kind, generator_style):
    func, error = KINDS[kind]
    states = list(
        func.run_batch(
            ITEMS, backend=scripted(answer), generator_style=generator_style, on_error="keep"
        )
    )
    assert (states[0]["a"], states[2]["a"]) == ("x", "y")
    assert states[0].error() is None
    assert isinstance(states[1].error(), error)
    for read in (lambda s: s["a"], lambda s: s.text(), lambda s: s.sync()):
        with pytest.raises(error):
            read(states[1])


def test_an_error_aborts_the_others(scripted):
    def script(request):
        return answer(request) if "bad" in decode(encode_prompt(request.prompt)) else STALL

    client = scripted(script)
    items = [{"q": "x"}] * 5 + [{"q": "bad"}] + [{"q": "x"}] * 50
    with pytest.raises(sw.ProgramError, match="boom"):
        program.run_batch(items, backend=client, num_threads=8)
    stalled = {r.request_id for r in client.requests} - set(client.aborted)
    assert len(stalled) <= 1  # only the failed one


def test_a_dead_engine_ends_the_batch(scripted):
    client = scripted(lambda r: STALL)
    threading.Timer(0.05, client.die).start()
    states = program.run_batch([{"q": "x"}] * 200, backend=client, on_error="keep", num_threads=9)
    assert all(isinstance(state.error().__cause__, sw.EngineDied) for state in states)


def test_closing_the_generator_aborts_the_rest(scripted):
    client = scripted(lambda r: Reply("x") if len(client.requests) == 1 else STALL)
    states = program.run_batch(
        [{"q": "x"}] * 50, backend=client, generator_style=True, num_threads=1, on_error="keep"
    )
    assert next(states)["a"] == "x"
    states.close()
    assert len(client.requests) <= 2
    assert set(client.aborted) >= {r.request_id for r in client.requests[1:]}


def test_at_most_num_threads_run_at_a_time(scripted):
    client = scripted(lambda r: STALL)
    states = []
    worker = threading.Thread(
        target=lambda: states.extend(
            program.run_batch([{"q": "x"}] * 20, backend=client, num_threads=4)
        )
    )
    worker.start()
    while len(client.requests) < 4:
        threading.Event().wait(0.001)
    threading.Event().wait(0.05)
    assert len(client.requests) == 4
    while worker.is_alive():
        client.release()
        worker.join(0.01)
    assert len(states) == 20


def test_progress_bar(scripted, capsys):
    program.run_batch([{"q": "x"}] * 3, backend=scripted(answer), progress_bar=True)
    assert "3/3" in capsys.readouterr().err
