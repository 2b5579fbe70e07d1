"""Many runs at a time: order, errors, arguments, abort."""

import asyncio
import signal
import threading
from collections import Counter

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


# --- retries ------------------------------------------------------------------------------------

TRANSIENT = {
    "engine": lambda: sw.EngineError("x"),
    "overloaded": lambda: sw.Overloaded("x"),
    "network": lambda: ConnectionResetError("x"),
    "unreachable": lambda: sw.Unreachable("x"),
}
LASTING = {
    "request": lambda: sw.InvalidRequest("x"),
    "cancelled": lambda: sw.Cancelled("x"),
    "dead": lambda: sw.EngineDied("x"),
    "other": lambda: ZeroDivisionError("x"),
}


def failing(error, times):
    """Fails that often for each prompt, then answers."""
    seen = Counter()

    def script(request):
        prompt = decode(encode_prompt(request.prompt))
        seen[prompt] += 1
        return error() if seen[prompt] <= times else prompt

    return script


def run_items(func, style, items, **options):
    if style == "arun_batch":
        return asyncio.run(func.arun_batch(items, **options))
    return list(func.run_batch(items, generator_style=style == "generator", **options))


STYLES = ["list", "generator", "arun_batch"]


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("kind", TRANSIENT)
def test_transient_errors_are_tried_again_in_a_fresh_state(scripted, style, kind):
    client = scripted(failing(TRANSIENT[kind], 2))
    items = [{"q": str(i)} for i in range(5)]
    states = run_items(program, style, items, backend=client, retries=2, seed=7)
    assert [state.text() for state in states] == ["00", "11", "22", "33", "44"]
    assert len(client.requests) == 15
    assert all(r.sampling.seed == 7 for r in client.requests)


@pytest.mark.parametrize("style", STYLES)
def test_retries_end(scripted, style):
    client = scripted(failing(TRANSIENT["engine"], 3))
    with pytest.raises(sw.ProgramError) as caught:
        run_items(program, style, [{"q": "x"}], backend=client, retries=2)
    assert "in item 0 of" in caught.value.__notes__[0]
    assert len(client.requests) == 3


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("kind", LASTING)
def test_lasting_errors_are_not_tried_again(scripted, style, kind):
    client = scripted(failing(LASTING[kind], 1))
    states = run_items(
        program, style, [{"q": "x"}, {"q": "y"}], backend=client, retries=5, on_error="keep"
    )
    assert len(client.requests) == 2
    assert all(isinstance(state.error(), sw.ProgramError) for state in states)


def test_a_body_is_tried_again_for_what_it_could_not_reach_and_not_for_its_own_faults(scripted):
    calls = Counter()

    @sw.function
    def body(s, error):
        calls[error] += 1
        s += "x"
        if calls[error] == 1:
            raise error("first time")

    items = [{"error": ConnectionError}, {"error": ValueError}]
    states = body.run_batch(items, backend=scripted([]), retries=3, on_error="keep")
    assert states[0].text() == "x" and isinstance(states[1].error(), ValueError)
    assert calls == {ConnectionError: 2, ValueError: 1}


@pytest.mark.parametrize("style", STYLES)
def test_a_late_item_is_tried_again(scripted, style):
    client = scripted(lambda r: STALL if len(client.requests) == 1 else "x")
    options = {"backend": client, "timeout": 0.05}
    (state,) = run_items(program, style, [{"q": "q"}], retries=1, **options)
    assert state.text() == "qx"
    client = scripted(lambda r: STALL)
    (state,) = run_items(
        program, style, [{"q": "q"}], on_error="keep", backend=client, timeout=0.05
    )
    assert isinstance(state.error(), sw.ProgramTimeout)


@pytest.mark.parametrize("option", ["generator_style", "progress_bar"])
@pytest.mark.parametrize("items", [[], [{"q": "x"}]])
def test_a_flag_of_a_batch_is_true_or_false(scripted, option, items):
    with pytest.raises(sw.InvalidRequest, match=f"{option}: 'no'"):
        program.run_batch(items, backend=scripted([]), **{option: "no"})


