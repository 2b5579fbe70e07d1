"""`VertexAI`: Google's client against a few lines that speak its wire format, where the package is
installed."""

import pytest
from starlette.responses import JSONResponse

import sapwood as sw
from sapwood.runtime.errors import EngineError, InvalidRequest, Overloaded

pytest.importorskip("google.genai")

pytestmark = [pytest.mark.timeout(120), pytest.mark.filterwarnings("ignore")]


def said(*texts, reason="STOP"):
    pieces = [
        {"candidates": [{"content": {"role": "model", "parts": [{"text": text}]}}]}
        for text in texts
    ]
    usage = {"promptTokenCount": 7, "candidatesTokenCount": 3, "totalTokenCount": 10}
    return [*pieces, {"candidates": [{"finishReason": reason}], "usageMetadata": usage}]


@sw.function
def talk(s):
    s += sw.system("Be brief.") + sw.user("Capital?")
    s += sw.assistant(sw.gen("a", max_tokens=16, stop=["!"], top_k=5))
    s += sw.user("More?") + sw.assistant(sw.gen("b"))


def back_end(url):
    from google.oauth2.credentials import Credentials

    return sw.VertexAI(
        "gemini",
        project="p",
        location="l",
        credentials=Credentials(token="t"),
        http_options={"base_url": url},
    )


def test_a_conversation(fake):
    asked, url = fake(said("Par", "is"), said("Rome", reason="MAX_TOKENS"))
    with back_end(url) as backend:
        state = talk.run(backend=backend)
        assert (state["a"], state["b"]) == ("Paris", "Rome")
        assert state.get_meta_info("b")["finish_reason"]["type"] == "length"
        assert backend.token_usage.prompt_tokens == 14
    (path, first), (_, second) = asked.asked
    assert path.endswith("models/gemini:streamGenerateContent")
    assert first["systemInstruction"]["parts"] == [{"text": "Be brief."}]
    assert first["generationConfig"] == {"maxOutputTokens": 16, "stopSequences": ["!"], "topK": 5.0}
    assert [one["role"] for one in second["contents"]] == ["user", "model", "user"]


@pytest.mark.parametrize(
    ("status", "kind"), [(400, InvalidRequest), (403, EngineError), (429, Overloaded)]
)
def test_errors_are_what_they_are(fake, status, kind):
    body = {"error": {"code": status, "message": "no", "status": "X"}}
    _, url = fake(*[JSONResponse(body, status_code=status)] * 4)
    with back_end(url) as backend:
        with pytest.raises(sw.ProgramError, match="gemini") as caught:
            talk.run(backend=backend)["a"]
        assert type(caught.value.__cause__) is kind


def test_an_answer_withheld_is_an_error(fake):
    _, url = fake(said("x", reason="SAFETY"))
    with back_end(url) as backend, pytest.raises(sw.ProgramError, match="SAFETY"):
        talk.run(backend=backend)["a"]
