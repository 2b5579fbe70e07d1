"""Text completions over a scripted engine."""

import json
from typing import Any

import pytest

from sapwood.runtime.protocol import Ids, LogprobOptions, Text
from sapwood.runtime.scripted_replies import Reply

COMPLETIONS = "/v1/completions"


def complete(served: Any, **body: Any) -> Any:
    answer = served.post(COMPLETIONS, {"model": "scripted", **body})
    assert answer.status_code == 200, answer.text
    return answer.json()


def streamed(served: Any, **body: Any) -> list[Any]:
    answer = served.post(COMPLETIONS, {"model": "scripted", "stream": True, **body})
    assert answer.content.endswith(b"\n\ndata: [DONE]\n\n")
    lines = answer.content.decode().split("\n\n")[:-2]
    return [json.loads(line.removeprefix("data: ")) for line in lines]


def test_answer(serve: Any) -> None:
    served = serve(["there was"])
    answer = complete(served, prompt="Once")
    assert answer["object"] == "text_completion" and answer["id"].startswith("cmpl-")
    assert answer["choices"] == [
        {"index": 0, "text": "there was", "logprobs": None, "finish_reason": "stop"}
    ]
    assert answer["usage"]["prompt_tokens"] == 4
    [request] = served.client.requests
    assert request.prompt == (Text("Once", special=True),)
    assert request.sampling.max_tokens == 16  # OpenAI's default here


@pytest.mark.parametrize(
    ("prompt", "wanted"),
    [
        ("ab", [(Text("ab", special=True),)]),
        (["ab", "c"], [(Text("ab", special=True),), (Text("c", special=True),)]),
        ([65, 66], [(Ids((65, 66)),)]),
        ([[65], [66, 67]], [(Ids((65,)),), (Ids((66, 67)),)]),
    ],
)
def test_prompts(serve: Any, prompt: Any, wanted: Any) -> None:
    served = serve("x")
    answer = complete(served, prompt=prompt)
    assert [request.prompt for request in served.client.requests] == wanted
    assert [choice["index"] for choice in answer["choices"]] == list(range(len(wanted)))
    assert len({request.request_id for request in served.client.requests}) == len(wanted)


def test_choices_go_prompt_by_prompt(serve: Any) -> None:
    served = serve([["a0", "a1"], ["b0", "b1"]])
    answer = complete(served, prompt=["a", "bc"], n=2)
    assert [choice["text"] for choice in answer["choices"]] == ["a0", "a1", "b0", "b1"]
    assert answer["usage"]["prompt_tokens"] == 3
    assert answer["usage"]["completion_tokens"] == 8


def test_streamed_choices_go_prompt_by_prompt(serve: Any) -> None:
    served = serve(lambda request: Reply(request.prompt[0].text * 3, chunk_size=1))
    told = streamed(served, prompt=["a", "b"], n=2, stream_options={"include_usage": True})
    texts = [""] * 4
    for event in told[:-1]:
        [choice] = event["choices"]
        texts[choice["index"]] += choice["text"]
    assert texts == ["aaa", "aaa", "bbb", "bbb"]
    assert told[-1]["usage"]["completion_tokens"] == 12


@pytest.mark.parametrize("prompt", ["Hé", list("Hé".encode())], ids=["text", "ids"])
def test_echo(serve: Any, prompt: Any) -> None:
    assert complete(serve(["!"]), prompt=prompt, echo=True)["choices"][0]["text"] == "Hé!"
    told = streamed(serve([Reply("!?", chunk_size=1)]), prompt=prompt, echo=True)
    assert [event["choices"][0]["text"] for event in told] == ["Hé!", "?"]
    assert all(event["choices"][0]["logprobs"] is None for event in told)


def test_echo_of_a_prompt_alone(serve: Any) -> None:
    answer = complete(serve(["unused"]), prompt="ab", echo=True, max_tokens=0)
    assert answer["choices"][0]["text"] == "ab"


def test_logprobs(serve: Any) -> None:
    served = serve(["xy"])
    [choice] = complete(served, prompt="ab", logprobs=2)["choices"]
    assert served.client.requests[0].logprobs == LogprobOptions(start=-1, top=2, text=True)
    assert choice["logprobs"] == {
        "tokens": ["x", "y"],
        "token_logprobs": [-0.5, -0.5],
        "top_logprobs": [{"x": -0.5, "y": -1.5}, {"y": -0.5, "z": -1.5}],
        "text_offset": [0, 1],
    }


def test_logprobs_of_the_echoed_prompt(serve: Any) -> None:
    [choice] = complete(serve(["x"]), prompt="ab", echo=True, logprobs=0)["choices"]
    assert choice["logprobs"]["tokens"] == ["a", "b", "x"]
    assert choice["logprobs"]["token_logprobs"] == [None, -0.5, -0.5]
    assert choice["logprobs"]["text_offset"] == [0, 1, 2]


def test_streamed_logprobs_go_on_counting(serve: Any) -> None:
    told = streamed(serve([Reply("xyz", chunk_size=1)]), prompt="ab", echo=True, logprobs=0)
    shown = [event["choices"][0]["logprobs"] for event in told]
    assert [offset for one in shown for offset in one["text_offset"]] == [0, 1, 2, 3, 4]
