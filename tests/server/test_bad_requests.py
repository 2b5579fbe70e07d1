"""Every bad body is a 4xx whose message names what is wrong; nothing of it reaches the engine."""

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sapwood.runtime.errors import InvalidRequest

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
GENERATE = "/generate"

MESSAGE = {"role": "user", "content": "hi"}


def chat(**fields: Any) -> tuple[str, dict[str, Any]]:
    return CHAT, {"messages": [MESSAGE], **fields}


def said(**message: Any) -> tuple[str, dict[str, Any]]:
    return CHAT, {"messages": [message]}


def complete(**fields: Any) -> tuple[str, dict[str, Any]]:
    return COMPLETIONS, {"prompt": "hi", **fields}


def generate(**fields: Any) -> tuple[str, dict[str, Any]]:
    return GENERATE, {"text": "hi", **fields}


def sampled(**params: Any) -> tuple[str, dict[str, Any]]:
    return generate(sampling_params=params)


IMAGE = {"type": "image_url", "image_url": {"url": "x"}}

BAD: list[tuple[tuple[str, Any], str]] = [
    # a field that is not known, or not honoured
    (chat(tempratur=1), "tempratur"),
    (complete(tempratur=1), "tempratur"),
    (generate(tempratur=1), "tempratur"),
    (chat(tools=[{"type": "function"}]), "tools"),
    (chat(tool_choice="auto"), "tool_choice"),
    (chat(store=True), "store"),
    (chat(reasoning_effort="low"), "reasoning_effort"),
    (chat(stream=True, stream_options={"nope": 1}), "stream_options.nope"),
    (complete(suffix="x"), "suffix"),
    (complete(best_of=2), "best_of"),
    (generate(image_data="x"), "image_data"),
    (generate(lora_path="x"), "lora_path"),
    (generate(session_params={"id": "x"}), "session_params"),
    # a value of the wrong type
    (chat(temperature="1"), "temperature"),
    (chat(n=True), "n"),
    (chat(max_tokens=1.5), "max_tokens"),
    (chat(stop=3), "stop"),
    (chat(stop=["a", 3]), "stop[1]"),
    (chat(stream="yes"), "stream"),
    (chat(logit_bias={"5": "x"}), "logit_bias.5"),
    (chat(logit_bias={"x": 5}), "logit_bias"),
    (chat(messages="hi"), "messages"),
    (chat(messages=[]), "messages"),
    (chat(messages=["hi"]), "messages[0]"),
    (said(content="hi"), "messages[0].role"),
    (said(role="user"), "messages[0].content"),
    (said(role="king", content="hi"), "messages[0].role"),
    (said(role="user", content=None), "messages[0].content"),
    (said(role="user", content=[IMAGE]), "messages[0].content[0].type"),
    (said(role="user", content="hi", name="x"), "messages[0].name"),
    (said(role="assistant", content="hi", tool_calls=[{}]), "messages[0].tool_calls"),
    (complete(prompt=[1, "x"]), "prompt"),
    (complete(prompt=[]), "prompt"),
    (complete(prompt=[[True]]), "prompt"),
    ((COMPLETIONS, {}), "prompt"),
    (generate(sampling_params=3), "sampling_params"),
    (generate(rid=3), "rid"),
    ((GENERATE, {"text": []}), "text"),
    ((GENERATE, {"text": ["a", 1]}), "text"),
    ((GENERATE, {"input_ids": ["a"]}), "input_ids"),
    ((GENERATE, {"input_ids": [[1], "a"]}), "input_ids"),
    ((GENERATE, {"prompt": [{"ids": ["a"]}]}), "prompt"),
    ((GENERATE, {"prompt": [{"text": "a", "special": 1}]}), "prompt"),
    ((GENERATE, {"prompt": [{"text": "a", "ids": [1]}]}), "prompt"),
    ((GENERATE, {"prompt": []}), "prompt"),
    ((GENERATE, {}), "text"),
    ((GENERATE, {"text": "a", "input_ids": [1]}), "input_ids"),
    # a value out of range
    (chat(temperature=-1), "temperature"),
    (chat(top_p=0), "top_p"),
    (chat(n=0), "n"),
    (chat(max_tokens=-1), "max_tokens"),
    (chat(stop=""), "stop"),
    (chat(stop_regex="("), "stop_regex"),
    (chat(top_logprobs=21, logprobs=True), "top_logprobs"),
    (chat(logit_bias={"1": 101}), "logit_bias"),
    (complete(logprobs=21), "logprobs"),
    (sampled(temperature=-1), "temperature"),
    (sampled(max_new_tokens=-1), "max_new_tokens"),
    (sampled(nope=1), "nope"),
    (generate(return_logprob=True, top_logprobs_num=1000), "top_logprobs_num"),
    # fields that contradict each other
    (chat(top_logprobs=2), "top_logprobs"),
    (chat(max_tokens=1, max_completion_tokens=2), "max_tokens and max_completion_tokens"),
    (chat(max_completion_tokens=-1), "max_completion_tokens: -1"),
    (chat(max_completion_tokens=1, min_tokens=2), "min_tokens: 2 is more than max_completion_t"),
    (sampled(max_new_tokens=1, min_new_tokens=2), "min_new_tokens: 2 is more than max_new_tokens"),
    (("/concate_and_append_request", {"src_rids": "x"}), "src_rids"),
    (chat(stream_options={"include_usage": True}), "stream_options"),
    (chat(continue_final_message=True), "continue_final_message"),
    (chat(continue_final_message=True, add_generation_prompt=True), "add_generation_prompt"),
    (chat(chat_template_kwargs={"messages": []}), "chat_template_kwargs.messages"),
    (chat(regex="a", json_schema={}), "regex and json_schema"),
    (chat(response_format={"type": "json_schema"}), "response_format.json_schema"),
    (chat(response_format={"type": "xml"}), "response_format.type"),
    (chat(response_format={"type": "text", "triggers": []}), "response_format.triggers"),
    (chat(response_format={"type": "structural_tag", "triggers": 5}), "triggers"),
    (chat(response_format={"type": "structural_tag", "structures": [{}]}), "response_format"),
    (chat(ebnf="root ::= 'a'", regex="a"), "ebnf"),
    (generate(top_logprobs_num=2), "top_logprobs_num"),
    (generate(rid=["a", "b"]), "rid"),
    ((GENERATE, {"text": ["a", "b"], "rid": ["x", "x"]}), "rid"),
    ((GENERATE, {"text": ["a", "b"], "sampling_params": [{}]}), "sampling_params"),
    # no object at all
    ((CHAT, []), "object"),
    ((GENERATE, "text"), "object"),
    # schemas
    (chat(json_schema="{"), "json_schema"),
    (chat(json_schema=3), "json_schema"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "word"), BAD, ids=[f"{c[0]}-{json.dumps(c[1])}" for c, _ in BAD])
