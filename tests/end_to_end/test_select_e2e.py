"""`select` against its documented formulas, written slowly with `transformers` in float32."""

import random
from itertools import product
from os.path import commonprefix
from typing import Any

import pytest
import torch

import sapwood as sw
from sapwood.lang.choices import ChoicesMethod, describe
from sapwood.runtime.models.source import resolve_model
from sapwood.runtime.protocol import ScoreRequest, Scores, Text
from sapwood.runtime.tokenizer import load_tokenizer

CASES: list[tuple[str, list[str]]] = [
    ("The capital of France is", [" Paris", " London", " Berlin", " New York"]),
    ("The capital of France is ", ["Paris", "New York City", "New York State", "New Zealand"]),
    ("Q: Is the sky blue?\nA:", [" Yes", " No", " Yes, it is", " Yes, it is not"]),
    ("There are ", ["1", "10", "100", "12 eggs"]),
    ("I am an Ameri", ["can", "ca", "go"]),
    ("def add(a, b):\n    return", [" a + b", " a - b", " a", "\n"]),
    ("", ["Once upon a time", "The end"]),
    ("The word is ", ["naïve café", "日本", "\U0001f600"]),
    ("One only:", [" this"]),
]  # fmt: skip


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return load_tokenizer(resolve_model(None))


class Reference:
    """Every option alone, token by token, with nothing shared."""

    def __init__(self, files: Any, model: Any, prompt: str, options: list[str]) -> None:
        def encode(text: str) -> list[int]:
            ids: list[int] = files.tokenizer.encode(text, add_special_tokens=False).ids
            return ids

        joint = [encode(prompt + option) for option in options]
        common = len(commonprefix([encode(prompt.rstrip(" ")), *joint]))
        start = min(common, *(len(ids) - 1 for ids in joint))
        before = joint[0][:start] or [
            files.bos_id if files.bos_id is not None else files.eos_ids[0]
        ]
        self.ids = [ids[start:] for ids in joint]
        self.given = [self._logprobs(model, before, ids) for ids in self.ids]
        self.alone = [[0.0, *self._logprobs(model, ids[:1], ids[1:])] for ids in self.ids]

    @staticmethod
    def _logprobs(model: Any, before: list[int], ids: list[int]) -> list[float]:
        with torch.inference_mode():
            logits = model(torch.tensor([before + ids])).logits[0].double()
        rows = torch.log_softmax(logits, dim=-1)[len(before) - 1 : -1]
        return [float(row[token]) for row, token in zip(rows, ids, strict=True)]

    def scores(self, method: str) -> list[float]:
        if method == "unconditional_likelihood_normalized":
            pairs = zip(self.given, self.alone, strict=True)
            given = [[g - u for g, u in zip(gs, us, strict=True)] for gs, us in pairs]
        else:
            given = self.given
        return [sum(values) / len(values) for values in given]

    def winner(self, method: str) -> int:
        means = self.scores(method)
        if method != "greedy_token_selection":
            return means.index(max(means))
        left = list(range(len(means)))
        for column in range(max(map(len, self.given))):
            at = {
                i: self.given[i][column] if column < len(self.given[i]) else means[i] for i in left
            }
            left = [i for i in left if at[i] == max(at.values())]
            if len(left) == 1:
                break
        return left[0]

    def probs(self) -> list[float]:
        """By inclusion: of every option what no longer option of the set takes away."""
        mass = [
            torch.tensor(values, dtype=torch.float64).sum().exp().item() for values in self.given
        ]
        own = list(mass)
        for i, ids in enumerate(self.ids):
            shorter = [
                j for j, o in enumerate(self.ids) if len(o) < len(ids) and ids[: len(o)] == o
            ]
            if shorter:
                own[max(shorter, key=lambda j: len(self.ids[j]))] -= mass[i]
        return [value / sum(own) for value in own]


METHODS = [
    sw.token_length_normalized,
    sw.greedy_token_selection,
    sw.unconditional_likelihood_normalized,
]


@pytest.mark.parametrize("prompt, options", CASES, ids=lambda value: str(value)[:30])
@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_the_formulas_are_those_of_the_slow_reference(
    engine: "sw.Engine",
    hf_model: Any,
    tokenizer: Any,
    method: ChoicesMethod,
    prompt: str,
    options: list[str],
) -> None:
    reference = Reference(tokenizer, hf_model, prompt, options)

    @sw.function
    def choose(s: Any) -> None:
        s += prompt
        s += sw.select("x", options, choices_method=method)

    state = choose.run(backend=engine)
    meta = state.get_meta_info("x")
    close = {"abs": 1e-4, "rel": 0}
    assert state["x"] == options[reference.winner(method.name)]
    assert state.text() == prompt + state["x"]
    assert meta["normalized_prompt_logprobs"] == pytest.approx(reference.scores("mean"), **close)
    assert meta["probs"] == pytest.approx(reference.probs(), **close)
    for found, ids, logprobs in zip(
        meta["input_token_logprobs"], reference.ids, reference.given, strict=True
    ):
        assert [token for _, token, _ in found] == ids
        assert [logprob for logprob, _, _ in found] == pytest.approx(logprobs, abs=1e-3)
    ranked = sorted(reference.scores(method.name), reverse=True)
    if method is sw.greedy_token_selection:
        return
    assert meta["margin"] == (
        None if len(ranked) == 1 else pytest.approx(ranked[0] - ranked[1], **close)
    )
    if method is sw.unconditional_likelihood_normalized:
        for found, alone in zip(meta["unconditional_token_logprobs"], reference.alone, strict=True):
            assert [logprob or 0.0 for logprob, _, _ in found] == pytest.approx(alone, abs=1e-3)


