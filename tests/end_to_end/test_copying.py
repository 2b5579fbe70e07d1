"""Copying is what drafts are made for: fewer steps on the real weights, and the same text."""

import json

import sapwood as sw

RECORD = json.dumps(
    {
        "invoice": 20417,
        "customer": {"name": "Marta Lindqvist", "city": "Uppsala", "vat": "SE556012345601"},
        "lines": [
            {"item": "birch plywood, 12 mm", "count": 14, "price": 38.5},
            {"item": "linseed oil, 5 l", "count": 2, "price": 61.25},
        ],
    }
)
PROMPT = f"The record:\n{RECORD}\nThe same record again:\n{RECORD}\nThe same record again:\n"


def test_copying_takes_fewer_steps_and_says_the_same(engine: "sw.Engine") -> None:
    params = {"max_new_tokens": 96, "temperature": 0, "ignore_eos": True}
    with sw.Engine(dtype="float32", max_tokens_in_cache=1_024, max_drafts=0) as plain:
        expected = plain.generate(PROMPT, params, return_logprob=True)
    before = engine.stats()
    found = engine.generate(PROMPT, params, return_logprob=True)
    after = engine.stats()
    engine.check_integrity()
    assert found["output_ids"] == expected["output_ids"]
    assert RECORD.startswith(found["text"][:80])
    for one, other in zip(
        found["meta_info"]["output_token_logprobs"],
        expected["meta_info"]["output_token_logprobs"],
        strict=True,
    ):
        assert abs(one[0] - other[0]) < 1e-3
    accepted = after["tokens_accepted"] - before["tokens_accepted"]
    assert after["steps"] - before["steps"] == 96 - accepted < 48
