"""The engine loop over a tiny model: the same answers however the work is cut, and nothing lost or
leaked."""

import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sapwood.constrained import GrammarState, JsonSchema
from sapwood.runtime.errors import EngineError, InvalidRequest, Overloaded
from sapwood.runtime.models.llama import LlamaModel
from sapwood.runtime.option_trie import OptionTrie
from sapwood.runtime.protocol import FinishKind, LogprobOptions, SamplingParams
from sapwood.runtime.torch_path.forward import ForwardInputs
from sapwood.runtime.torch_path.kv_cache import KVCache
from sapwood.runtime.wire import Probe

MakeDriver = Callable[..., Any]
WORDS = ["the tree ", "a radix ", "page ", "root and ", "branch ", "of sap ", "leaf "]


def prompts(count: int, length: int, seed: int = 0) -> list[str]:
    rng = random.Random(seed)
    return ["".join(rng.choice(WORDS) for _ in range(length))[:length] for _ in range(count)]


def logits_of(model: LlamaModel, ids: list[int]) -> torch.Tensor:
    """All rows' logits of one sequence in one forward, through pages of its own."""
    from sapwood.kernels.paged_attention import plan_attention

    config = model.config
    kv = KVCache(
        2, -(-len(ids) // 16), 16, config.num_kv_heads, config.head_dim, torch.float32, "cpu"
    )
    table = torch.arange(-(-len(ids) // 16), dtype=torch.int32)[None]
    plan = plan_attention(
        [len(ids)],
        [len(ids)],
        table,
        16,
        group=config.num_heads // config.num_kv_heads,
        window=None,
        dtype=torch.float32,
        device=torch.device("cpu"),
    )
    rows = torch.arange(len(ids))
    with torch.inference_mode():
        return model.forward(ForwardInputs(torch.tensor(ids), rows, rows, plan, rows), kv)


def naive_greedy(model: LlamaModel, prompt: str, count: int) -> list[int]:
    ids = list(prompt.encode())
    for _ in range(count):
        ids.append(int(logits_of(model, ids)[-1].argmax()))
    return ids[len(prompt) :]


# --- the same answers, however the work is cut ----------------------------------------------------


@pytest.mark.parametrize(
    "setup",
    [
        {},
        {"token_budget": 7},
        {"token_budget": 7, "page_size": 1, "num_pages": 4_096},
        {"num_pages": 14},
        {"num_pages": 14, "token_budget": 20, "policy": "fcfs"},
        {"max_running": 2},
        {"policy": "fcfs"},
    ],
    ids=str,
)
def test_greedy_answers_do_not_depend_on_batching(
    make_driver: MakeDriver, tiny_model: LlamaModel, setup: dict[str, Any]
) -> None:
    texts = [*prompts(5, 60), *prompts(2, 130, seed=1)]
    texts.append(texts[0] + " and more")  # a prefix of it is shared
    driver = make_driver(**setup)
    ids = [driver.submit(text, max_tokens=20, ignore_eos=True) for text in texts]
    answers = driver.run()
    for id, text in zip(ids, texts, strict=True):
        assert answers[id].token_ids == naive_greedy(tiny_model, text, 20)
        assert answers[id].finish is not None and answers[id].finish.kind is FinishKind.LENGTH
    if setup.get("num_pages") == 14:
        assert driver.loop.control("stats")["preemptions"] > 0


def test_cache_hits_do_not_change_answers(make_driver: MakeDriver, tiny_model: LlamaModel) -> None:
    driver = make_driver()
    text = prompts(1, 77)[0]
    first = driver.answer(text, max_tokens=20, ignore_eos=True)
    again = driver.answer(text, max_tokens=20, ignore_eos=True)
    assert again.token_ids == first.token_ids == naive_greedy(tiny_model, text, 20)
    assert first.usage.cached_tokens == 0
    assert again.usage.cached_tokens == len(text) - 1
    assert driver.answer(text + "?").usage.cached_tokens == len(text)


def test_sampling_does_not_depend_on_batching(make_driver: MakeDriver) -> None:
    texts = prompts(6, 40)
    alone = make_driver()
    expected = [
        alone.answer(text, temperature=1.0, stream=i, ignore_eos=True).token_ids
        for i, text in enumerate(texts)
    ]
    together = make_driver(token_budget=33, num_pages=20)
    ids = [
        together.submit(text, temperature=1.0, stream=i, ignore_eos=True)
        for i, text in enumerate(texts)
    ]
    answers = together.run()
    assert [answers[id].token_ids for id in ids] == expected
    assert len({tuple(tokens) for tokens in expected}) == len(expected)


# --- twins, preemption, refusals ------------------------------------------------------------------


def test_twins_of_the_same_instant_compute_their_prefix_once(make_driver: MakeDriver) -> None:
    driver = make_driver(token_budget=128)
    shared = prompts(1, 500)[0]
    for branch in range(8):
        driver.submit(shared + str(branch), max_tokens=4, ignore_eos=True)
    driver.run()
    branches = 8 * (1 + 3)  # its own prompt token, and all of its output but the last
    assert driver.loop.control("stats")["tokens_computed"] <= 500 + 8 * 15 + branches


def test_a_leader_that_leaves_frees_its_followers(make_driver: MakeDriver) -> None:
    driver = make_driver(token_budget=64)
    shared = prompts(1, 400)[0]
    ids = [driver.submit(shared + str(i), max_tokens=4) for i in range(3)]
    driver.step()
    driver.loop.abort(ids[0])
    answers = driver.run()
    assert [answers[id].num_ends for id in ids] == [0, 1, 1]


def test_a_small_pool_serves_everyone(make_driver: MakeDriver, tiny_model: LlamaModel) -> None:
    """64 pages, 32 requests of 200 + 200 tokens: all finish, as with ample memory."""
    texts = prompts(32, 200)
    ample, small = make_driver(num_pages=2_048), make_driver(num_pages=64)
    for driver in (ample, small):
        for i, text in enumerate(texts):
            driver.submit(text, id=str(i), max_tokens=200, ignore_eos=True)
        driver.run()
    assert {id: a.token_ids for id, a in small.answers.items()} == {
        id: a.token_ids for id, a in ample.answers.items()
    }


@pytest.mark.parametrize(
    "prompt, options, field",
    [
        ("", {}, "prompt"),
        ([257], {}, "prompt"),
        ([-1], {}, "prompt"),
        ("a", {"stop_token_ids": (900,)}, "stop_token_ids"),
        ("a", {"logit_bias": ((900, 1.0),)}, "logit_bias"),
        ("a" * 2_000, {"max_tokens": 100}, "max_tokens"),
        ("a" * 2_048, {"max_tokens": None}, "prompt"),
        ("a" * 300, {"max_tokens": 300}, "max_tokens"),  # more than the pool of this test
        ("a", {"logprobs": LogprobOptions(start=2)}, "logprob_start_len"),
    ],
)
def test_what_can_never_run_is_refused_at_once(
    make_driver: MakeDriver, prompt: Any, options: dict[str, Any], field: str
) -> None:
    driver = make_driver(num_pages=20)
    other = driver.submit("fine")
    answer = driver.answer(prompt, **options)
    assert isinstance(answer.error, InvalidRequest) and answer.error.field == field
    assert driver.answers[other].finish is not None


def test_a_request_that_just_fits_finishes(make_driver: MakeDriver) -> None:
    driver = make_driver(num_pages=4)
    for _ in range(3):  # the second time, its own prefix is in the tree
        assert len(driver.answer("x" * 40, max_tokens=25, ignore_eos=True).token_ids) == 25


def test_a_full_queue_refuses(make_driver: MakeDriver) -> None:
    driver = make_driver(max_waiting=2)
    ids = [driver.submit("a") for _ in range(3)]
    answers = driver.run()
    assert isinstance(answers[ids[2]].error, Overloaded)
    assert answers[ids[0]].finish is not None


@settings(
    deadline=None, max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_random_traffic_leaks_nothing(make_driver: MakeDriver, data: st.DataObject) -> None:
    driver = make_driver(num_pages=24, token_budget=48, max_running=6)
    texts = prompts(3, 90) + prompts(3, 20, seed=5)
    aborted = set()
    for number in range(data.draw(st.integers(3, 12))):
        text = data.draw(st.sampled_from(texts)) + data.draw(st.sampled_from(["", "a", "bc"]))
        id = driver.submit(
            text,
            id=str(number),
            max_tokens=data.draw(st.integers(0, 60)),
            temperature=data.draw(st.sampled_from([0.0, 1.0])),
            stream=number,
            logprobs=data.draw(st.sampled_from([None, LogprobOptions(), LogprobOptions(0, 2)])),
            namespace=data.draw(st.sampled_from(["", "other"])),
        )
        for _ in range(data.draw(st.integers(0, 6))):
            driver.step()
        if data.draw(st.booleans()) and driver.answers[id].num_ends == 0:
            driver.loop.abort(id)
            aborted.add(id)
    driver.run()
    for id, answer in driver.answers.items():
        assert answer.num_ends == (0 if id in aborted else 1)


# --- ends -----------------------------------------------------------------------------------------


def test_stop_strings_cut_where_they_begin(make_driver: MakeDriver) -> None:
    driver = make_driver()
    letters = tuple((ord(letter), 100.0) for letter in "abcdefgh")
    common = {"max_tokens": 40, "temperature": 1.0, "stream": 5, "logit_bias": letters}
    data = bytes(driver.answer("where does it end", **common).token_ids)
    stop = data[10:13].decode()
    for unit in ({"stop": (stop,)}, {"stop_regex": (f"{stop[0]}{stop[1:]}",)}):
        answer = driver.answer("where does it end", **common, **unit)
        assert answer.finish.matched == stop
        assert answer.cut == data.index(stop.encode())
        assert len(answer.token_ids) == answer.cut + 3
        kept = driver.answer("where does it end", **common, **unit, no_stop_trim=True)
        assert kept.cut == answer.cut + 3
        late = driver.answer("where does it end", **common, **unit, min_tokens=20)
        assert late.cut is None or late.cut + 3 > 19


def test_end_ids_and_min_tokens(make_driver: MakeDriver) -> None:
    driver = make_driver()
    first = driver.answer("abc", ignore_eos=True).token_ids[0]
    ended = driver.answer("abc", ignore_eos=True, stop_token_ids=(first,))
    assert ended.finish.matched == first and ended.token_ids == [first] and ended.cut == 0
    longer = driver.answer("abc", ignore_eos=True, stop_token_ids=(first,), min_tokens=5)
    assert first not in longer.token_ids[:5]


def test_max_tokens_zero_only_fills_the_cache(make_driver: MakeDriver) -> None:
    driver = make_driver()
    for expected in (0, 70):
        answer = driver.answer("p" * 70, max_tokens=0)
        assert answer.token_ids == [] and answer.finish.kind is FinishKind.LENGTH
        assert answer.usage.cached_tokens == expected
    assert driver.loop.control("stats")["tokens_computed"] == 70


def test_a_slow_stop_pattern_ends_only_its_own_request(make_driver: MakeDriver) -> None:
    driver = make_driver()
    bias = ((ord("a"), 100.0),)
    slow = driver.submit("x", stop_regex=("(a|aa)+$b",), logit_bias=bias, max_tokens=400)
    fine = driver.submit("y", stop_regex=("aaa+",), logit_bias=bias, max_tokens=400)
    answers = driver.run()
    assert answers[fine].finish.matched == "aaa+" and answers[fine].cut == 0
    error = answers[slow].error
    assert isinstance(error, InvalidRequest) and error.field == "stop_regex"


# --- log-probabilities ----------------------------------------------------------------------------


@pytest.mark.parametrize("setup", [{}, {"token_budget": 9}, {"num_pages": 10}], ids=str)
@pytest.mark.parametrize("start", [-1, 0, 1, 20, 40])
def test_logprobs_are_the_models_own(
    make_driver: MakeDriver, tiny_model: LlamaModel, setup: dict[str, Any], start: int
) -> None:
    driver = make_driver(**setup)
    text = prompts(1, 40)[0]
    driver.answer(text, ignore_eos=True)  # so that the second request could hit the cache
    options = LogprobOptions(start=start, top=3)
    others = [driver.submit(t, ignore_eos=True) for t in prompts(2, 50, seed=3)]
    answer = driver.answer(text, ignore_eos=True, logprobs=options, temperature=0.7, stream=3)
    assert all(driver.answers[id].finish is not None for id in others)
    ids = [*text.encode(), *answer.token_ids]
    expected = torch.log_softmax(logits_of(tiny_model, ids), dim=-1)
    assert [entry.token_id for entry in answer.logprobs] == answer.token_ids
    scored = list(answer.logprobs)
    position = len(text)
    if start >= 0:
        assert answer.prompt_logprobs is not None
        assert len(answer.prompt_logprobs) == len(text) - start
        scored = [*answer.prompt_logprobs, *scored]
        position = start
    else:
        assert answer.prompt_logprobs is None
    for entry in scored:
        assert entry.token_id == ids[position]
        if position == 0:
            assert entry.logprob is None and entry.top == ()
        else:
            row = expected[position - 1]
            assert entry.logprob == pytest.approx(float(row[entry.token_id]), abs=1e-4)
            best = torch.topk(row, 3)
            assert [value for _, value in entry.top] == pytest.approx(
                best.values.tolist(), abs=1e-4
            )
        position += 1


# --- nothing stops the engine ---------------------------------------------------------------------


@pytest.mark.parametrize("setup", [{}, {"token_budget": 7}, {"num_pages": 16, "page_size": 4}])
@settings(
    deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    options=st.lists(
        st.lists(st.integers(0, 3), min_size=1, max_size=6).map(tuple), min_size=1, max_size=8
    ),
    prompt=st.lists(st.integers(0, 255), min_size=1, max_size=30),
)
def test_probes_are_the_models_own_log_probabilities(
    make_driver: MakeDriver,
    tiny_model: LlamaModel,
    setup: dict[str, Any],
    options: list[tuple[int, ...]],
    prompt: list[int],
) -> None:
    """Each walk over the options' trie, however the work is cut; and no token is computed twice."""
    driver = make_driver(**setup)
    walks = OptionTrie(options).walks(from_root=True)
    ids = [
        driver.submit(
            (*prompt, *walk.tokens),
            max_tokens=0,
            probe=Probe(len(prompt) + walk.start, walk.targets),
        )
        for walk in walks
    ]
    answers = driver.run()
    for id, walk in zip(ids, walks, strict=True):
        rows = torch.log_softmax(logits_of(tiny_model, [*prompt, *walk.tokens]).double(), dim=-1)
        wanted = [
            (token, float(rows[len(prompt) + end - 1, token]))
            for end, targets in enumerate(walk.targets, start=walk.start)
            for token in targets
        ]
        found = answers[id].prompt_logprobs
        assert found is not None
        assert [entry.token_id for entry in found] == [token for token, _ in wanted]
        logprobs = [entry.logprob for entry in found]
        assert logprobs == pytest.approx([logprob for _, logprob in wanted], abs=1e-4)
    if not setup:
        places = sum(len(walk.targets) for walk in walks)
        computed = driver.loop.control("stats")["tokens_computed"]
        assert computed == len(prompt) - 1 + places


def test_a_probe_that_asks_what_it_cannot_be_told_is_refused(make_driver: MakeDriver) -> None:
    driver = make_driver()
    bad = [
        ({"max_tokens": 1}, Probe(2, ((1,),))),
        ({"max_tokens": 0}, Probe(0, ((1,), (1,), (1,)))),
        ({"max_tokens": 0}, Probe(1, ((1,),))),
        ({"max_tokens": 0}, Probe(2, ((),))),
        ({"max_tokens": 0}, Probe(2, ((999,),))),
    ]
    for sampling, probe in bad:
        answer = driver.answer("ab"[:2], probe=probe, **sampling)
        assert isinstance(answer.error, InvalidRequest) and answer.error.field == "choices"


@pytest.mark.parametrize(
    "options, field",
    [
        ({"top_k": 10**21}, "top_k"),
        ({"temperature": 1e39}, "temperature"),
        ({"temperature": 10**400}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"stop": ("\ud800",)}, "stop"),
        ({"logit_bias": ((5, 10**400),)}, "logit_bias"),
        ({"stop_token_ids": tuple(range(5_000))}, "stop_token_ids"),
        ({"min_tokens": 5, "max_tokens": 4}, "min_tokens"),
    ],
    ids=str,
)
def test_values_beyond_all_bounds_are_refused_where_they_are_written(
    options: dict[str, Any], field: str
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        SamplingParams(**options)
    assert caught.value.field == field


def test_a_request_that_cannot_be_computed_fails_alone(make_driver: MakeDriver) -> None:
    driver = make_driver()
    texts = prompts(4, 40)
    expected = [driver.answer(text, ignore_eos=True).token_ids for text in texts]

    class Poison(GrammarState):
        def fill_mask(self, row: Any, budget: int | None = None) -> None:
            raise RuntimeError("poison")

    driver = make_driver()
    ids = [driver.submit(text, ignore_eos=True) for text in texts]
    driver.step()
    scheduler = driver.loop._scheduler
    scheduler._running[ids[1]].grammar = Poison.__new__(Poison)
    answers = driver.run()
    assert isinstance(answers[ids[1]].error, EngineError)
    for number in (0, 2, 3):
        assert answers[ids[number]].token_ids == expected[number]


def test_a_constraint_that_takes_too_much_work_fails_alone(make_driver: MakeDriver) -> None:
    driver = make_driver()
    texts = prompts(3, 40)
    expected = [driver.answer(text, ignore_eos=True).token_ids for text in texts]
    driver = make_driver()
    ids = [driver.submit(text, ignore_eos=True) for text in texts]
    # Which letters stand so far from the end is thousands of states for every length of the text.
    schema = {"pattern": "(a|b)*a(a|b){14}$", "not": {"pattern": "(a|b)*b(a|b){12}$"}}
    constraint = JsonSchema.of({"type": "string", **schema, "maxLength": 90})
    heavy = driver.submit("x", constraint=constraint, max_tokens=1_000)
    answers = driver.run()
    error = answers[heavy].error
    assert isinstance(error, InvalidRequest) and error.field == "constraint"
    assert "limit" in str(error)
    for number, id in enumerate(ids):
        assert answers[id].token_ids == expected[number]


@pytest.mark.parametrize("page_size, budget", [(16, 8), (64, 32), (1_024, 512)])
def test_a_partly_matching_page_is_not_held_back(
    make_driver: MakeDriver, page_size: int, budget: int
) -> None:
    """Two pages: the copied page's source must be free again when the second one is needed."""
    driver = make_driver(num_pages=2, page_size=page_size, token_budget=budget)
    text = "x" * (page_size - 2)
    for _ in range(2):
        answer = driver.answer(text, max_tokens=page_size, ignore_eos=True)
        assert len(answer.token_ids) == page_size
