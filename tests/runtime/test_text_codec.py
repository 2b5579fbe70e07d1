"""Prompts to ids within limits, samples to random streams, scores to requests and back."""

import importlib
import sys
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sapwood.runtime.contenders import contenders
from sapwood.runtime.errors import EngineError, InvalidRequest
from sapwood.runtime.protocol import (
    Bound,
    EngineInfo,
    FinishKind,
    FinishReason,
    GenerateRequest,
    Ids,
    LogprobOptions,
    SamplingParams,
    ScoreRequest,
    Text,
    TokenLogprob,
    Usage,
    as_prompt,
)
from sapwood.runtime.scoring import ScorePlan
from sapwood.runtime.text import TextCodec, stream_key
from sapwood.runtime.wire import TokenChunk, TokenRequest

sys.path.append(str(Path(__file__).parent))
text_files = importlib.import_module("text_files")


def codec_of(files: Any, context_length: int = 100) -> TextCodec:
    info = EngineInfo(
        model="small",
        context_length=context_length,
        vocab_size=files.tokenizer.get_vocab_size() + 8,
        max_tokens_in_cache=4_096,
        page_size=16,
        dtype="float32",
        chat_template=None,
        special_tokens=files.special,
        eos_ids=files.eos_ids,
    )
    return TextCodec(files, info)


BYTE_LEVEL = codec_of(text_files.byte_level())
LLAMA = codec_of(text_files.sentencepiece())
BOS = text_files.sentencepiece().bos_id


# --- BOS --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prompt", "starts"),
    [
        ((Text("the fox"),), [BOS]),
        ((Text("the", special=True), Text(" fox")), [BOS]),
        ((Text("<s>the fox", special=True),), [BOS]),
        ((Text(""), Text("the")), [BOS]),
        ((Ids((300, 301)), Text("the")), [300, 301]),
        ((Ids(()), Text("the")), [BOS]),
        ((Text(""), Ids((300,))), [300]),
    ],
)
def test_bos_stands_once_before_text(prompt: Any, starts: list[int]) -> None:
    ids = LLAMA.encode(prompt)
    assert list(ids[: len(starts)]) == starts
    assert ids.count(BOS) == starts.count(BOS)


def test_a_typed_bos_is_no_bos() -> None:
    ids = LLAMA.encode((Text("<s>the"),))
    assert ids[0] == BOS
    assert ids.count(BOS) == 1
    assert len(ids) > 3  # the typed one became ordinary tokens


def test_no_bos_where_the_tokenizer_puts_none() -> None:
    assert BYTE_LEVEL.encode((Text("the"),)) == tuple(
        text_files.byte_level().tokenizer.encode("the").ids
    )


def test_ids_are_never_touched() -> None:
    assert BYTE_LEVEL.encode((Ids((5, 6)), Text("the"), Ids((7,)))) == (
        5,
        6,
        *BYTE_LEVEL.encode((Text("the"),)),
        7,
    )


# --- limits -----------------------------------------------------------------------------------


def test_a_prompt_longer_than_the_context_is_refused_with_both_numbers() -> None:
    assert len(BYTE_LEVEL.encode((Ids((5,) * 100),))) == 100
    with pytest.raises(InvalidRequest, match=r"prompt: .*101 token.*context length is 100"):
        BYTE_LEVEL.encode((Ids((5,) * 101),))
    # Few bytes, but each a token: only the tokenizer can tell.
    with pytest.raises(InvalidRequest, match="prompt: 150 tokens, the context length is 100"):
        BYTE_LEVEL.encode((Text("@" * 150),))


def test_a_huge_text_is_refused_without_being_tokenized(monkeypatch: pytest.MonkeyPatch) -> None:
    codec = codec_of(text_files.byte_level())

    def refuse(*_: Any, **__: Any) -> list[int]:
        raise AssertionError("it was tokenized")

    monkeypatch.setattr(codec._tokenizer, "encode", refuse)
    with pytest.raises(InvalidRequest, match="10000000 bytes of text .* context length is 100"):
        codec.encode((Text("a" * 10_000_000),))
    with pytest.raises(AssertionError):
        codec.encode((Text("a"),))


