"""The native format: SGLang's names in, SGLang's answers out."""

import importlib.util
import subprocess
import sys
from typing import Any

import pytest

from sapwood.constrained import Choice, Ebnf, JsonSchema, Lark, Regex, StructuralTag
from sapwood.runtime.errors import InvalidRequest
from sapwood.runtime.native_format import MetaInfo, NativeAnswer, sampling_from_dict
from sapwood.runtime.protocol import (
    Chunk,
    FinishKind,
    FinishReason,
    LogprobOptions,
    SamplingParams,
    TokenLogprob,
    Usage,
)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, SamplingParams()),
        ({"max_new_tokens": 0}, SamplingParams(max_tokens=0)),
        ({"max_new_tokens": None, "stop": None, "regex": None}, SamplingParams()),
        ({"min_new_tokens": 3, "n": 2}, SamplingParams(min_tokens=3, n=2)),
        ({"stop": "\n"}, SamplingParams(stop=("\n",))),
        ({"stop": []}, SamplingParams()),
        (
            {"stop": ["a", "b"], "stop_regex": "c+"},
            SamplingParams(stop=("a", "b"), stop_regex=("c+",)),
        ),
        ({"stop_token_ids": [1, 2]}, SamplingParams(stop_token_ids=(1, 2))),
        ({"temperature": 0, "top_p": 0.5, "top_k": -1}, SamplingParams(temperature=0, top_p=0.5)),
        (
            {
                "min_p": 0.1,
                "frequency_penalty": 1,
                "presence_penalty": -1,
                "repetition_penalty": 1.5,
            },
            SamplingParams(
                min_p=0.1, frequency_penalty=1, presence_penalty=-1, repetition_penalty=1.5
            ),
        ),
        (
            {"ignore_eos": True, "skip_special_tokens": False, "no_stop_trim": True},
            SamplingParams(ignore_eos=True, skip_special_tokens=False, no_stop_trim=True),
        ),
        ({"logit_bias": {"5": 1.5, 7: -100}}, SamplingParams(logit_bias=((5, 1.5), (7, -100)))),
        ({"sampling_seed": 3}, SamplingParams(seed=3)),
        ({"seed": 3}, SamplingParams(seed=3)),
        ({"regex": "a+"}, SamplingParams(constraint=Regex("a+"))),
        ({"choices": ["a", "b"]}, SamplingParams(constraint=Choice(("a", "b")))),
        (
            {"json_schema": '{"type": "null"}'},
            SamplingParams(constraint=JsonSchema.of({"type": "null"})),
        ),
        (
            {"json_schema": {"type": "null"}},
            SamplingParams(constraint=JsonSchema.of({"type": "null"})),
        ),
        (
            {"json_schema": {}, "json_whitespace": "compact", "json_key_order": "any"},
            SamplingParams(constraint=JsonSchema("{}", "compact", "any")),
        ),
        (
            {"json_schema": {}, "json_integer_fraction": True},
            SamplingParams(constraint=JsonSchema("{}", integer_fraction=True)),
        ),
        ({"ebnf": 'root ::= "a"'}, SamplingParams(constraint=Ebnf('root ::= "a"'))),
        ({"lark": 'start: "a"'}, SamplingParams(constraint=Lark('start: "a"'))),
        (
            {"structural_tag": {"type": "structural_tag"}},
            SamplingParams(constraint=StructuralTag.of({"type": "structural_tag"})),
        ),
        ({"spaces_between_special_tokens": True, "ebnf": None}, SamplingParams()),
    ],
)
def test_sampling_parameters_are_read(values: dict[str, Any], expected: SamplingParams) -> None:
    assert sampling_from_dict(values) == expected


