"""`OpenAI`: the official client against a few lines that speak its wire format."""

import threading

import pytest
from starlette.responses import JSONResponse

import sapwood as sw
from sapwood.lang.backends import OpenAI
from sapwood.runtime.errors import (
    Cancelled,
    EngineDied,
    EngineError,
    InvalidRequest,
    Overloaded,
    Unreachable,
)
from sapwood.runtime.protocol import GenerateRequest, SamplingParams, Turn, as_prompt
from sapwood.runtime.templates import get_chat_template

pytestmark = pytest.mark.timeout(60)


def chunk(text=None, finish=None, index=0, usage=None):
    choices = [{"index": index, "delta": {"content": text}, "finish_reason": finish}]
    return {
        "id": "x",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "m",
        "choices": [] if usage else choices,
        "usage": usage,
    }


def piece(text="", finish=None, usage=None):
    choices = [{"index": 0, "text": text, "finish_reason": finish, "logprobs": None}]
    return {
        "id": "x",
        "object": "text_completion",
        "created": 1,
        "model": "m",
        "choices": [] if usage else choices,
        "usage": usage,
    }


USAGE = {
    "prompt_tokens": 7,
    "completion_tokens": 3,
    "total_tokens": 10,
    "prompt_tokens_details": {"cached_tokens": 2},
}
DONE = "data: [DONE]"


def said(*texts, finish="stop", usage=USAGE):
    return [*map(chunk, texts), chunk(finish=finish), chunk(usage=usage), DONE]


@pytest.fixture
def openai(fake):
    """`openai(*answers, **arguments)`: (what is asked, the back end)."""
    made = []

    def make(*answers, model="gpt-4o", **arguments):
        asked, url = fake(*answers)
        options = {"base_url": url + "/v1", "api_key": "k", "max_retries": 0, **arguments}
        made.append(OpenAI(model, **options))
        return asked, made[-1]

    yield make
    for backend in made:
        backend.close()


@sw.function
def talk(s, question):
    s += sw.system("Be brief.")
    s += sw.user(question)
    s += sw.assistant(sw.gen("a", max_tokens=16, stop=["\n"], temperature=0.5))
    s += sw.user("And then?")
    with s.assistant():
        s += sw.gen("b")


def test_a_conversation(openai):
    asked, backend = openai(said("Par", "is."), said("Rome"))
    state = talk.run(question="Capital?", backend=backend)
    assert (state["a"], state["b"]) == ("Paris.", "Rome")
    (path, first), (_, second) = asked.asked
    assert path == "/v1/chat/completions"
    assert first == {
        "model": "gpt-4o",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Capital?"},
        ],
        "max_tokens": 16,
        "stop": ["\n"],
        "temperature": 0.5,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    assert second["messages"][2:] == [
        {"role": "assistant", "content": "Paris."},
        {"role": "user", "content": "And then?"},
    ]
    assert asked.headers[0]["authorization"] == "Bearer k"
    assert state.messages()[-1] == {"role": "assistant", "content": "Rome"}
    expected = "SYSTEM:Be brief.\nUSER:Capital?\nASSISTANT:Paris.\nUSER:And then?\nASSISTANT:Rome\n"
    assert state.text() == expected
    meta = state.get_meta_info("a")
    assert (meta["prompt_tokens"], meta["completion_tokens"], meta["cached_tokens"]) == (7, 3, 2)
    assert meta["finish_reason"]["type"] == "stop"
    assert backend.token_usage.prompt_tokens == 14
    assert sw.get_server_info(backend)["completion_tokens"] == 6
    backend.token_usage.reset()
    assert backend.token_usage.completion_tokens == 0


def test_text_streams_as_it_comes(openai):
    _, backend = openai(said("one ", "two"), said("x"))
    state = talk.run(question="?", backend=backend, stream=True)
    assert "".join(state.text_iter("a")) == "one two"