def test_the_check_by_bytes_never_refuses_what_fits() -> None:
    """Its bound is the longest token, also a special one's text."""
    for files in (text_files.byte_level(), text_files.sentencepiece(legacy=True)):
        codec = codec_of(files, context_length=50)
        tokenizer = files.tokenizer
        for id in range(tokenizer.get_vocab_size()):
            text = tokenizer.decode([id], skip_special_tokens=False) * 49
            if text and len(tokenizer.encode(text, add_special_tokens=False).ids) <= 49:
                assert codec.encode((Text(text, special=True),))


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ((), "it is empty"),
        ((Text(""), Ids(())), "it is empty"),
        ((Ids((3, -1)),), "token id -1 is outside the vocabulary of 367"),
        ((Ids((367,)),), "token id 367 is outside"),
        ((Ids((1 << 70,)),), f"token id {1 << 70} is outside"),
        ((Ids((1, 2.5)),), "token id 2.5 is outside"),
        ((Ids((1, "2")),), "token id '2' is outside"),
        ((Text("ab\ud800c"),), "character 2 is half of a surrogate pair"),
        ((Text(5),), "5 is not a text"),
        (("abc",), "'abc' is neither Ids nor Text"),
    ],
)
def test_what_is_no_prompt_is_refused_by_name(prompt: Any, message: str) -> None:
    with pytest.raises(InvalidRequest) as raised:
        BYTE_LEVEL.encode(prompt)
    assert message in str(raised.value)
    assert raised.value.field == "prompt"


# --- requests ---------------------------------------------------------------------------------


def test_every_sample_is_a_wire_request_of_its_own() -> None:
    request = GenerateRequest(
        as_prompt("the fox"),
        SamplingParams(n=3, seed=7, stop=("x",)),
        LogprobOptions(0, 2),
        namespace="team",
        random_path=(1, 2),
    )
    wires = BYTE_LEVEL.requests(request, iter("xyz").__next__)
    assert [wire.id for wire in wires] == ["x", "y", "z"]
    assert len({wire.stream for wire in wires}) == 3
    for wire in wires:
        assert wire.prompt_ids == BYTE_LEVEL.encode(request.prompt)
        assert wire.sampling == replace(request.sampling, n=1)
        assert (wire.logprobs, wire.namespace) == (request.logprobs, "team")


def test_random_streams_are_a_function_of_seed_path_and_index() -> None:
    # Pinned: a seeded program must give the same output in every version.
    assert stream_key(7, (1, 2), 0) == 1013192239557502863
    keys = [
        stream_key(*name)
        for name in [(7, (1, 2), 0), (7, (1, 2), 1), (7, (12,), 0), (7, (1, 20), 0), (71, (2,), 0)]
    ]
    assert len(set(keys)) == 5
    assert all(0 <= key < 2**64 for key in keys)
    assert stream_key(-(2**63), (), 0) != stream_key(2**63, (), 0)
    assert stream_key(None, (), 0) != stream_key(None, (), 0)


# --- scoring ----------------------------------------------------------------------------------


def answer(request: TokenRequest) -> TokenChunk:
    """A log-probability for each token that was asked for: minus its position."""
    assert request.probe is not None
    assert request.sampling.max_tokens == 0
    probe, ids = request.probe, request.prompt_ids
    assert probe.start + len(probe.targets) == len(ids) + 1
    scored = [
        TokenLogprob(token, -float(at))
        for at, targets in enumerate(probe.targets, start=probe.start)
        for token in targets
    ]
    return TokenChunk(
        id=request.id,
        token_ids=(),
        usage=Usage(len(ids), 1, 0, 0),
        prompt_logprobs=tuple(scored),
        finish=FinishReason(FinishKind.LENGTH),
    )


def plan_of(codec: TextCodec, request: ScoreRequest) -> ScorePlan:
    return ScorePlan(codec, request, map(str, count()).__next__)


