"""`Anthropic`: the vendor's client against a few lines that speak its wire format."""

import json

import pytest
from starlette.responses import JSONResponse

import sapwood as sw
from sapwood.lang.backends import Anthropic
from sapwood.runtime.errors import EngineDied, EngineError, InvalidRequest, Overloaded

pytestmark = pytest.mark.timeout(60)


def named(kind, **fields):
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **fields})}"


def said(*texts, reason="end_turn", sequence=None):
    usage = {"input_tokens": 5, "cache_read_input_tokens": 2, "output_tokens": 1}
    message = {
        "id": "m",
        "type": "message",
        "role": "assistant",
        "model": "claude",
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": usage,
    }
    deltas = [
        named("content_block_delta", index=0, delta={"type": "text_delta", "text": text})
        for text in texts
    ]
    end = {"stop_reason": reason, "stop_sequence": sequence}
    return [
        named("message_start", message=message),
        named("content_block_start", index=0, content_block={"type": "text", "text": ""}),
        named("ping"),
        *deltas,
        named("content_block_stop", index=0),
        named("message_delta", delta=end, usage={"output_tokens": 4}),
        named("message_stop"),
    ]


@pytest.fixture
def anthropic(fake):
    made = []

    def make(*answers, **arguments):
        asked, url = fake(*answers)
        options = {"base_url": url, "api_key": "k", "max_retries": 0, **arguments}
        made.append(Anthropic("claude", **options))
        return asked, made[-1]

    yield make
    for backend in made:
        backend.close()


@sw.function
def talk(s):
    s += sw.system("Be brief.")
    s += sw.user("Capital?")
    s += sw.assistant(sw.gen("a", max_tokens=16, stop=["\n"], top_k=5))
    s += sw.user("And then?")
    s += sw.assistant("It is" + sw.gen("b"))


def test_a_conversation(anthropic):
    asked, backend = anthropic(said("Par", "is", reason="stop_sequence", sequence="\n"), said(" x"))
    state = talk.run(backend=backend)
    assert (state["a"], state["b"]) == ("Paris", " x")
    (path, first), (_, second) = asked.asked
    assert path == "/v1/messages"
    assert first == {
        "model": "claude",
        "system": "Be brief.",
        "messages": [{"role": "user", "content": "Capital?"}],
        "max_tokens": 16,
        "stop_sequences": ["\n"],
        "top_k": 5,
        "stream": True,
    }
    assert second["messages"][-1] == {"role": "assistant", "content": "It is"}
    sent = asked.headers[0]
    assert "k" in (sent.get("x-api-key"), sent.get("authorization", "").removeprefix("Bearer "))
    meta = state.get_meta_info("a")
    assert (meta["prompt_tokens"], meta["cached_tokens"], meta["completion_tokens"]) == (7, 2, 4)
    assert meta["finish_reason"] == {"type": "stop", "matched": "\n"}
    assert backend.token_usage.completion_tokens == 8


def test_text_streams_as_it_comes(anthropic):
    _, backend = anthropic(said("one ", "two"), said("x"))
    state = talk.run(backend=backend, stream=True)
    assert "".join(state.text_iter("a")) == "one two"


def test_select_and_samples_are_refused_by_name(anthropic):
    asked, backend = anthropic()
    for expression, field in (
        (sw.select("a", ["x", "y"]), "choices"),
        (sw.gen("a", n=2), "n"),
        (sw.gen("a", dtype=int), "regex"),
        (sw.gen("a", frequency_penalty=1.0), "frequency_penalty"),
    ):

        @sw.function
        def program(s, expression):
            s += sw.user("?") + sw.assistant(expression)

        with pytest.raises(InvalidRequest) as caught:
            program.run(expression=expression, backend=backend)
        assert caught.value.field == field
    assert asked.asked == []


@pytest.mark.parametrize(
    ("status", "kind"),
    [(400, InvalidRequest), (401, EngineError), (429, Overloaded), (529, EngineError)],
)
def test_errors_are_what_they_are(anthropic, status, kind):
    body = {"type": "error", "error": {"type": "some_error", "message": "no"}}
    _, backend = anthropic(JSONResponse(body, status_code=status))
    with pytest.raises(sw.ProgramError, match="claude") as caught:
        talk.run(backend=backend)["a"]
    assert type(caught.value.__cause__) is kind


def test_an_answer_cut_off_is_an_error(anthropic):
    _, backend = anthropic(said("half")[:4])
    with pytest.raises(sw.ProgramError) as caught:
        talk.run(backend=backend)["a"]
    assert isinstance(caught.value.__cause__, EngineError)


def test_closing_hangs_up(anthropic):
    asked, backend = anthropic([*said("a")[:4], ...])
    state = talk.run(backend=backend, stream=True)
    assert next(iter(state.text_iter("a"))) == "a"
    backend.close()
    with pytest.raises(sw.ProgramError) as caught:
        state["a"]
    assert isinstance(caught.value.__cause__, EngineDied)
    assert asked.left.wait(20)