def test_bad_body(serve: Any, call: tuple[str, Any], word: str) -> None:
    served = serve()
    path, body = call
    answer = served.post(path, body)
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert word in error["message"]
    if path.startswith("/v1"):
        assert error["type"] == "invalid_request_error" and "param" in error
    assert served.client.requests == []


SCHEMA = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}}}

RENAMED: list[tuple[tuple[str, Any], str, str]] = [
    # what is asked, the runtime's field, the caller's
    (chat(regex="("), "constraint", "regex"),
    (chat(json_schema={}), "constraint", "json_schema"),
    (chat(response_format=SCHEMA), "constraint", "response_format.json_schema.schema"),
    (chat(max_tokens=3), "max_tokens", "max_tokens"),
    (chat(max_completion_tokens=3), "max_tokens", "max_completion_tokens"),
    (chat(max_tokens=3, max_completion_tokens=3), "max_tokens", "max_completion_tokens"),
    (chat(), "prompt", "messages"),
    (complete(regex="("), "constraint", "regex"),
    (complete(max_tokens=3), "max_tokens", "max_tokens"),
    (complete(), "prompt", "prompt"),
    (sampled(regex="("), "constraint", "regex"),
    (sampled(json_schema={}), "constraint", "json_schema"),
    (sampled(choices=["a"]), "constraint", "choices"),
    (sampled(max_new_tokens=3), "max_tokens", "max_new_tokens"),
    (sampled(), "max_tokens", "max_new_tokens"),
    (sampled(min_new_tokens=3), "min_tokens", "min_new_tokens"),
    (sampled(sampling_seed=3), "seed", "sampling_seed"),
    (generate(), "prompt", "text"),
    ((GENERATE, {"input_ids": [1]}), "prompt", "input_ids"),
    ((GENERATE, {"text": ["a"], "sampling_params": [{"regex": "a"}]}), "constraint", "regex"),
]  # fmt: skip


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("call", "field", "key"), RENAMED, ids=[f"{c[0]}-{json.dumps(c[1])}" for c, _, _ in RENAMED]
)
def test_what_the_engine_refuses_is_named_as_the_caller_did(
    serve: Any, call: tuple[str, Any], field: str, key: str, stream: bool
) -> None:
    path, body = call
    served = serve([InvalidRequest(f"{field}: the constraint and max_tokens 3", field=field)])
    answer = served.post(path, {**body, "stream": stream})
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert error["message"].startswith(f"{key}: the constraint and ")
    if field == "max_tokens":
        assert error["message"].endswith(f" and {key} 3")
    if path != GENERATE:
        assert error["param"] == key


def test_one_limit_under_both_names(serve: Any) -> None:
    served = serve()
    assert served.chat(max_tokens=3, max_completion_tokens=3).status_code == 200
    assert served.client.requests[0].sampling.max_tokens == 3


def test_a_byte_order_mark_is_no_fault(serve: Any) -> None:
    answer = serve().call(
        "POST",
        GENERATE,
        content=b'\xef\xbb\xbf{"text": "hi"}',
        headers={"content-type": "application/json"},
    )
    assert answer.status_code == 200


