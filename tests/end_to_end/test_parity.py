"""The engine's own numbers against `transformers` on the real weights, however the work is cut.

Greedy outputs are checked teacher-forced: each token must be the peer's argmax after the tokens
before it, which is the same as equal greedy texts, for one forward of the peer per prompt.
"""

from typing import Any

import pytest
import torch

import sapwood as sw

SUBJECTS = [
    "the sea", "bread", "a lighthouse", "winter", "the violin", "ants", "glass", "rivers", "chess",
    "the moon", "tea", "maps", "owls", "rain", "salt", "bridges", "clocks", "wool", "fire", "sleep",
]  # fmt: skip
PROMPTS = [
    f"Once upon a time there was a story about {subject}. It began like this: {opening}"
    for subject, opening in zip(
        SUBJECTS, 5 * ["In", "A man", "123,", "It is 早 \U0001f600"], strict=True
    )
]


def peer_logprobs(model: Any, ids: list[int]) -> torch.Tensor:
    """Row i: log-probabilities of the token after the first i + 1."""
    with torch.inference_mode():
        return torch.log_softmax(model(torch.tensor([ids])).logits[0].float(), dim=-1)


def test_greedy_texts_are_those_of_transformers(engine: "sw.Engine", hf_model: Any) -> None:
    params = {"max_new_tokens": 64, "temperature": 0, "ignore_eos": True}
    answers = engine.generate(PROMPTS, params, return_logprob=True, logprob_start_len=0)
    for answer in answers:
        meta = answer["meta_info"]
        prompt = [token for _, token, _ in meta["input_token_logprobs"]]
        output = answer["output_ids"]
        assert len(output) == 64
        expected = peer_logprobs(hf_model, prompt + output)
        assert expected[len(prompt) - 1 : -1].argmax(dim=-1).tolist() == output


@pytest.mark.parametrize(
    "setup",
    [
        {"token_budget": 48},  # chunked prefill beside decodes
        {"max_tokens_in_cache": 12 * 16, "token_budget": 64},  # preemption
    ],
    ids=str,
)
def test_logprobs_are_those_of_transformers(hf_model: Any, setup: dict[str, Any]) -> None:
    params = {"max_new_tokens": 40, "temperature": 0, "ignore_eos": True}
    prompts = [*PROMPTS[:6], PROMPTS[0] + " there"]
    with sw.Engine(dtype="float32", **setup) as engine:
        engine.generate(PROMPTS[2], params)  # a later request hits its prefix
        answers = engine.generate(
            prompts, params, return_logprob=True, logprob_start_len=0, top_logprobs_num=5
        )
        engine.check_integrity()
        preemptions = engine.stats()["preemptions"]
    assert (preemptions > 0) == ("max_tokens_in_cache" in setup)
    for answer in answers:
        meta = answer["meta_info"]
        entries = [*meta["input_token_logprobs"], *meta["output_token_logprobs"]]
        tops = [*meta["input_top_logprobs"], *meta["output_top_logprobs"]]
        ids = [token for _, token, _ in entries]
        assert ids[-40:] == answer["output_ids"]
        expected = peer_logprobs(hf_model, ids)
        for position in range(1, len(ids)):
            row = expected[position - 1]
            assert entries[position][0] == pytest.approx(float(row[ids[position]]), abs=1e-3)
            for logprob, token, _ in tops[position]:
                assert logprob == pytest.approx(float(row[token]), abs=1e-3)
