"""Over a real socket: the official client, callers that leave, aborts by id."""

import json
import re
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlparse

import httpx
import openai
import pytest

from sapwood.runtime.errors import EngineDied
from sapwood.runtime.scripted_replies import STALL, Reply


def official(url: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=20)


MESSAGES: Any = [{"role": "user", "content": "hi"}]


def test_the_official_client(serve: Any) -> None:
    served = serve(lambda request: Reply("Hello there", chunk_size=4))
    with served.on_socket() as url, official(url) as client:
        [model] = client.models.list().data
        assert client.models.retrieve(model.id).id == "scripted"
        answer = client.chat.completions.create(model=model.id, messages=MESSAGES, logprobs=True)
        assert answer.choices[0].message.content == "Hello there"
        assert answer.choices[0].logprobs is not None and answer.usage is not None
        stream = client.chat.completions.create(model=model.id, messages=MESSAGES, stream=True)
        pieces = [chunk.choices[0].delta.content for chunk in stream]
        assert pieces == ["", "Hell", "o th", "ere"]
        text = client.completions.create(model=model.id, prompt="hi", echo=True)
        assert text.choices[0].text == "hiHello there"
        told = client.completions.create(model=model.id, prompt=[1, 2], stream=True)
        assert "".join(event.choices[0].text for event in told) == "Hello there"


def test_the_official_client_sends_a_schema(serve: Any) -> None:
    served = serve('{"city": "Rome"}')
    schema = {"type": "object", "properties": {"city": {"type": "string"}}}
    wanted: Any = {
        "type": "json_schema",
        "json_schema": {"name": "trip", "schema": schema, "strict": True},
    }
    with served.on_socket() as url, official(url) as client:
        client.chat.completions.create(model="scripted", messages=MESSAGES, response_format=wanted)
    [request] = served.client.requests
    assert json.loads(request.sampling.constraint.schema) == schema


def test_the_official_client_meets_errors(serve: Any) -> None:
    served = serve([Reply("ab", chunk_size=1, error=EngineDied("gone"))])
    with served.on_socket() as url, official(url) as client:
        with pytest.raises(openai.NotFoundError, match="other"):
            client.chat.completions.create(model="other", messages=MESSAGES)
        with pytest.raises(openai.BadRequestError, match="temperature") as refused:
            client.chat.completions.create(model="scripted", messages=MESSAGES, temperature=-1)
        assert refused.value.param == "temperature"
        stream = client.chat.completions.create(model="scripted", messages=MESSAGES, stream=True)
        with pytest.raises(openai.APIError, match="gone"):
            list(stream)


# --- callers that leave ------------------------------------------------------------------------

HELD = Reply("abcdef", chunk_size=1, hold_after=2)

CALLS: list[tuple[str, dict[str, Any]]] = [
    ("/v1/chat/completions", {"messages": MESSAGES}),
    ("/v1/completions", {"prompt": ["a", "b"]}),
    ("/generate", {"text": "a"}),
]


@contextmanager
def caller(url: str, path: str, body: dict[str, Any]) -> Iterator[socket.socket]:
    """A caller who has sent its request and is gone after the block."""
    address = urlparse(url)
    data = json.dumps(body).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(data)}\r\n\r\n"
    )
    with socket.create_connection((address.hostname, address.port), timeout=20) as connection:
        connection.sendall(head.encode() + data)
        yield connection


def outcomes(url: str) -> dict[str, int]:
    lines = httpx.get(f"{url}/metrics").text.splitlines()
    found = (re.fullmatch(r'sapwood_requests_total{outcome="(.*)"} (\d+)', line) for line in lines)
    return {one[1]: int(one[2]) for one in found if one}


@pytest.mark.parametrize(("path", "body"), CALLS, ids=[path for path, _ in CALLS])
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("reply", [STALL, HELD], ids=["before the answer", "amid it"])
def test_a_caller_that_leaves_ends_its_requests(
    serve: Any, eventually: Any, path: str, body: Any, stream: bool, reply: Reply
) -> None:
    served = serve(lambda _: reply)
    client = served.client
    num_requests = len(body.get("prompt", ["one"]))
    with served.on_socket() as url:
        with caller(url, path, {**body, "stream": stream}) as connection:
            eventually(lambda: len(client.requests) == num_requests)
            if stream and reply is HELD:
                received = b""
                while b"data: " not in received:
                    received += connection.recv(65536)
            assert client.aborted == []
        eventually(lambda: len(client.aborted) == num_requests)
        assert set(client.aborted) == {request.request_id for request in client.requests}
        eventually(lambda: outcomes(url)["aborted"] == num_requests)


def test_fifty_callers_that_leave_harm_nobody(serve: Any, eventually: Any) -> None:
    def script(request: Any) -> Reply:
        return Reply("fine") if request.prompt[0].text == "stay" else HELD

    served = serve(script)
    with served.on_socket() as url:
        for number in range(50):
            with caller(url, "/generate", {"text": f"{number}", "stream": True}) as connection:
                assert connection.recv(16).startswith(b"HTTP/1.1 200")
        eventually(lambda: len(served.client.aborted) == 50)
        answer = httpx.post(f"{url}/generate", json={"text": "stay"})
        assert answer.json()["text"] == "fine"
        eventually(
            lambda: outcomes(url) == {"aborted": 50, "finished": 1, "refused": 0, "failed": 0}
        )


# --- aborts by id ------------------------------------------------------------------------------


def test_abort_by_the_begin_of_an_id(serve: Any, eventually: Any) -> None:
    served = serve(lambda _: HELD)
    with served.on_socket() as url, ThreadPoolExecutor() as pool:
        call = {"text": ["x", "y"], "rid": "job"}
        whole = pool.submit(httpx.post, f"{url}/generate", json=call, timeout=20)
        other = pool.submit(
            httpx.post, f"{url}/generate", json={"text": "z", "rid": "no"}, timeout=20
        )
        eventually(lambda: len(served.client.requests) == 3)
        again = httpx.post(f"{url}/generate", json={"text": "x", "rid": "no"})
        assert again.status_code == 400 and "'no' is already in flight" in again.text
        done = httpx.post(f"{url}/abort_request", json={"rid": "jo"}).json()
        assert done == {"aborted": 2}
        for item in whole.result(20).json():
            assert item["meta_info"]["finish_reason"]["type"] == "abort"
        assert not other.done()
        assert httpx.post(f"{url}/abort_request", json={"abort_all": True}).json() == {"aborted": 1}
        assert other.result(20).json()["meta_info"]["finish_reason"]["type"] == "abort"


def test_an_aborted_stream_ends_with_an_error(serve: Any, eventually: Any) -> None:
    served = serve(lambda _: HELD)
    with served.on_socket() as url:
        body = {"messages": MESSAGES, "stream": True}
        with httpx.stream("POST", f"{url}/v1/chat/completions", json=body, timeout=20) as answer:
            lines = answer.iter_lines()
            assert '"role"' in next(lines)
            assert httpx.post(f"{url}/abort_request", json={"abort_all": True}).json() == {
                "aborted": 1
            }
            rest = [line for line in lines if line]
        assert json.loads(rest[-2][6:])["error"]["code"] == "aborted"
        assert rest[-1] == "data: [DONE]"