def test_several_samples(openai):
    answer = [
        chunk("x", index=0),
        chunk("y", index=1),
        chunk(finish="stop", index=1),
        chunk(finish="length", index=0),
        chunk(usage=USAGE),
        DONE,
    ]
    asked, backend = openai(answer)

    @sw.function
    def program(s):
        s += sw.user("?") + sw.assistant(sw.gen("a", n=2))

    state = program.run(backend=backend)
    assert state["a"] == ["x", "y"]
    assert asked.asked[0][1]["n"] == 2
    assert [m["finish_reason"]["type"] for m in state.get_meta_info("a")] == ["length", "stop"]


def test_a_schema_is_sent_as_a_response_format(openai):
    asked, backend = openai(said('{"x": 1}'))

    @sw.function
    def program(s):
        s += sw.user("?") + sw.assistant(sw.gen("a", json_schema={"type": "object"}))

    assert program.run(backend=backend)["a"] == '{"x": 1}'
    format = asked.asked[0][1]["response_format"]
    assert format["json_schema"]["schema"] == {"type": "object"}


def test_models_that_reason_count_tokens_by_another_name(openai):
    asked, backend = openai(said("x"), model="o1-mini")

    @sw.function
    def program(s):
        s += sw.user("?") + sw.assistant(sw.gen("a", max_tokens=9))

    program.run(backend=backend).sync()
    body = asked.asked[0][1]
    assert body["max_completion_tokens"] == 9
    assert not {"max_tokens", "temperature", "stop"} & set(body)


def test_completion_models_continue_the_text(openai):
    asked, backend = openai(
        [piece(" 4"), piece("2", "stop"), piece(usage=USAGE), DONE],
        [piece("!", "length"), piece(usage=USAGE), DONE],
        model="gpt-3.5-turbo-instruct",
    )
    assert not backend.is_chat_model

    @sw.function
    def program(s):
        s += "The answer is" + sw.gen("a", stop=".") + ". Yes"
        s += sw.gen("b")

    state = program.run(backend=backend)
    assert state.text() == "The answer is 42. Yes!"
    assert [body["prompt"] for _, body in asked.asked] == [
        "The answer is",
        "The answer is 42. Yes",
    ]
    assert asked.asked[0][0] == "/v1/completions"


def test_a_template_shows_the_roles(openai):
    _, backend = openai(said("A"), chat_template=get_chat_template("chatml"))

    @sw.function
    def program(s):
        s += sw.user("U") + sw.assistant(sw.gen("a"))

    text = program.run(backend=backend).text()
    assert text == "<|im_start|>user\nU<|im_end|>\n<|im_start|>assistant\nA<|im_end|>\n"


