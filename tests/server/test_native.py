"""The native `/generate` over a scripted engine, in SGLang's shape."""

import json
from typing import Any

import pytest

from sapwood.runtime.protocol import Ids, LogprobOptions, Regex, Text
from sapwood.runtime.scripted_replies import Reply


def generate(served: Any, **body: Any) -> Any:
    answer = served.post("/generate", body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def streamed(served: Any, **body: Any) -> list[Any]:
    answer = served.post("/generate", {**body, "stream": True})
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.content.endswith(b"}\n\ndata: [DONE]\n\n")
    lines = answer.content.decode().split("\n\n")[:-2]
    return [json.loads(line.removeprefix("data: ")) for line in lines]


def test_answer(serve: Any) -> None:
    served = serve([Reply("there", cached_tokens=2, forced_tokens=1)])
    answer = generate(served, text="Once", sampling_params={"max_new_tokens": 5}, rid="mine")
    assert answer["text"] == "there" and answer["output_ids"] == list(b"there")
    meta = answer["meta_info"]
    assert meta.pop("e2e_latency") >= 0
    assert meta == {
        "id": "mine",
        "finish_reason": {"type": "stop", "matched": 257},
        "prompt_tokens": 4,
        "completion_tokens": 5,
        "cached_tokens": 2,
        "forced_tokens": 1,
        "num_retractions": 0,
    }


@pytest.mark.parametrize(
    ("body", "wanted"),
    [
        ({"text": "ab"}, (Text("ab", special=True),)),
        ({"input_ids": [65, 66]}, (Ids((65, 66)),)),
        (
            {"prompt": [{"ids": [65]}, {"text": "b"}, {"text": "<|im_end|>", "special": True}]},
            (Ids((65,)), Text("b"), Text("<|im_end|>", special=True)),
        ),
        ({"text": "ab", "input_ids": None, "image_data": None}, (Text("ab", special=True),)),
    ],
    ids=["text", "ids", "parts", "nulls"],
)
def test_prompt(serve: Any, body: Any, wanted: Any) -> None:
    served = serve()
    assert isinstance(generate(served, **body), dict)
    assert served.client.requests[0].prompt == wanted


def test_what_sglangs_programs_send(serve: Any) -> None:
    served = serve()
    params = {
        "skip_special_tokens": True,
        "spaces_between_special_tokens": True,
        "max_new_tokens": 8,
        "min_new_tokens": 0,
        "n": 1,
        "stop": [],
        "stop_token_ids": None,
        "stop_regex": [],
        "temperature": 1.0,
        "top_p": 1.0,
        "top_k": -1,
        "min_p": 0.0,
        "frequency_penalty": 0.0,
        "presence_penalty": 0.0,
        "ignore_eos": False,
        "regex": "[a-z]+",
        "json_schema": None,
    }
    generate(served, text="a", sampling_params=params)
    sampling = served.client.requests[0].sampling
    assert sampling.constraint == Regex("[a-z]+") and sampling.max_tokens == 8


def test_prefill_only(serve: Any) -> None:
    answer = generate(serve(["unused"]), text="a", sampling_params={"max_new_tokens": 0})
    assert answer["text"] == "" and answer["output_ids"] == []


def test_lists(serve: Any) -> None:
    served = serve(lambda request: request.prompt[0].text.upper())
    answers = generate(served, text=["a", "b"], sampling_params={"n": 2})
    assert [answer["text"] for answer in answers] == ["A", "A", "B", "B"]
    assert [answer["text"] for answer in generate(served, text=["a"])] == ["A"]
    own = [{"temperature": 0}, {"temperature": 0.5, "n": 2}]
    answers = generate(served, text=["a", "b"], sampling_params=own)
    assert [answer["text"] for answer in answers] == ["A", "B", "B"]
    assert [request.sampling.temperature for request in served.client.requests[-2:]] == [0, 0.5]


@pytest.mark.parametrize("rid", ["job", ["x", "y"], None])
def test_request_ids(serve: Any, rid: Any) -> None:
    answers = generate(serve(), text=["a", "b"], rid=rid)
    ids = [answer["meta_info"]["id"] for answer in answers]
    assert len(set(ids)) == 2
    if rid is not None:
        assert ids == (["job_0", "job_1"] if rid == "job" else rid)


def test_namespace(serve: Any) -> None:
    served = serve()
    generate(served, text="a", extra_key="tenant")
    assert served.client.requests[0].namespace == "tenant"


def test_prompt_token_ids(serve: Any) -> None:
    answer = generate(serve(), text="ab", return_prompt_token_ids=True)
    assert answer["prompt_token_ids"] == [97, 98]


@pytest.mark.parametrize("text", [False, True])
def test_logprobs(serve: Any, text: bool) -> None:
    served = serve(["x"])
    answer = generate(
        served,
        text="ab",
        return_logprob=True,
        logprob_start_len=0,
        top_logprobs_num=1,
        return_text_in_logprobs=text,
    )
    assert served.client.requests[0].logprobs == LogprobOptions(0, 1, text)

    def entry(logprob: float | None, token: str) -> list[Any]:
        return [logprob, ord(token), token if text else None]

    meta = answer["meta_info"]
    assert meta["input_token_logprobs"] == [entry(None, "a"), entry(-0.5, "b")]
    assert meta["output_token_logprobs"] == [entry(-0.5, "x")]
    assert meta["output_token_logprobs_length"] == 1
    assert meta["output_top_logprobs"] == [[entry(-0.5, "x")]]


def test_stream_is_cumulative(serve: Any) -> None:
    told = streamed(serve([Reply("abc", chunk_size=1)]), text="a")
    assert [event["text"] for event in told] == ["a", "ab", "abc"]
    assert told[1]["output_ids"] == [97, 98]
    reasons = [event["meta_info"]["finish_reason"] for event in told]
    assert reasons == [None, None, {"type": "stop", "matched": 257}]
    assert all("index" not in event for event in told)


def test_streamed_list_says_whose_each_event_is(serve: Any) -> None:
    served = serve(lambda request: Reply(request.prompt[0].text * 2, chunk_size=1))
    last = {event["index"]: event for event in streamed(served, text=["a", "b"])}
    assert {index: event["text"] for index, event in last.items()} == {0: "aa", 1: "bb"}


def test_error_in_mid_stream(serve: Any) -> None:
    told = streamed(serve([Reply("a", error=RuntimeError("a bug"))]), text="x")
    assert told[0]["text"] == "a"
    assert told[-1] == {
        "error": {
            "message": "internal error (RuntimeError)",
            "type": "server_error",
            "code": 500,
        }
    }


def test_one_bad_prompt_refuses_the_whole_list(serve: Any, eventually: Any) -> None:
    def script(request: Any) -> Any:
        if request.prompt[0].text == "bad":
            raise ValueError("no")
        return Reply(hold_after=0)

    served = serve(script)
    answer = served.post("/generate", {"text": ["good", "bad"]})
    assert answer.status_code == 500
    eventually(lambda: len(served.client.aborted) == 1)


def test_the_join_of_older_clients_is_a_no_op(serve: Any) -> None:
    served = serve()
    answer = served.post("/concate_and_append_request", {"src_rids": ["a", "b"], "dst_rid": "c"})
    assert answer.status_code == 200 and served.client.requests == []


def test_healing_is_off_unless_asked_for(serve: Any) -> None:
    served = serve(lambda request: "ok")
    for body in ({}, {"heal": None}, {"heal": False}, {"heal": True}):
        generate(served, text="Onc", **body)
    assert [request.heal for request in served.client.requests] == [False, False, False, True]
    refused = served.post("/generate", {"text": "Onc", "heal": "yes please"})
    assert refused.status_code == 400 and "heal" in refused.text