def score(codec: TextCodec, request: ScoreRequest) -> Any:
    plan = plan_of(codec, request)
    ended = [plan.add(answer(wire)) for wire in plan.requests]
    assert ended == [False] * (len(ended) - 1) + [True]
    return plan.scores()


words = st.lists(
    st.sampled_from(["the", " fox", "fox", " ", "f", "o", "x is", "é", " a"]), max_size=4
)
texts = words.map("".join)


@pytest.mark.parametrize("codec", [BYTE_LEVEL, LLAMA])
@settings(deadline=None, max_examples=150)
@given(
    prompt=texts,
    before=st.lists(st.integers(260, 300), max_size=2),
    options=st.lists(texts.filter(bool), min_size=1, max_size=4),
)
def test_an_option_continues_the_prompt_as_one_text(
    codec: TextCodec, prompt: str, before: list[int], options: list[str]
) -> None:
    parts = (Ids(tuple(before)), Text(prompt))
    scores = score(codec, ScoreRequest(parts, tuple(options), unconditional=True))
    for text, option in zip(options, scores.options, strict=True):
        joint = codec.encode((*parts, Text(text)))
        assert scores.prompt_ids + option.token_ids == joint
        assert len(option.token_ids) == len(option.logprobs) > 0
        # With nothing common before them, one context token stands there.
        start = max(1, len(scores.prompt_ids))
        assert option.logprobs == tuple(-float(start + i) for i in range(len(option.token_ids)))
        assert option.unconditional[0] is None
        assert option.unconditional[1:] == tuple(-float(i) for i in range(1, len(option.logprobs)))
    # No further token is common to the prompt and all options.
    at = len(scores.prompt_ids)
    own = codec.encode_prefix((Ids(tuple(before)), Text(prompt.rstrip(" "))))
    heads = {own[at : at + 1], *(option.token_ids[:1] for option in scores.options)}
    lengths = [len(option.token_ids) for option in scores.options]
    assert len(heads) > 1 or min(lengths) == 1


def test_the_boundary_is_healed_where_an_option_merges_into_the_prompt() -> None:
    # " fo" + "x" is one token, so the prompt's own tokens of " fo" give way in both options.
    scores = score(BYTE_LEVEL, ScoreRequest(as_prompt("the fo"), ("x", "g")))
    vocabulary = text_files.byte_level().tokenizer
    spelled = [[vocabulary.id_to_token(id) for id in o.token_ids] for o in scores.options]
    assert [vocabulary.id_to_token(id) for id in scores.prompt_ids] == ["the"]
    assert spelled == [["Ġfox"], ["Ġ", "fo", "g"]]


def test_an_option_may_begin_another() -> None:
    scores = score(BYTE_LEVEL, ScoreRequest(as_prompt("the"), (" fox", " fox is")))
    first, second = scores.options
    assert second.token_ids[: len(first.token_ids)] == first.token_ids
    assert len(second.logprobs) > len(first.logprobs)


def test_an_empty_prompt_is_scored_after_bos_or_an_end_token() -> None:
    plan = plan_of(LLAMA, ScoreRequest((), ("the", "fox")))
    assert all(
        wire.prompt_ids[0] == BOS and BOS not in wire.prompt_ids[1:] for wire in plan.requests
    )
    assert score(LLAMA, ScoreRequest((), ("the",))).prompt_ids == (BOS,)
    # This tokenizer puts no BOS: it is context for the score, and no part of the program.
    files = text_files.byte_level()
    plan = plan_of(BYTE_LEVEL, ScoreRequest((), ("the",)))
    assert plan.requests[0].prompt_ids == (files.bos_id, *BYTE_LEVEL.encode((Text("the"),))[:-1])
    assert score(BYTE_LEVEL, ScoreRequest((), ("the",))).prompt_ids == ()
    without_bos = codec_of(replace(files, bos_id=None))
    (wire,) = plan_of(without_bos, ScoreRequest((), ("the",))).requests
    assert wire.prompt_ids[0] == files.eos_ids[0]
    nothing = codec_of(replace(files, bos_id=None, eos_ids=()))
    with pytest.raises(InvalidRequest, match="neither BOS nor an end token"):
        plan_of(nothing, ScoreRequest((), ("the",)))


