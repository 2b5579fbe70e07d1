"""`Engine`: SGLang's call over a fake engine, and how it is set up."""

import importlib
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import sapwood.runtime.engine as engine_module
from sapwood.runtime.config import CacheOptions, EngineConfig, ModelOptions, ScheduleOptions
from sapwood.runtime.engine import Engine
from sapwood.runtime.errors import EngineDied, InvalidRequest
from sapwood.runtime.protocol import SamplingParams
from sapwood.runtime.tokenizer import TokenizerFiles

sys.path.append(str(Path(__file__).parent))
fake_loop = importlib.import_module("fake_loop")


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch, byte_files: TokenizerFiles) -> list[EngineConfig]:
    """Engines are built over the fake loop; the configurations that they were built with."""
    configs: list[EngineConfig] = []

    def build(config: EngineConfig, files: TokenizerFiles) -> Any:
        configs.append(config)
        return fake_loop.build()

    monkeypatch.setattr(engine_module, "_build", build)
    monkeypatch.setattr(
        engine_module, "resolve_model", lambda name: Path("/models") / (name or "default")
    )
    monkeypatch.setattr(engine_module, "load_tokenizer", lambda path: byte_files)
    return configs


@pytest.fixture
def engine(built: list[EngineConfig]) -> Iterator[Engine]:
    with Engine() as made:
        yield made


GREEDY = {"temperature": 0, "max_new_tokens": 5}
# Longer than any pause of this thread: only an abort ends it (the fake engine takes 2,000 steps in
# the time slice that a busy machine may keep from us).
ENDLESS = {"max_new_tokens": 10**9}


# --- set-up -----------------------------------------------------------------------------------


def test_every_option_reaches_its_field(built: list[EngineConfig]) -> None:
    options: dict[str, Any] = {
        "dtype": "float32",
        "context_length": 64,
        "num_threads": 2,
        "max_tokens_in_cache": 512,
        "page_size": 8,
        "token_budget": 100,
        "max_running": 9,
        "max_waiting": 10,
        "policy": "fcfs",
        "jump_forward": False,
        "max_drafts": 3,
    }
    Engine("small", **options).close()
    assert built == [
        EngineConfig(
            ModelOptions("/models/small", "float32", 64, 2),
            CacheOptions(512, 8),
            ScheduleOptions(100, 9, 10, "fcfs", False, 3),
        )
    ]


def test_defaults_are_those_of_the_records(built: list[EngineConfig]) -> None:
    Engine(model_path=Path("small")).close()
    assert built == [replace(EngineConfig(), model=ModelOptions("/models/small"))]


def test_bad_options_are_refused_before_anything_is_loaded(built: list[EngineConfig]) -> None:
    with pytest.raises(InvalidRequest, match="dtype"):
        Engine(dtype="int3")  # type: ignore[arg-type]
    with pytest.raises(InvalidRequest, match="page_size"):
        Engine(page_size=0)
    with pytest.raises(InvalidRequest, match="model_path"):
        Engine("a", model_path="b")
    assert built == []


def test_a_closed_engine_says_so(engine: Engine) -> None:
    engine.close()
    engine.shutdown()
    with pytest.raises(EngineDied, match="closed"):
        engine.generate("ab")


# --- generate ---------------------------------------------------------------------------------


def test_one_prompt_gives_one_answer(engine: Engine) -> None:
    answer = engine.generate("ab", GREEDY)
    assert isinstance(answer, dict)
    assert answer["text"] == "ababa"
    assert answer["output_ids"] == [97, 98, 97, 98, 97]
    meta = answer["meta_info"]
    assert meta["finish_reason"] == {"type": "length", "length": 5}
    assert (meta["prompt_tokens"], meta["completion_tokens"]) == (2, 5)
    assert "output_token_logprobs" not in meta


def test_sampling_may_be_params_or_nothing(engine: Engine) -> None:
    answer = engine.generate("ab", SamplingParams(max_tokens=1))
    assert isinstance(answer, dict) and answer["text"] == "a"
    answer = engine.generate("ab")
    assert isinstance(answer, dict) and len(answer["output_ids"]) == SamplingParams().max_tokens


def test_a_list_of_prompts_gives_a_list(engine: Engine) -> None:
    answers = engine.generate(["ab", "c"], GREEDY)
    assert [answer["text"] for answer in answers] == ["ababa", "ccccc"]  # type: ignore[index]
    answers = engine.generate(["ab"], GREEDY)
    assert isinstance(answers, list) and len(answers) == 1
    assert engine.generate([], GREEDY) == []
    answers = engine.generate(["ab", "c"], [{"max_new_tokens": 1}, {"max_new_tokens": 2}])
    assert [answer["text"] for answer in answers] == ["a", "cc"]  # type: ignore[index]


def test_several_samples_give_a_list_prompt_by_prompt(engine: Engine) -> None:
    answers = engine.generate("ab", {**GREEDY, "n": 3})
    assert [answer["text"] for answer in answers] == ["ababa"] * 3  # type: ignore[index]
    answers = engine.generate(["ab", "c"], {**GREEDY, "n": 2})
    texts = [answer["text"] for answer in answers]  # type: ignore[index]
    assert texts == ["ababa", "ababa", "ccccc", "ccccc"]