BYTES: list[tuple[bytes, int, str]] = [
    (b"{", 400, "not JSON"),
    (b"", 400, "not JSON"),
    (b'{"a": 1', 400, "not JSON"),
    (b"\xff", 400, "UTF-8"),
    (b'{"temperature": NaN}', 400, "NaN"),
    (b'{"temperature": -Infinity}', 400, "-Infinity"),
    (b'{"temperature": 1e999}', 400, "1e999"),
    (b'{"seed": ' + b"9" * 5000 + b"}", 400, "not JSON"),
    (b"[" * 200_000, 400, "nested"),
    (b'{"text": "a", "text": "b"}', 400, '"text"'),
    (b'{"text": "\\ud800"}', 400, "text: half a character"),
    (b'{"messages": [{"content": "\\udc00"}]}', 400, "messages[0].content: half a character"),
    (b'{"text": "' + b"x" * 2000 + b'"}', 413, "1000"),
]


@pytest.mark.parametrize(("body", "status", "word"), BYTES, ids=[str(b[:24]) for b, _, _ in BYTES])
@pytest.mark.parametrize("path", [CHAT, GENERATE])
def test_bad_bytes(serve: Any, path: str, body: bytes, status: int, word: str) -> None:
    limit = 1000 if status == 413 else 1 << 20
    served = serve(max_body_bytes=limit)
    answer = served.call("POST", path, content=body, headers={"content-type": "application/json"})
    assert answer.status_code == status
    assert word in answer.json()["error"]["message"]


def test_a_body_in_pieces_is_measured_too(serve: Any) -> None:
    served = serve(max_body_bytes=1000)

    async def pieces() -> Any:
        for _ in range(2000):
            yield b" "

    answer = served.call(
        "POST", GENERATE, content=pieces(), headers={"content-type": "application/json"}
    )
    assert answer.status_code == 413


@pytest.mark.parametrize(
    ("content_type", "status"),
    [
        ("application/json", 200),
        ("application/json; charset=utf-8", 200),
        ("Application/JSON", 200),
        ("application/vnd.api+json", 200),
        ("application/x-www-form-urlencoded", 415),
        ("text/plain", 415),
        ("application/jsonx", 415),
        ("", 415),
    ],
)
def test_content_type(serve: Any, content_type: str, status: int) -> None:
    answer = serve().call(
        "POST", GENERATE, content=b'{"text": "hi"}', headers={"content-type": content_type}
    )
    assert answer.status_code == status


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)
NAMES = st.sampled_from(
    "messages prompt text input_ids sampling_params stop n logit_bias response_format stream rid"
    " logprobs echo temperature seed json_schema regex user chat_template_kwargs".split()
)


@settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(path=st.sampled_from([CHAT, COMPLETIONS, GENERATE]), body=st.dictionaries(NAMES, JSON))
def test_no_body_is_an_internal_error(serve: Any, path: str, body: Any) -> None:
    answer = serve().call(
        "POST",
        path,
        content=json.dumps(body, allow_nan=True).encode(),
        headers={"content-type": "application/json"},
    )
    assert answer.status_code < 500, answer.text
    if answer.status_code != 200:
        assert answer.json()["error"]["message"]


# --- paths, models, keys -----------------------------------------------------------------------


def test_unknown_model(serve: Any) -> None:
    answer = serve().chat(model="gpt-9")
    assert answer.status_code == 404
    error = answer.json()["error"]
    assert error["code"] == "model_not_found" and error["param"] == "model"
    assert "'gpt-9'" in error["message"] and "'scripted'" in error["message"]


def test_served_model_name(serve: Any) -> None:
    served = serve(served_model_name="mine/own")
    assert served.chat(model="scripted").status_code == 404
    assert served.chat(model="mine/own").json()["model"] == "mine/own"
    assert served.call("GET", "/v1/models/mine/own").json()["id"] == "mine/own"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nope", 404),
        ("GET", "/v1/nope", 404),
        ("GET", CHAT, 405),
        ("DELETE", GENERATE, 405),
    ],
)
def test_unknown_path_or_method(serve: Any, method: str, path: str, status: int) -> None:
    answer = serve().call(method, path)
    assert answer.status_code == status and answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("header", "status"),
    [("Bearer secret", 200), ("Bearer wrong", 401), ("secret", 401), ("", 401), ("Bearer é", 401)],
)
@pytest.mark.parametrize("path", ["/v1/models", "/generate", "/server_info"])
def test_api_key(serve: Any, path: str, header: str, status: int) -> None:
    served = serve(api_key="secret")
    method, body = ("POST", {"text": "hi"}) if path == "/generate" else ("GET", None)
    answer = served.call(method, path, json=body, headers={"authorization": header.encode()})
    assert answer.status_code == status
    assert served.call("GET", "/health").status_code == 200