@pytest.mark.parametrize(
    ("expression", "field"),
    [
        (sw.user("x") + sw.gen("a"), "role"),
        (sw.assistant("so: " + sw.gen("a")), "role"),
        (sw.assistant(sw.select("a", ["x", "y"])), "choices"),
        (sw.assistant(sw.gen("a", regex="x+")), "regex"),
        (sw.assistant(sw.gen("a", top_k=5)), "top_k"),
        (sw.assistant(sw.gen("a", min_tokens=5)), "min_tokens"),
        (sw.assistant(sw.gen("a", return_logprob=True)), "return_logprob"),
        (sw.user(sw.image("cat.png")), "image"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_sent(openai, expression, field):
    asked, backend = openai()

    @sw.function
    def program(s):
        s += expression

    with pytest.raises(InvalidRequest, match="gpt-4o") as caught:
        program.run(backend=backend)
    assert caught.value.field == field
    assert asked.asked == []


def failing(status, message="no", **fields):
    error = {"message": message, "type": "t", "param": None, "code": None, **fields}
    return JSONResponse({"error": error}, status_code=status)


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (failing(400, "bad stop", param="stop"), InvalidRequest),
        (failing(401), EngineError),
        (failing(404), EngineError),
        (failing(429), Overloaded),
        (failing(500), EngineError),
        ([chunk("half"), {"error": {"message": "broke", "type": "t"}}], EngineError),
        ([chunk("half"), DONE], EngineError),
        (said("x", finish="content_filter"), EngineError),
    ],
)
def test_errors_are_told_with_the_line_of_the_gen(openai, answer, kind):
    _, backend = openai(answer)

    @sw.function
    def program(s):
        s += sw.user("?") + sw.assistant(sw.gen("a"))

    state = program.run(backend=backend)
    with pytest.raises(sw.ProgramError, match="test_openai.py") as caught:
        state["a"]
    assert type(caught.value.__cause__) is kind
    if kind is InvalidRequest:
        assert caught.value.__cause__.field == "stop"


def test_what_may_pass_is_tried_again(openai):
    slow_down = JSONResponse(
        {"error": {"message": "busy"}}, status_code=429, headers={"retry-after-ms": "1"}
    )
    asked, backend = openai(slow_down, slow_down, said("ok"), max_retries=2)

    @sw.function
    def program(s):
        s += sw.user("?") + sw.assistant(sw.gen("a"))

    assert program.run(backend=backend)["a"] == "ok"
    assert len(asked.asked) == 3


def request():
    turns = (Turn("user", "?"), Turn("assistant", ""))
    return GenerateRequest(as_prompt("?"), SamplingParams(), turns=turns)


def test_closing_a_stream_hangs_up(openai):
    asked, backend = openai([chunk("a"), ...])
    stream = backend.client.generate(request())
    chunks = iter(stream)
    assert next(chunks).text == "a"
    stream.close()
    with pytest.raises(Cancelled):
        next(chunks)
    assert asked.left.wait(20)


def test_closing_the_back_end_wakes_everyone(openai):
    _, backend = openai([chunk("a"), ...])
    stream = backend.client.generate(request())
    threading.Timer(0.05, backend.close).start()
    with pytest.raises(EngineDied):
        list(stream)


def test_nobody_there(openai):
    _, backend = openai(base_url="http://127.0.0.1:9/v1")
    with pytest.raises(Unreachable):
        list(backend.client.generate(request()))


def test_without_a_key_it_is_told_at_once(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(EngineError, match="OPENAI_API_KEY"):
        OpenAI("gpt-4o")
    monkeypatch.delenv("CRUSOE_API_KEY", raising=False)
    with pytest.raises(InvalidRequest, match="CRUSOE_API_KEY"):
        sw.Crusoe("zai/GLM-5.2")


def test_crusoe_is_the_same_at_another_address(fake):
    asked, url = fake(said("hi"))
    with sw.Crusoe("zai/GLM-5.2", base_url=url + "/v1", api_key="c") as backend:

        @sw.function
        def program(s):
            s += sw.user("?") + sw.assistant(sw.gen("a"))

        assert program.run(backend=backend)["a"] == "hi"
    assert asked.headers[0]["authorization"] == "Bearer c"


def test_azure_takes_its_own_arguments(fake):
    asked, url = fake(said("hi"))
    arguments = {"azure_endpoint": url, "api_key": "z", "api_version": "2024-02-01"}
    with OpenAI("gpt-4o", is_azure=True, **arguments) as backend:

        @sw.function
        def program(s):
            s += sw.user("?") + sw.assistant(sw.gen("a"))

        assert program.run(backend=backend)["a"] == "hi"
    assert asked.asked[0][0].endswith("/deployments/gpt-4o/chat/completions")
    assert asked.headers[0]["api-key"] == "z"


def test_a_missing_package_names_its_extra(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(EngineError, match=r"pip install 'sapwood\[openai\]'"):
        OpenAI("gpt-4o")


def test_what_is_no_name_and_what_is_no_flag_is_refused_by_name():
    with pytest.raises(InvalidRequest, match="model_name: 5"):
        sw.OpenAI(5, api_key="k")
    with pytest.raises(InvalidRequest, match="is_chat_model: 'yes'"):
        sw.OpenAI("m", "yes", api_key="k")
    with pytest.raises(InvalidRequest, match="is_azure: 1"):
        sw.OpenAI("m", is_azure=1, api_key="k")
