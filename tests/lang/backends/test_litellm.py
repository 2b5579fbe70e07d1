"""`LiteLLM`, against OpenAI's wire format. Where the package is installed: it wants older versions
of others than these tests do."""

import pytest
from starlette.responses import JSONResponse

import sapwood as sw
from sapwood.runtime.errors import EngineError, InvalidRequest, Overloaded
from sapwood.runtime.templates import get_chat_template

pytest.importorskip("litellm")

pytestmark = [pytest.mark.timeout(120), pytest.mark.filterwarnings("ignore")]


def said(*texts):
    def chunk(choices, usage=None):
        return {
            "id": "x",
            "object": "chat.completion.chunk",
            "created": 1,
            "model": "m",
            "choices": choices,
            "usage": usage,
        }

    pieces = [
        chunk([{"index": 0, "delta": {"content": text}, "finish_reason": None}]) for text in texts
    ]
    end = chunk([{"index": 0, "delta": {}, "finish_reason": "stop"}])
    usage = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
    return [*pieces, end, chunk([], usage), "data: [DONE]"]


@sw.function
def talk(s):
    s += sw.user("Capital?") + sw.assistant(sw.gen("a", max_tokens=16, stop=["!"]))


def back_end(url, **options):
    return sw.LiteLLM(
        "openai/some-model", api_key="k", base_url=url + "/v1", max_retries=0, **options
    )


def test_a_conversation(fake):
    asked, url = fake(said("Par", "is"))
    with back_end(url, chat_template=get_chat_template("chatml")) as backend:
        state = talk.run(backend=backend)
        assert state["a"] == "Paris"
        assert state.text().startswith("<|im_start|>user\nCapital?")
        assert state.get_meta_info("a")["completion_tokens"] == 3
        assert backend.token_usage.prompt_tokens == 7
    path, body = asked.asked[0]
    assert path == "/v1/chat/completions"
    assert body["messages"] == [{"role": "user", "content": "Capital?"}]
    assert (body["max_tokens"], body["stop"], body["stream"]) == (16, ["!", "<|im_end|>"], True)


@pytest.mark.parametrize(
    ("status", "kind"), [(400, InvalidRequest), (401, EngineError), (429, Overloaded)]
)
def test_errors_are_what_they_are(fake, status, kind):
    body = {"error": {"message": "no", "type": "t", "param": None, "code": None}}
    _, url = fake(*[JSONResponse(body, status_code=status)] * 4)
    with back_end(url) as backend:
        with pytest.raises(sw.ProgramError, match="some-model") as caught:
            talk.run(backend=backend)["a"]
        assert type(caught.value.__cause__) is kind