@pytest.mark.parametrize(
    ("values", "field", "message"),
    [
        ({"max_tokens": 5}, "max_tokens", "did you mean max_new_tokens?"),
        ({"temprature": 0.5}, "temprature", "did you mean temperature?"),
        ({"xyzzy": None}, "xyzzy", "unknown sampling parameter"),
        ({"beam_width": 2}, "beam_width", "not supported"),
        ({"ebnf": 5}, "ebnf", "not int"),
        ({"structural_tag": []}, "structural_tag", "[]"),
        ({"json_whitespace": "compact"}, "json_whitespace", "goes with json_schema"),
        ({"json_key_order": "any", "regex": "a"}, "json_key_order", "goes with json_schema"),
        ({"json_schema": {}, "json_whitespace": "wide"}, "json_whitespace", "'wide'"),
        ({"json_schema": {}, "json_integer_fraction": 1}, "json_integer_fraction", "a bool"),
        ({"json_schema": {}, "json_open_objects": "no"}, "json_open_objects", "a bool"),
        ({"regex": "a", "json_schema": "{}"}, "json_schema", "together with regex"),
        ({"seed": 1, "sampling_seed": 2}, "sampling_seed", "given twice"),
        ({"temperature": "hot"}, "temperature", "'hot' is not a number"),
        ({"temperature": float("nan")}, "temperature", "nan"),
        ({"max_new_tokens": 2.5}, "max_new_tokens", "max_new_tokens: 2.5 is not an integer"),
        ({"stop": 5}, "stop", "5 is not a list"),
        ({"stop": [5]}, "stop", "5 is not a non-empty text"),
        ({"stop_token_ids": "12"}, "stop_token_ids", "'12' is not a list"),
        ({"logit_bias": [1]}, "logit_bias", "[1] is not an object"),
        ({"logit_bias": {"a": 1}}, "logit_bias", "'a' is not a token id"),
        ({"logit_bias": {"1": 1000}}, "logit_bias", "1000"),
        ({"json_schema": "{"}, "json_schema", "not JSON"),
        ({"json_schema": 5}, "json_schema", "5"),
        ({"regex": 5}, "regex", "not int"),
        ({"choices": []}, "choices", "at least one"),
        ({"choices": "ab"}, "choices", "not a list"),
        ([1], "sampling_params", "[1] is not an object"),
    ],
)
def test_bad_parameters_are_refused_by_name(values: Any, field: str, message: str) -> None:
    with pytest.raises(InvalidRequest) as raised:
        sampling_from_dict(values)
    assert raised.value.field == field
    assert message in str(raised.value)


def chunk(text: str, ids: tuple[int, ...], count: int, **more: Any) -> Chunk:
    usage = Usage(10, 4, count, 1, num_preemptions=2)
    return Chunk(index=0, text=text, token_ids=ids, usage=usage, **more)


STOP = FinishReason(FinishKind.STOP, "x")


def test_an_answer_grows_from_its_start() -> None:
    answer = NativeAnswer("req")
    answer.add(chunk("he", (1, 2), 2))
    first = answer.as_dict()
    assert first["text"] == "he"
    assert first["output_ids"] == [1, 2]
    assert first["meta_info"] == {
        "id": "req",
        "finish_reason": None,
        "prompt_tokens": 10,
        "completion_tokens": 2,
        "cached_tokens": 4,
        "forced_tokens": 1,
        "num_retractions": 2,
    }
    answer.add(chunk("llo", (3,), 3, finish=STOP))
    last = answer.as_dict()
    assert (last["text"], last["output_ids"]) == ("hello", [1, 2, 3])
    assert last["meta_info"]["finish_reason"] == {"type": "stop", "matched": "x"}
    assert last["meta_info"]["e2e_latency"] >= 0
    assert first["output_ids"] == [1, 2]  # an answer given is not written to again


def test_length_says_how_many_tokens() -> None:
    meta = MetaInfo("req")
    meta.add(chunk("", (), 7, finish=FinishReason(FinishKind.LENGTH)))
    assert meta.as_dict()["finish_reason"] == {"type": "length", "length": 7}


@pytest.mark.parametrize("spelled", [False, True])
@pytest.mark.parametrize("top", [0, 2])
def test_logprobs_are_lists_of_logprob_id_text(spelled: bool, top: int) -> None:
    def entry(token: int, logprob: float | None) -> TokenLogprob:
        likely = ((7, -0.1), (8, -0.2)) if top and logprob is not None else ()
        return TokenLogprob(
            token,
            logprob,
            likely,
            piece=b"\xc3" if spelled else None,
            top_pieces=tuple(b"t%d" % id for id, _ in likely) if spelled else (),
        )

    meta = MetaInfo("req", LogprobOptions(start=0, top=top, text=spelled))
    prompt = (entry(1, None), entry(2, -1.0))
    meta.add(chunk("", (3,), 1, prompt_logprobs=prompt, logprobs=(entry(3, -2.0),)))
    meta.add(chunk("", (4,), 2, logprobs=(entry(4, -3.0),), finish=STOP))
    info = meta.as_dict()
    text = "�" if spelled else None
    assert info["input_token_logprobs"] == [[None, 1, text], [-1.0, 2, text]]
    assert info["output_token_logprobs"] == [[-2.0, 3, text], [-3.0, 4, text]]
    assert info["output_token_logprobs_length"] == 2
    if top:
        likely = [[-0.1, 7, "t7" if spelled else None], [-0.2, 8, "t8" if spelled else None]]
        assert info["input_top_logprobs"] == [None, likely]
        assert info["output_top_logprobs"] == [likely, likely]
    else:
        assert "input_top_logprobs" not in info


def test_no_torch_is_imported() -> None:
    for module in ("native_format", "engine", "launch", "process", "local", "aio"):
        assert importlib.util.find_spec(f"sapwood.runtime.{module}")
    script = (
        "import sys, sapwood.runtime.native_format, sapwood.runtime.engine,"
        " sapwood.runtime.launch, sapwood.runtime.aio; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)
