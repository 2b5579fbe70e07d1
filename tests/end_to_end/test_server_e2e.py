"""The server as its users meet it: a real process, real sockets, the official client, and
everything that goes wrong."""

import http.client
import json
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlparse

import jsonschema
import openai
import pytest

SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 16}, "visits": {"type": "integer"}},
    "required": ["city", "visits"],
    "additionalProperties": False,
}


@pytest.fixture
def client(server: Any) -> openai.OpenAI:
    return openai.OpenAI(base_url=server.url + "/v1", api_key="none", max_retries=0)


def model_name(client: openai.OpenAI) -> str:
    return client.models.list().data[0].id


def eventually(check: Callable[[], bool], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < end, "it did not come true in time"
        time.sleep(0.05)


def test_the_official_client_chats(client: openai.OpenAI) -> None:
    messages: Any = [{"role": "user", "content": "Say hello."}]
    answer = client.chat.completions.create(
        model=model_name(client), messages=messages, max_tokens=12, temperature=0
    )
    text = answer.choices[0].message.content
    assert text and answer.usage is not None and 0 < answer.usage.completion_tokens <= 12
    stream = client.chat.completions.create(
        model=model_name(client), messages=messages, max_tokens=12, temperature=0, stream=True
    )
    pieces = [chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices]
    assert "".join(pieces) == text and len(pieces) > 2


def test_the_official_client_gets_valid_json(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model=model_name(client),
        messages=[{"role": "user", "content": "Where have you been?"}],
        max_tokens=60,
        response_format={
            "type": "json_schema",
            "json_schema": {"name": "trip", "schema": SCHEMA, "strict": True},
        },
    )
    assert answer.choices[0].finish_reason == "stop"
    jsonschema.validate(json.loads(answer.choices[0].message.content or ""), SCHEMA)


def test_text_completions(client: openai.OpenAI) -> None:
    answer = client.completions.create(
        model=model_name(client),
        prompt="One, two, three,",
        max_tokens=4,
        temperature=0,
        n=2,
        seed=1,
    )
    assert len(answer.choices) == 2 and answer.choices[0].text == answer.choices[1].text


def test_errors_of_the_official_client(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.create(
            model="no-such-model", messages=[{"role": "user", "content": "x"}]
        )
    with pytest.raises(openai.BadRequestError, match="temperature"):
        client.chat.completions.create(
            model=model_name(client), messages=[{"role": "user", "content": "x"}], temperature=-1
        )


def test_the_native_surface(server: Any) -> None:
    status, answer = server.call(
        "/generate",
        {
            "text": "The capital of France is",
            "sampling_params": {"max_new_tokens": 5, "temperature": 0},
        },
    )
    assert status == 200 and "Paris" in answer["text"]
    assert answer["meta_info"]["completion_tokens"] == 5
    assert answer["meta_info"]["finish_reason"] == {"type": "length", "length": 5}


def generate(params: object = None, **body: Any) -> tuple[str, dict[str, Any]]:
    return "/generate", {"text": "x", "sampling_params": params or {}, **body}


def chat(**body: Any) -> tuple[str, dict[str, Any]]:
    return "/v1/chat/completions", {"messages": [{"role": "user", "content": "x"}], **body}


BAD = {
    "temperature of the wrong type": (generate({"temperature": "hot"}), "temperature"),
    "NaN": (("/generate", b'{"text": "x", "sampling_params": {"temperature": NaN}}'), "NaN"),
    "unknown sampling field": (generate({"temprature": 1}), "temprature"),
    "unknown field": (generate(txet="x"), "txet"),
    "10 MB prompt": (("/generate", {"text": "word " * 2_000_000}), "text: "),
    "invalid regex": (generate({"regex": "(a"}), "regex"),
    "backreference": (generate({"regex": r"(a)\1"}), "backreference"),
    "invalid schema": (generate({"json_schema": '{"type": "strin"}'}), "strin"),
    "schema that is no JSON": (generate({"json_schema": "{"}), "json_schema"),
    "unsupported keyword": (
        generate({"json_schema": '{"type": "object", "minProperties": 3}'}),
        "minProperties",
    ),
    "empty prompt": (("/generate", {"text": ""}), "text: "),
    "token id out of range": (("/generate", {"input_ids": [1, 99_999_999]}), "99999999"),
    "negative token id": (("/generate", {"input_ids": [-1]}), "-1"),
    "beyond the context": (generate({"max_new_tokens": 1_000_000}), "max_new_tokens: "),
    "not JSON": (("/generate", b"{"), "JSON"),
    "no prompt": (("/generate", {"sampling_params": {}}), "text"),
    "chat: unknown field": (chat(tempratur=1), "tempratur"),
    "chat: bad role": (chat(messages=[{"role": "king", "content": "x"}]), "role"),
    "chat: n of 0": (chat(n=0), "n"),
    "chat: no messages": (chat(messages=[]), "messages"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_requests_are_4xx_and_name_the_fault(server: Any, name: str) -> None:
    (path, body), word = BAD[name]
    status, answer = server.call(path, body)
    assert 400 <= status < 500, answer
    assert word in json.dumps(answer)
    status, _ = server.call("/health")
    assert status == 200


def open_stream(server: Any, text: str) -> tuple[http.client.HTTPConnection, Any]:
    address = urlparse(server.url)
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=60)
    body = {
        "text": text,
        "stream": True,
        "sampling_params": {"max_new_tokens": 2_000, "ignore_eos": True},
    }
    connection.request(
        "POST", "/generate", json.dumps(body), headers={"Content-Type": "application/json"}
    )
    return connection, connection.getresponse()


def test_fifty_clients_killed_in_mid_stream_leak_nothing(server: Any) -> None:
    server.call("/flush_cache", {})
    eventually(lambda: server.stats()["pages_used"] == 0)
    for number in range(50):
        connection, answer = open_stream(server, f"Story number {number}:")
        assert answer.readline().startswith(b"data: ")
        connection.close()
        answer.close()
    eventually(lambda: server.stats()["requests_running"] + server.stats()["requests_waiting"] == 0)
    stats = server.stats()
    assert stats["pages_used"] == 0
    assert stats["pages_free"] + stats["pages_evictable"] == stats["pages_total"]
    status, answer = server.call(
        "/generate",
        {
            "text": "The capital of France is",
            "sampling_params": {"max_new_tokens": 5, "temperature": 0},
        },
    )
    assert status == 200 and "Paris" in answer["text"]