def test_a_typed_special_token_in_an_option_is_ordinary_text() -> None:
    scores = score(BYTE_LEVEL, ScoreRequest(as_prompt("the"), ("<|im_end|>",)))
    assert not set(scores.options[0].token_ids) & set(text_files.byte_level().special_token_ids)


@pytest.mark.parametrize("codec", [BYTE_LEVEL, LLAMA])
@settings(deadline=None, max_examples=1_000)
@given(
    prompt=texts,
    before=st.lists(st.integers(260, 300), max_size=2),
    options=st.lists(texts.filter(str.strip), min_size=1, max_size=4),
    num_blanks=st.integers(1, 2),
)
def test_blanks_may_stand_on_either_side_of_the_boundary(
    codec: TextCodec, prompt: str, before: list[int], options: list[str], num_blanks: int
) -> None:
    blanks = " " * num_blanks
    ids = Ids(tuple(before))
    here = ScoreRequest((ids, Text(prompt + blanks)), tuple(options), unconditional=True)
    there = ScoreRequest((ids, Text(prompt)), tuple(blanks + o for o in options), True)
    assert score(codec, here) == score(codec, there)


def test_only_the_tries_own_tokens_are_computed() -> None:
    options = (" fox is", " fox is a", " fox and", " dog", " fox is a fox")
    plan = plan_of(BYTE_LEVEL, ScoreRequest(as_prompt("the"), options))
    joint = [BYTE_LEVEL.encode(as_prompt("the" + option)) for option in options]
    inner = {ids[:end] for ids in joint for end in range(2, len(ids))}  # somebody goes on there
    own = [wire.prompt_ids[: probe.start + i] for wire in plan.requests
           if (probe := wire.probe) for i in range(len(probe.targets))]  # fmt: skip
    assert sorted(own) == sorted({*inner, joint[0][:1]})  # each once


@pytest.mark.parametrize("bound", ["columns", "means"])
@settings(deadline=None, max_examples=150)
@given(options=st.lists(texts.filter(bool), min_size=1, max_size=5), data=st.data())
def test_rounds_compute_each_place_once(
    bound: Bound, options: list[str], data: st.DataObject
) -> None:
    """Whatever the numbers are."""
    plan = plan_of(BYTE_LEVEL, ScoreRequest(as_prompt("the"), tuple(options), bound=bound))
    requests, computed = plan.requests, []
    while requests:
        for wire in requests:
            assert wire.probe is not None
            places = range(wire.probe.start, len(wire.prompt_ids) + 1)
            computed += [wire.prompt_ids[:end] for end in places]
            entries = answer(wire).prompt_logprobs or ()
            drawn = [
                replace(entry, logprob=data.draw(st.sampled_from([0.0, -1.0, -9.0])))
                for entry in entries
            ]
            ended = plan.add(answer(wire)._replace(prompt_logprobs=tuple(drawn)))
        assert ended
        requests = plan.next_round()
    assert len(computed) == len(set(computed))
    assert len(contenders(bound, plan.scores().options)) == 1


def test_usage_is_summed_over_the_walks() -> None:
    scores = score(BYTE_LEVEL, ScoreRequest(as_prompt("@"), ("#", "##", "$$")))
    assert (scores.usage.prompt_tokens, scores.usage.cached_tokens) == (2 + 2, 2)


def test_an_engine_that_scores_other_tokens_is_an_error() -> None:
    plan = plan_of(BYTE_LEVEL, ScoreRequest(as_prompt("@"), ("#",), request_id="mine"))
    (wire,) = plan.requests
    with pytest.raises(EngineError, match="other tokens than those of request mine"):
        plan.add(answer(wire)._replace(prompt_logprobs=(TokenLogprob(1, -1.0),)))