SUBJECTS = ["The answer is", "She said:", "In total:", "Colour =", "x,", "He ran to the", "Page"]
WORDS = [
    "red",
    "12",
    "7",
    "blue whale",
    "(none)",
    "New York",
    "naïve",
    '"yes"',
    "3.14",
    "-1",
    "a b",
]


def test_blanks_count_alike_on_either_side_of_the_boundary(engine: "sw.Engine") -> None:
    """200 random splits: the same winner, and the same scores."""
    rng = random.Random(7)
    for _ in range(200):
        prompt = " ".join(rng.choices(SUBJECTS, k=rng.randint(1, 3)))
        options = rng.sample(WORDS, k=rng.randint(2, 4))
        blanks = " " * rng.choice([1, 1, 1, 2])
        here = score(engine, prompt + blanks, options)
        there = score(engine, prompt, [blanks + option for option in options])
        assert here.prompt_ids == there.prompt_ids
        for one, other in zip(here.options, there.options, strict=True):
            assert one.token_ids == other.token_ids
            assert one.logprobs == pytest.approx(other.logprobs, abs=1e-4)
        assert describe(here)["probs"] == pytest.approx(describe(there)["probs"], abs=1e-4)
        for method in METHODS[:2]:
            assert method.decide(here).index == method.decide(there).index


EARLY = [
    *CASES,
    ("My favourite colour and thing:", [" red apple pie", " red apple tree", " green house"]),
    (
        "One of: the first of all, the second of all. I take the second of all. I take",
        [" the first of all", " the second of all", " nothing at all from any of them"],
    ),
]


@pytest.mark.parametrize("method", METHODS[:2], ids=lambda method: method.name)
def test_early_stop_takes_the_same_option(engine: "sw.Engine", method: ChoicesMethod) -> None:
    @sw.function
    def choose(s: Any, prompt: str, options: list[str], early: bool) -> None:
        s += prompt + sw.select("x", options, choices_method=method, early_stop=early)

    saved = 0
    for prompt, options in EARLY:
        whole, early = (choose.run(prompt, options, on, backend=engine) for on in (False, True))
        assert early["x"] == whole["x"]
        assert early.text() == whole.text()
        meta, of_all = early.get_meta_info("x"), whole.get_meta_info("x")
        saved += meta["saved_tokens"]
        for some, every in zip(
            meta["input_token_logprobs"], of_all["input_token_logprobs"], strict=True
        ):
            assert [token for _, token, _ in some] == [token for _, token, _ in every]
            for (found, *_), (expected, *_) in zip(some, every, strict=True):
                assert found is None or found == pytest.approx(expected, abs=1e-3)
    assert saved > 5
    engine.check_integrity()


def test_tokens_that_cannot_matter_are_not_computed(engine: "sw.Engine") -> None:
    options = [" Paris", " a city whose name I do not know", " a river that flows to the sea"]
    prompt = "The capital of Spain is Madrid. The capital of France is"
    engine.flush_cache()
    before = engine.stats()["tokens_computed"]
    request = ScoreRequest((Text(prompt),), tuple(options), bound="columns")
    scores = engine.client.score(request).result(60)
    assert engine.stats()["tokens_computed"] - before == len(scores.prompt_ids)
    assert [len(option.logprobs) for option in scores.options] == [1, 1, 1]


def score(engine: "sw.Engine", prompt: str, options: list[str]) -> Scores:
    request = ScoreRequest((Text(prompt),), tuple(options))
    return engine.client.score(request).result(60)


def test_each_place_of_the_trie_costs_one_token(engine: "sw.Engine") -> None:
    """However many options go on with it; and the last token of an option costs none."""
    firsts, seconds = [" red", " green", " blue"], [" apple", " house", " river", " stone"]
    options = [first + second + third for first, second, third in product(firsts, seconds, seconds)]
    prompt = "My favourite things of all those in the world are"
    engine.flush_cache()
    before = engine.stats()["tokens_computed"]
    scores = score(engine, prompt, options)
    computed = engine.stats()["tokens_computed"] - before
    lengths = {len(option.token_ids) for option in scores.options}
    assert lengths == {3}
    assert computed == len(scores.prompt_ids) + 3 + 3 * 4
    assert engine.stats()["tokens_computed"] - before == computed
    engine.check_integrity()
