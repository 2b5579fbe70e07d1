"""The three formulas of `select`, against numbers worked out by hand."""

import math

import pytest

import sapwood as sw
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
