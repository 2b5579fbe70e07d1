"""How `select` chooses among options whose token log-probabilities are known.

Owns: the three formulas and what they report. Pure functions of a Scores record.

With l_i the log-probabilities of option i's tokens given the prompt, and u_i those with no prompt:

    token_length_normalized               argmax_i  mean(l_i)
    greedy_token_selection                walk the tokens column by column, keep the options whose
                                          token is likeliest there (an option that has ended counts
                                          with mean(l_i)), until one is left
    unconditional_likelihood_normalized   argmax_i  mean(l_i - u_i), the first u taken as 0

A tie goes to the option that comes first. The tokens of an option are those after the last one that
the prompt and all options have in common; blanks at the prompt's end count as the options'.

`margin` is by how much the winner's score leads that of the next best (greedy: in the column that
decides). `probs` are exact over the finite set: given that the text goes on with one of the
options, how likely is each. Where an option begins another (" 1" and " 10") both may fit the same
text; it then counts for the longest, so that the shares are of disjoint cases and add up to 1.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ..runtime.protocol import Scores


@dataclass(frozen=True)
class Decision:
    """The winner's index, and what the method adds to the variable's meta info."""

    index: int
    meta: dict[str, Any]


@dataclass(frozen=True)
class ChoicesMethod:
    """A rule for `select`. `decide` runs on the client's dispatcher thread: it must not block."""

    name: str
    decide: Callable[[Scores], Decision]
    needs_unconditional: bool = False


def describe(scores: Scores) -> dict[str, Any]:
    """What every method reports, in the order of the options.

    `probs`: see above. `probabilities`: exp(sum of log-probabilities) scaled to add up to 1, which
    is the same where no option begins another.
    """
    totals = [sum(option.logprobs) for option in scores.options]
    return {
        "normalized_prompt_logprobs": _means(scores),
        "input_token_logprobs": [
            [[lp, i, None] for lp, i in zip(option.logprobs, option.token_ids, strict=True)]
            for option in scores.options
        ],
        "output_token_logprobs": [[] for _ in scores.options],
        "option_logprobs": totals,
        "probabilities": _softmax(totals),
        "probs": _shares([option.token_ids for option in scores.options], totals),
    }


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def _means(scores: Scores) -> list[float]:
    return [_mean(option.logprobs) for option in scores.options]


def _softmax(values: Sequence[float]) -> list[float]:
    top = max(values)
    if top == -math.inf:
        return [1 / len(values)] * len(values)
    weights = [math.exp(value - top) for value in values]
    return [weight / sum(weights) for weight in weights]


def _shares(options: Sequence[tuple[int, ...]], totals: Sequence[float]) -> list[float]:
    """Each option's share of all texts that go on with one of them, the longest that fits; equal
    options share equally."""
    top = max(totals)
    if top == -math.inf:
        return [1 / len(options)] * len(options)
    weights = {ids: math.exp(total - top) for ids, total in zip(options, totals, strict=True)}
    own = dict(weights)
    begun: list[tuple[int, ...]] = []  # options that the current one goes on with, or may
    for ids in sorted(weights):
        while begun and ids[: len(begun[-1])] != begun[-1]:
            begun.pop()
        if begun:
            own[begun[-1]] -= weights[ids]
        begun.append(ids)
    shares = [max(own[ids], 0.0) / options.count(ids) for ids in options]
    return [share / sum(shares) for share in shares]


def _best(values: Sequence[float]) -> tuple[int, float | None]:
    """(index of the largest value, its lead over the next one; None if there is no next one)."""
    index = max(range(len(values)), key=values.__getitem__)
    others = [value for i, value in enumerate(values) if i != index]
    if not others:
        return index, None
    lead = values[index] - max(others)
    return index, 0.0 if math.isnan(lead) else lead  # nan: both are -inf


def _by_mean(scores: Scores) -> Decision:
    index, margin = _best(_means(scores))
    return Decision(index, {"margin": margin})


def _by_columns(scores: Scores) -> Decision:
    means = _means(scores)
    width = max(len(option.logprobs) for option in scores.options)
    matrix = [
        [*option.logprobs, *[mean] * (width - len(option.logprobs))]
        for option, mean in zip(scores.options, means, strict=True)
    ]
    left = list(range(len(matrix)))
    margin: float | None = None if len(left) == 1 else 0.0
    for column in range(width):
        if len(left) == 1:
            break
        best = max(matrix[row][column] for row in left)
        kept = [row for row in left if matrix[row][column] == best]
        losing = [matrix[row][column] for row in left if matrix[row][column] != best]
        if len(kept) == 1:
            margin = best - max(losing)
        left = kept
    return Decision(left[0], {"margin": margin, "greedy_logprob_matrix": matrix})


def _by_lift(scores: Scores) -> Decision:
    lifts: list[float] = []
    alone: list[list[list[Any]]] = []
    means_alone: list[float] = []
    for option in scores.options:
        without = [0.0 if u is None else u for u in option.unconditional]
        pairs = zip(option.logprobs, without, strict=True)
        lifts.append(_mean([given - u for given, u in pairs]))
        means_alone.append(_mean(without))
        ids = zip(option.unconditional, option.token_ids, strict=True)
        alone.append([[u, i, None] for u, i in ids])
    index, margin = _best([-math.inf if math.isnan(lift) else lift for lift in lifts])
    return Decision(
        index,
        {
            "margin": margin,
            "unconditional_token_logprobs": alone,
            "normalized_unconditional_prompt_logprobs": means_alone,
        },
    )


token_length_normalized = ChoicesMethod("token_length_normalized", _by_mean)
greedy_token_selection = ChoicesMethod("greedy_token_selection", _by_columns)
unconditional_likelihood_normalized = ChoicesMethod(
    "unconditional_likelihood_normalized", _by_lift, needs_unconditional=True
)
