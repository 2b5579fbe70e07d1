"""Which options of a choice can still win when not all of their tokens are scored.

Owns: the two bounds that a ScoreRequest may name, and what to score next so that few tokens decide.
Pure, of OptionScore records; the choice itself and its formulas are the language's.

    columns   token by token: out are those whose token is less likely than another's in its place;
              an option that has ended counts with its mean
    means     no log-probability is above 0, so what is known of an option gives the highest mean
              that it can come to; out are those that cannot reach the mean of a complete one

Who is out stays out, whatever the missing numbers are, and a tie goes to the option that comes
first: so the last one left is the one that all numbers would choose.
"""

import math
from collections.abc import Sequence
from os.path import commonprefix

from .protocol import Bound, OptionScore

Ids = tuple[int, ...]


def highest_mean(option: OptionScore) -> float:
    """The mean log-probability of its tokens, those not scored taken as 0. Rounded once, so that
    further tokens never raise it."""
    return math.fsum(option.logprobs) / max(len(option.token_ids), 1)


def is_complete(option: OptionScore) -> bool:
    return len(option.logprobs) == len(option.token_ids)


def contenders(bound: Bound, options: Sequence[OptionScore]) -> list[int]:
    """Those that can still win, in their order; one, once the winner is certain. Of options of the
    same tokens only the first can."""
    firsts: dict[Ids, int] = {}
    for index, option in enumerate(options):
        firsts.setdefault(option.token_ids, index)
    left = list(firsts.values())
    return _by_columns(options, left) if bound == "columns" else _by_means(options, left)


def next_beginnings(
    bound: Bound, options: Sequence[OptionScore], left: Sequence[int], number: int
) -> list[Ids]:
    """How far to score the options that are `left` in round `number`, from 0 on. Means take three
    rounds at most: the first fork, the option that looks best after it (unless it would leave all
    others in), all that are left."""
    if number == 0 or bound == "columns":
        return _past_next_forks(options, left)
    every = [options[index].token_ids for index in left]
    best = max((options[index] for index in left), key=_mean_so_far)
    worst = min(highest_mean(options[index]) for index in left)
    if number == 1 and not is_complete(best) and worst < _mean_so_far(best):
        return _along(best.token_ids, every)
    return every


def _by_columns(options: Sequence[OptionScore], left: list[int]) -> list[int]:
    for column in range(max(len(options[index].token_ids) for index in left)):
        values = {index: _in_column(options[index], column) for index in left}
        known = [value for value in values.values() if value is not None]
        if len(left) == 1 or len(known) < len(left):
            return left
        left = [index for index in left if values[index] == max(known)]
    return left[:1]


def _in_column(option: OptionScore, column: int) -> float | None:
    if column < len(option.logprobs):
        return option.logprobs[column]
    return highest_mean(option) if column >= len(option.token_ids) else None


def _by_means(options: Sequence[OptionScore], left: list[int]) -> list[int]:
    def at_least(index: int) -> tuple[float, int]:
        option = options[index]
        return highest_mean(option) if is_complete(option) else -math.inf, -index

    best = max(left, key=at_least)
    return [
        index
        for index in left
        if index == best or (highest_mean(options[index]), -index) > at_least(best)
    ]


def _mean_so_far(option: OptionScore) -> float:
    return math.fsum(option.logprobs) / max(len(option.logprobs), 1)


def _past_next_forks(options: Sequence[OptionScore], left: Sequence[int]) -> list[Ids]:
    """Each to the token after the next place where those with the same known begin part."""
    groups: dict[Ids, list[Ids]] = {}
    for index in left:
        ids = options[index].token_ids
        groups.setdefault(ids[: len(options[index].logprobs)], []).append(ids)
    return [
        beginning
        for group in groups.values()
        for beginning in _along(tuple(commonprefix(group)), group)
    ]


def _along(path: Ids, group: Sequence[Ids]) -> list[Ids]:
    """Each to the token with which it leaves the path."""
    return [ids[: len(commonprefix([path, ids])) + 1] for ids in group]