def test_an_unknown_option_names_the_verb(scripted):
    for verb in (program.run_batch, program.arun_batch):
        with pytest.raises(TypeError, match=f"^{verb.__name__} has no option 'threads'"):
            verb([{"q": "x"}], backend=scripted([]), threads=3)
        with pytest.raises(TypeError, match=f"item 0 of {verb.__name__}: 5 is neither"):
            verb([5], backend=scripted([]))


@pytest.mark.parametrize("retries", [-1, True, 1.5, "2"])
def test_bad_retries(scripted, retries):
    with pytest.raises(sw.InvalidRequest, match="retries"):
        program.run_batch([{"q": "x"}], backend=scripted([]), retries=retries)
    with pytest.raises(sw.InvalidRequest, match="retries"):
        program.arun_batch([{"q": "x"}], backend=scripted([]), retries=retries)


# --- Ctrl-C -------------------------------------------------------------------------------------


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("retries", [0, 3])
def test_ctrl_c_aborts_everything(scripted, style, retries):
    client = scripted(lambda r: STALL)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    main = threading.main_thread().ident

    def interrupt():
        while len(client.requests) < 4:
            threading.Event().wait(0.001)
        # Python loses a signal that comes between giving up its lock and beginning to wait.
        threading.Event().wait(0.1)
        signal.pthread_kill(main, signal.SIGINT)

    width = {"num_concurrent" if style == "arun_batch" else "num_threads": 4}
    thread = threading.Thread(target=interrupt)
    thread.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            run_items(program, style, [{"q": "x"}] * 20, backend=client, retries=retries, **width)
    finally:
        signal.signal(signal.SIGINT, before)
        thread.join()
    while set(client.aborted) != {r.request_id for r in client.requests}:
        threading.Event().wait(0.001)
    assert len(client.requests) == 4


# --- on an event loop ---------------------------------------------------------------------------


@sw.function
async def aprogram(s, q, extra=""):
    s += q + extra
    s += sw.gen("a")
    await s.get("a")


BOTH = {"plain": program, "async": aprogram}


@pytest.mark.parametrize("kind", BOTH)
@pytest.mark.parametrize("style", STYLES)
def test_every_kind_of_program_runs_in_every_style(scripted, kind, style):
    items = [{"q": f"q{i}"} for i in range(40)]
    states = run_items(BOTH[kind], style, items, backend=scripted(answer))
    assert [state["a"] for state in states] == [item["q"] for item in items]
    assert run_items(BOTH[kind], style, [], backend=scripted(answer)) == []


@pytest.mark.parametrize("kind", BOTH)
def test_an_error_aborts_the_others_of_an_event_loop(scripted, kind):
    def script(request):
        return answer(request) if "bad" in decode(encode_prompt(request.prompt)) else STALL

    client = scripted(script)
    items = [{"q": "x"}] * 5 + [{"q": "bad"}] + [{"q": "x"}] * 5
    with pytest.raises(sw.ProgramError, match="boom") as caught:
        asyncio.run(BOTH[kind].arun_batch(items, backend=client))
    assert "in item 5 of arun_batch" in caught.value.__notes__
    assert len({r.request_id for r in client.requests} - set(client.aborted)) <= 1


def test_kept_errors_and_a_bounded_number_at_a_time(scripted):
    client = scripted(
        lambda r: Reply(answer(r), hold_after=0) if "bad" not in str(r) else answer(r)
    )
    most = []

    async def main():
        running = asyncio.create_task(
            aprogram.arun_batch(
                [{"q": "x"}] * 5 + [{"q": "bad"}], backend=client, num_concurrent=2, on_error="keep"
            )
        )
        while not running.done():
            most.append(client.num_held)
            client.release()
            await asyncio.sleep(0.001)
        return await running

    states = asyncio.run(main())
    assert max(most) == 2
    assert [state.error() is None for state in states] == [True] * 5 + [False]


def test_bad_calls_of_an_event_loop():
    with pytest.raises(sw.InvalidRequest, match="num_concurrent"):
        aprogram.arun_batch([{"q": "x"}], num_concurrent=0)
    with pytest.raises(TypeError, match="item 0"):
        aprogram.arun_batch([{}])
    with pytest.raises(TypeError, match="'num_threads'"):
        aprogram.arun_batch([{"q": "x"}], num_threads=3)
