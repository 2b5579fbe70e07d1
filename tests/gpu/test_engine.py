"""The engine on a real GPU beside the one on the CPU: the default model's real weights."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch

import sapwood as sw

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU"),
    pytest.mark.timeout(600),
]

PROMPTS = [
    "The capital of France is",
    "Once upon a time, there was a tree whose",
    "def fibonacci(n):\n    ",
    "The three primary colours are",
] * 3
LONG = "A tree is a perennial plant with an elongated stem. " * 80
GREEDY = {"temperature": 0.0, "max_new_tokens": 24, "ignore_eos": True}
SEEDED = {"temperature": 0.8, "top_p": 0.9, "max_new_tokens": 24, "seed": 7, "ignore_eos": True}


@pytest.fixture(scope="module")
def on_cpu() -> Iterator[sw.Engine]:
    with sw.Engine(device="cpu", dtype="fp32", max_tokens_in_cache=16_384) as engine:
        yield engine


def on_gpu(**options: Any) -> sw.Engine:
    options = {"dtype": "fp32", "max_tokens_in_cache": 65_536, "max_running": 32} | options
    return sw.Engine(device="cuda", **options)


def ids(engine: sw.Engine, prompts: list[str], params: dict[str, Any]) -> list[list[int]]:
    answers = engine.generate(prompts, params)
    assert isinstance(answers, list)
    engine.check_integrity()
    return [answer["output_ids"] for answer in answers]


@pytest.mark.parametrize(
    "options",
    [{}, {"cuda_graphs": False}, {"token_budget": 64}, {"page_size": 64}, {"max_running": 3}],
    ids=str,
)
def test_greedy_answers_are_those_of_the_cpu(on_cpu: sw.Engine, options: dict[str, Any]) -> None:
    prompts = [*PROMPTS, LONG]
    expected = ids(on_cpu, prompts, GREEDY)
    with on_gpu(**options) as engine:
        assert ids(engine, prompts, GREEDY) == expected
        assert ids(engine, prompts, GREEDY) == expected  # from the prefix cache


def test_seeded_answers_are_those_of_the_cpu(on_cpu: sw.Engine) -> None:
    with on_gpu() as engine:
        assert ids(engine, PROMPTS, SEEDED) == ids(on_cpu, PROMPTS, SEEDED)


def test_logprobs_are_those_of_the_cpu(on_cpu: sw.Engine) -> None:
    def logprobs(engine: sw.Engine) -> list[float]:
        answer = engine.generate(
            LONG[:400], GREEDY, return_logprob=True, logprob_start_len=0, top_logprobs_num=2
        )
        assert isinstance(answer, dict)
        meta = answer["meta_info"]
        entries = [*meta["input_token_logprobs"], *meta["output_token_logprobs"]]
        return [entry[0] for entry in entries if entry[0] is not None]

    with on_gpu() as engine:
        assert logprobs(engine) == pytest.approx(logprobs(on_cpu), abs=2e-3)


def test_graphs_change_nothing() -> None:
    with on_gpu(dtype="bf16") as recorded, on_gpu(dtype="bf16", cuda_graphs=False) as launched:
        # One at a time: then both multiply matrices of one row.
        for prompt in PROMPTS[:4]:
            assert ids(recorded, [prompt], SEEDED) == ids(launched, [prompt], SEEDED)


@pytest.mark.parametrize("kv_dtype", ["auto", "int8", "fp8"])
def test_every_format_of_the_cache_speaks_sense(kv_dtype: str) -> None:
    with on_gpu(dtype="bf16", kv_dtype=kv_dtype) as engine:
        answer = engine.generate("The capital of France is", GREEDY)
        assert isinstance(answer, dict) and "Paris" in answer["text"]


def test_constrained_answers_are_valid() -> None:
    params = GREEDY | {"regex": r"[A-Z][a-z]{2,8} [0-9]{4}", "ignore_eos": False}
    with on_gpu(dtype="bf16") as engine:
        answers = engine.generate(PROMPTS, params)
        assert isinstance(answers, list)
        for answer in answers:
            assert answer["text"][0].isupper() and answer["text"][-4:].isdigit()


def test_all_of_the_memory_fraction_is_used() -> None:
    with sw.Engine(device="cuda", memory_fraction=0.5) as engine:
        free, total = torch.cuda.mem_get_info()
        assert 0.4 * total < total - free < 0.6 * total
        assert engine.info().max_tokens_in_cache > 100_000


def test_without_a_gpus_memory_there_is_no_engine() -> None:
    with pytest.raises(sw.InvalidRequest, match="max_tokens_in_cache: .* GiB"):
        sw.Engine(device="cuda", max_tokens_in_cache=1 << 40)
