"""The three formulas of `select`, against numbers worked out by hand; and early stop."""

import math
import random
from dataclasses import replace

import pytest

import sapwood as sw
from sapwood.lang.choices import describe
from sapwood.runtime.contenders import contenders
from sapwood.runtime.protocol import OptionScore, Scores, Usage

pytestmark = pytest.mark.timeout(30)
INF = math.inf


def scores(*options, alone=None):
    made = []
    for index, logprobs in enumerate(options):
        without = tuple(alone[index]) if alone else ()
        made.append(OptionScore(tuple(range(len(logprobs))), tuple(logprobs), without))
    return Scores((1, 2), tuple(made), Usage(2, 0, 0, 0))


# logprobs per option -> (winner, margin)
BY_MEAN = [
    ([[-1.0], [-0.5, -0.9]], 1, 0.3),
    ([[-0.7], [-0.5, -0.9]], 0, 0.0),  # a tie goes to the first
    ([[-5.0]], 0, None),
    ([[-INF], [-3.0]], 1, INF),
    ([[-INF], [-INF]], 0, 0.0),
    ([[0.0], [-0.1]], 0, 0.1),  # an exact 0 counts
]


@pytest.mark.parametrize("options, winner, margin", BY_MEAN)
def test_token_length_normalized(options, winner, margin):
    decision = sw.token_length_normalized.decide(scores(*options))
    assert decision.index == winner
    assert decision.meta["margin"] == (margin if margin is None else pytest.approx(margin))


BY_COLUMNS = [
    ([[-1.0, -9.0], [-2.0, -0.1]], 0, 1.0),  # the first token decides
    ([[-1.0, -9.0], [-1.0, -0.1]], 1, 8.9),  # the second, where the first is equal
    ([[-1.0], [-1.0, -0.5]], 1, 0.5),  # an option that has ended counts with its mean, -1
    ([[-1.0], [-1.0, -1.5]], 0, 0.5),
    ([[-1.0, -2.0], [-1.0, -2.0]], 0, 0.0),
    ([[-4.0]], 0, None),
    # three: the last is out first, then the first
    ([[-1.0, -3.0], [-1.0, -2.0], [-5.0, 0.0]], 1, 1.0),
]


@pytest.mark.parametrize("options, winner, margin", BY_COLUMNS)
def test_greedy_token_selection(options, winner, margin):
    decision = sw.greedy_token_selection.decide(scores(*options))
    assert decision.index == winner
    assert decision.meta["margin"] == (margin if margin is None else pytest.approx(margin))
    width = max(map(len, options))
    assert [len(row) for row in decision.meta["greedy_logprob_matrix"]] == [width] * len(options)


def test_unconditional_likelihood_normalized():
    given = scores(
        [-1.0, -2.0],
        [-3.0, -1.0],
        alone=[[None, -1.0], [None, -6.0]],
    )
    # lifts: mean(-1-0, -2+1) = -1; mean(-3-0, -1+6) = 1
    decision = sw.unconditional_likelihood_normalized.decide(given)
    assert decision.index == 1
    assert decision.meta["margin"] == pytest.approx(2)
    assert decision.meta["unconditional_token_logprobs"][1] == [[None, 0, None], [-6.0, 1, None]]
    assert decision.meta["normalized_unconditional_prompt_logprobs"] == [-0.5, -3.0]


def test_only_the_unconditional_method_asks_for_unconditional_scores(scripted):
    def body(s, method):
        s += "q" + sw.select("a", ["x", "yy"], choices_method=method)

    methods = [
        sw.token_length_normalized,
        sw.greedy_token_selection,
        sw.unconditional_likelihood_normalized,
    ]
    client = scripted([], scores=lambda r: [-9.0, -1.0])
    states = [sw.function(body).run(method, backend=client) for method in methods]
    assert [state["a"] for state in states] == ["yy", "yy", "yy"]
    assert [r.unconditional for r in client.scored] == [False, False, True]
    assert [s.get_meta_info("a")["choices_method"] for s in states] == [m.name for m in methods]


def test_probabilities_are_of_whole_options(scripted):
    def body(s):
        s += "q" + sw.select("a", ["x", "long one"])

    client = scripted([], scores=lambda r: [math.log(0.1), math.log(0.3)])
    meta = sw.function(body).run(backend=client).get_meta_info("a")
    assert meta["probabilities"] == [pytest.approx(0.25), pytest.approx(0.75)]
    assert meta["option_logprobs"][1] == pytest.approx(math.log(0.3))
    assert [len(tokens) for tokens in meta["input_token_logprobs"]] == [1, 8]
    assert meta["input_token_logprobs"][0] == [[pytest.approx(math.log(0.1)), ord("x"), None]]


def test_impossible_options_get_equal_probabilities(scripted):
    def body(s):
        s += "q" + sw.select("a", ["x", "y"])

    client = scripted([], scores=lambda r: [-INF, -INF])
    state = sw.function(body).run(backend=client)
    assert state["a"] == "x"
    assert state.get_meta_info("a")["probabilities"] == [0.5, 0.5]


# --- early stop -------------------------------------------------------------------------------

EARLY = [sw.token_length_normalized, sw.greedy_token_selection]


def random_scores(rng):
    """Few tokens and few values: shared begins, equal options and ties are common."""
    table, options = {}, []
    for _ in range(rng.randint(1, 6)):
        ids = tuple(rng.choices(range(3), k=rng.randint(1, 5)))
        begins = [ids[: end + 1] for end in range(len(ids))]
        values = [0.0, -0.5, -1.0, -1.0, -4.0, -INF]
        logprobs = tuple(table.setdefault(begin, rng.choice(values)) for begin in begins)
        options.append(OptionScore(ids, logprobs))
    return Scores((1, 2), tuple(options), Usage(2, 0, 0, 0))


