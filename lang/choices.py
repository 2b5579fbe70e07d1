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

With `early_stop` an option may be scored in its first tokens only. The winner is the same: the
runtime leaves out what cannot change it, by the method's `bound`. What would need the missing
numbers is None in the meta info.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

from ..runtime.contenders import highest_mean, is_complete
from ..runtime.protocol import Bound, Scores


@dataclass(frozen=True)
class Decision:
    """The winner's index, and what the method adds to the variable's meta info."""

    index: int
    meta: dict[str, Any]


@dataclass(frozen=True)
class ChoicesMethod:
    """A rule for `select`. `decide` runs on the client's dispatcher thread: it must not block.

    `bound`: how the runtime knows, if early stop is asked for, that no other option can win;
    `decide` then has to do with options of which only the first log-probabilities are there.
    """

    name: str
    decide: Callable[[Scores], Decision]
    needs_unconditional: bool = False
    bound: Bound | None = None


def describe(scores: Scores) -> dict[str, Any]:
    """What every method reports, in the order of the options.

    `probs`: see above. `probabilities`: exp(sum of log-probabilities) scaled to add up to 1, which
    is the same where no option begins another.

    `early_stopped`: whether tokens were left unscored; they have None, and so has what needs them.
    `saved_tokens`: how many tokens of the options were for that reason not computed.
    """
    totals = [sum(option.logprobs) for option in scores.options]
    complete = [is_complete(option) for option in scores.options]
    whole = all(complete)
    return {
        "normalized_prompt_logprobs": _where(complete, _means(scores)),
        "input_token_logprobs": [
            [[lp, i, None] for lp, i in zip_longest(option.logprobs, option.token_ids)]
            for option in scores.options
        ],
        "output_token_logprobs": [[] for _ in scores.options],
        "option_logprobs": _where(complete, totals),
        "probabilities": _softmax(totals) if whole else None,
        "probs": _shares([option.token_ids for option in scores.options], totals)
        if whole
        else None,
        "early_stopped": not whole,
        "saved_tokens": 0 if whole else _num_saved(scores),
    }


def _where(complete: Sequence[bool], values: Sequence[float]) -> list[float | None]:
    return [value if done else None for value, done in zip(values, complete, strict=True)]


def _num_saved(scores: Scores) -> int:
    """Of the places of the trie after which something is to be scored."""

    def places(lengths: Sequence[int]) -> set[tuple[int, ...]]:
        pairs = zip(scores.options, lengths, strict=True)
        return {option.token_ids[:end] for option, length in pairs for end in range(1, length)}

    every = places([len(option.token_ids) for option in scores.options])
    return len(every) - len(places([len(option.logprobs) for option in scores.options]))


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def _means(scores: Scores) -> list[float]:
    """Of an option that is not scored to its end, the highest that it can have."""
    return [highest_mean(option) for option in scores.options]


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
    highest = _means(scores)
    options = zip(highest, scores.options, strict=True)
    lowest = [mean if is_complete(option) else -math.inf for mean, option in options]
    index, margin = _best(lowest)
    others = [i for i in range(len(lowest)) if i != index]
    if others and max(highest[i] for i in others) > max(lowest[i] for i in others):
        margin = None  # the next best is not known
    if not is_complete(scores.options[index]):
        margin = None
    return Decision(index, {"margin": margin})


def _by_columns(scores: Scores) -> Decision:
    matrix = _matrix(scores)
    left = list(range(len(matrix)))
    margin: float | None = None if len(left) == 1 else 0.0
    for column in range(len(matrix[0])):
        values = {row: value for row in left if (value := matrix[row][column]) is not None}
        if len(left) == 1 or len(values) < len(left):  # without numbers: all that is left is equal
            break
        best = max(values.values())
        left = [row for row in left if values[row] == best]
        if len(left) == 1:
            margin = best - max(value for value in values.values() if value != best)
    return Decision(left[0], {"margin": margin, "greedy_logprob_matrix": matrix})


def _matrix(scores: Scores) -> list[list[float | None]]:
    """A row for each option: its log-probabilities, then its mean, where that is known."""
    width = max(len(option.token_ids) for option in scores.options)
    rows: list[list[float | None]] = []
    for option, mean in zip(scores.options, _means(scores), strict=True):
        rest = mean if is_complete(option) else None
        rows.append([*option.logprobs, *[rest] * (width - len(option.logprobs))])
    return rows


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


token_length_normalized = ChoicesMethod("token_length_normalized", _by_mean, bound="means")
greedy_token_selection = ChoicesMethod("greedy_token_selection", _by_columns, bound="columns")
unconditional_likelihood_normalized = ChoicesMethod(
    "unconditional_likelihood_normalized", _by_lift, needs_unconditional=True
)