def test_ids_instead_of_text(engine: Engine) -> None:
    answer = engine.generate(input_ids=[97, 98], sampling_params=GREEDY)
    assert isinstance(answer, dict) and answer["text"] == "ababa"
    answers = engine.generate(input_ids=[[97], [98]], sampling_params=GREEDY)
    assert [answer["text"] for answer in answers] == ["aaaaa", "bbbbb"]  # type: ignore[index]


def test_logprobs_with_and_without_text(engine: Engine) -> None:
    answer = engine.generate(
        "ab", GREEDY, return_logprob=True, logprob_start_len=0, top_logprobs_num=1
    )
    assert isinstance(answer, dict)
    meta = answer["meta_info"]
    second = fake_loop.logprob((97, 98), 1)
    assert meta["input_token_logprobs"] == [[None, 97, None], [second, 98, None]]
    assert meta["output_token_logprobs"][0] == [-0.5, 97, None]
    assert meta["output_top_logprobs"][0] == [[-0.5, 97, None]]
    answer = engine.generate("ab", GREEDY, return_logprob=True, return_text_in_logprobs=True)
    assert isinstance(answer, dict)
    assert answer["meta_info"]["output_token_logprobs"][1] == [-0.5, 98, "b"]
    assert answer["meta_info"]["input_token_logprobs"] == []


def test_a_stream_holds_the_whole_text_each_time(engine: Engine) -> None:
    answers = list(engine.generate("ab", GREEDY, stream=True))
    assert [answer["text"] for answer in answers] == ["a", "ab", "aba", "abab", "ababa"]
    assert [answer["meta_info"]["finish_reason"] is None for answer in answers] == [True] * 4 + [
        False
    ]
    assert all("index" not in answer for answer in answers)


def test_a_stream_of_several_says_which(engine: Engine) -> None:
    last: dict[int, str] = {}
    for answer in engine.generate(["ab", "c"], {**GREEDY, "n": 2}, stream=True):
        last[answer["index"]] = answer["text"]
    assert last == {0: "ababa", 1: "ababa", 2: "ccccc", 3: "ccccc"}


def test_leaving_a_stream_aborts_it(engine: Engine) -> None:
    answers = engine.generate(["ab", "c"], ENDLESS, stream=True)
    next(answers)
    answers.close()  # type: ignore[attr-defined]
    assert engine.stats()["running"] == []
    assert len(engine.stats()["aborted"]) == 2


def test_a_stream_that_nobody_reads_runs_nothing(engine: Engine) -> None:
    engine.generate("ab", GREEDY, stream=True)
    assert engine.stats() == {"running": [], "aborted": []}


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({}, "prompt"),
        ({"prompt": "a", "input_ids": [1]}, "prompt"),
        ({"prompt": 5}, "prompt"),
        ({"prompt": {"a": "b"}}, "prompt"),
        ({"prompt": b"ab"}, "prompt"),
        ({"prompt": ["a", 5]}, "prompt"),
        ({"prompt": ""}, "prompt"),
        ({"input_ids": []}, "prompt"),
        ({"input_ids": 5}, "input_ids"),
        ({"input_ids": "ab"}, "input_ids"),
        ({"input_ids": b"ab"}, "input_ids"),
        ({"input_ids": {1: 2}}, "input_ids"),
        ({"input_ids": [[1], 2]}, "input_ids"),
        ({"input_ids": [[1], "2"]}, "input_ids"),
        ({"input_ids": [1, "2"]}, "input_ids"),
        ({"input_ids": [1, 2.5]}, "input_ids"),
        ({"input_ids": [1, True]}, "input_ids"),
        ({"input_ids": [300]}, "prompt"),
        ({"prompt": ["a", "b"], "sampling_params": [{}]}, "sampling_params"),
        ({"prompt": "a", "sampling_params": 5}, "sampling_params"),
        ({"prompt": ["a"], "sampling_params": [5]}, "sampling_params"),
        ({"prompt": "a", "sampling_params": {"max_tokens": 5}}, "max_tokens"),
        ({"prompt": "a", "return_logprob": True, "top_logprobs_num": -1}, "top_logprobs_num"),
    ],
)
def test_bad_calls_are_refused_by_name(
    engine: Engine, arguments: dict[str, Any], field: str
) -> None:
    with pytest.raises(InvalidRequest) as raised:
        engine.generate(**arguments)
    assert raised.value.field == field
    assert isinstance(engine.generate("ok", GREEDY), dict)


@pytest.mark.parametrize(
    "arguments",
    [{"prompt": 5}, {"input_ids": 5}, {"input_ids": [1, 5.0]}, {"prompt": [5]}],
)
def test_a_wrong_type_is_named_with_its_value(engine: Engine, arguments: dict[str, Any]) -> None:
    (field,) = arguments
    with pytest.raises(InvalidRequest, match=rf"^{field}: 5(\.0)? is "):
        engine.generate(**arguments)


def test_one_bad_prompt_of_a_list_stops_the_others(engine: Engine) -> None:
    with pytest.raises(InvalidRequest):
        engine.generate(["good", ""], ENDLESS)
    assert engine.stats()["running"] == []


def test_control_calls_reach_the_engine(engine: Engine) -> None:
    assert engine.info() == fake_loop.INFO
    with pytest.raises(AssertionError, match="page 7"):
        engine.check_integrity()
    with pytest.raises(fake_loop.Unpicklable):
        engine.flush_cache()
    assert engine.client.info() == fake_loop.INFO