def cut(scores, rng, bound):
    """Scored further at random, until one contender is left."""
    known = [replace(option, logprobs=()) for option in scores.options]
    while len(contenders(bound, known)) > 1:
        at = rng.choice([i for i, o in enumerate(known) if len(o.logprobs) < len(o.token_ids)])
        end = rng.randint(len(known[at].logprobs) + 1, len(known[at].token_ids))
        ids, logprobs = known[at].token_ids, scores.options[at].logprobs[:end]
        known = [replace(o, logprobs=logprobs) if o.token_ids == ids else o for o in known]
    return replace(scores, options=tuple(known))


@pytest.mark.parametrize("method", EARLY, ids=lambda method: method.name)
def test_what_stops_early_decides_as_all_numbers_do(method):
    rng = random.Random(3)
    num_stopped = 0
    for _ in range(4_000):
        whole = random_scores(rng)
        early = cut(whole, rng, method.bound)
        expected, found = method.decide(whole), method.decide(early)
        assert found.index == expected.index, (whole, early)
        assert found.meta["margin"] in (None, expected.meta["margin"])
        if method is sw.greedy_token_selection:
            rows = zip(
                found.meta["greedy_logprob_matrix"],
                expected.meta["greedy_logprob_matrix"],
                strict=True,
            )
            for row, of_all in rows:
                assert all(a in (None, b) for a, b in zip(row, of_all, strict=True))
        about, of_all = describe(early), describe(whole)
        num_stopped += about["early_stopped"]
        assert about["early_stopped"] == (early != whole)
        for key in ("normalized_prompt_logprobs", "option_logprobs"):
            assert all(a in (None, b) for a, b in zip(about[key], of_all[key], strict=True))
        if not about["early_stopped"]:
            assert about == of_all
    assert num_stopped > 1_000


def select_early(client, choices, **options):
    def body(s):
        s += "q" + sw.select("a", choices, early_stop=True, **options) + "."

    return sw.function(body).run(backend=client)


def test_the_meta_info_has_none_for_what_was_not_computed(scripted):
    client = scripted([], scores=lambda r: [-1.0, -30.0, -40.0])
    state = select_early(client, ["x", "abc", "abd"], choices_method=sw.greedy_token_selection)
    assert state["a"] == "x"
    assert state.text() == "qx."
    assert client.scored[0].bound == "columns"
    meta = state.get_meta_info("a")
    assert meta["early_stopped"] is True
    assert meta["saved_tokens"] == 2  # "a" and "ab", which both go on with
    assert meta["normalized_prompt_logprobs"] == [-1.0, None, None]
    assert meta["option_logprobs"] == [-1.0, None, None]
    assert (meta["probs"], meta["probabilities"]) == (None, None)
    assert meta["margin"] == 9.0
    b, c = ord("b"), ord("c")
    assert meta["input_token_logprobs"][1] == [
        [-10, ord("a"), None],
        [None, b, None],
        [None, c, None],
    ]
    assert meta["greedy_logprob_matrix"][0] == [-1.0] * 3
    assert meta["greedy_logprob_matrix"][1] == [-10, None, None]


def test_the_mean_of_long_options_is_bounded(scripted):
    client = scripted([], scores=lambda r: [-1.0, -30.0, -5.0])
    meta = select_early(client, ["x", "abc", "y"]).get_meta_info("a")
    assert client.scored[0].bound == "means"
    assert meta["early_stopped"] is True
    assert meta["normalized_prompt_logprobs"] == [-1.0, None, -5.0]
    assert meta["margin"] is None  # of "abc" it is known that it is below -3.3, and no more


def test_where_all_is_needed_the_meta_info_is_whole(scripted):
    client = scripted([], scores=lambda r: [-1.0, -2.0])
    meta = select_early(client, ["x", "y"]).get_meta_info("a")
    assert (meta["early_stopped"], meta["saved_tokens"]) == (False, 0)
    assert (meta["margin"], sum(meta["probs"])) == (1.0, pytest.approx(1.0))


def test_without_being_asked_for_nothing_stops_early(scripted):
    def body(s):
        s += "q" + sw.select("a", ["x", "abc"], choices_method=sw.greedy_token_selection)

    client = scripted([], scores=lambda r: [-1.0, -30.0])
    meta = sw.function(body).run(backend=client).get_meta_info("a")
    assert client.scored[0].bound is None
    assert (meta["early_stopped"], meta["saved_tokens"]) == (False, 0)
    assert len(meta["probs"]) == 2


@pytest.mark.parametrize(
    "options, message",
    [
        ({"choices_method": sw.unconditional_likelihood_normalized}, "has no bound"),
        ({"choices_method": sw.ChoicesMethod("mine", lambda s: None)}, "early_stop: mine has no"),
        ({"early_stop": "yes"}, "early_stop: 'yes' is not true or false"),
    ],
)
def test_early_stop_is_refused_by_name_where_nothing_is_certain(options, message):
    with pytest.raises(sw.InvalidRequest, match=message) as raised:
        sw.select("a", ["x"], **{"early_stop": True, **options})
    assert raised.value.field == "early_stop"


def test_a_method_of_ones_own_may_name_a_bound(scripted):
    mine = sw.ChoicesMethod(
        "mine", lambda s: sw.Decision(contenders("columns", s.options)[0], {}), bound="columns"
    )
    client = scripted([], scores=lambda r: [-1.0, -30.0])
    assert select_early(client, ["x", "abc"], choices_method=mine)["a"] == "x"
