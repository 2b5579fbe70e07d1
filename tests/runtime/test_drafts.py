"""Guesses from a text's own n-grams, against a naive search for the same words."""

from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sapwood.runtime.drafts import SIZES, Drafter


def followed(tokens: list[int], prompt_len: int = 0, forced: list[int] | None = None) -> Drafter:
    drafter = Drafter(prompt_len)
    drafter.follow(array("i", tokens), forced or [0] * (len(tokens) - prompt_len))
    return drafter


def guessed(drafter: Drafter, tokens: list[int], most: int, least_chance: float = 0.0) -> list[int]:
    return [guess.token for guess in drafter.guess(array("i", tokens), most, least_chance)]


def naive_guesses(tokens: list[int], most: int) -> list[int]:
    """What followed the last occurrence of the longest n-gram that ends the text."""
    for size in SIZES:
        for after in range(len(tokens) - 1, size - 1, -1):
            if tokens[after - size : after] == tokens[-size:]:
                whole = list(tokens)
                for _ in range(most):
                    whole.append(whole[after + len(whole) - len(tokens)])
                return whole[len(tokens) :]
    return []


texts = st.lists(st.integers(0, 3), max_size=40)


@given(texts, st.integers(0, 40), st.integers(0, 9))
def test_guesses_are_what_followed_the_longest_n_gram(
    tokens: list[int], prompt_len: int, most: int
) -> None:
    drafter = followed(tokens, min(prompt_len, len(tokens)))
    assert guessed(drafter, tokens, most) == naive_guesses(tokens, most)


@given(texts, st.integers(1, 40), st.data())
def test_following_in_pieces_is_following_at_once(
    tokens: list[int], prompt_len: int, data: st.DataObject
) -> None:
    prompt_len = min(prompt_len, len(tokens))
    drafter = Drafter(prompt_len)
    end = prompt_len
    while end < len(tokens):
        end = data.draw(st.integers(end + 1, len(tokens)))
        drafter.follow(array("i", tokens[:end]), [0] * (end - prompt_len))
    whole = followed(tokens, prompt_len)
    drafter.follow(array("i", tokens), [0] * (len(tokens) - prompt_len))
    assert drafter.guess(array("i", tokens), 5, 0.0) == whole.guess(array("i", tokens), 5, 0.0)


@pytest.mark.parametrize(
    "tokens, expected",
    [
        ([], []),
        ([1, 1], []),
        ([1, 2, 3], []),
        ([1, 1, 1], [1, 1, 1, 1]),  # goes on with the guesses themselves
        ([1, 2, 1, 2], [1, 2, 1, 2]),
        ([1, 2, 8, 1, 2, 9, 1, 2], [9, 1, 2, 9]),  # the last occurrence
        ([5, 1, 2, 8, 6, 1, 2, 9, 5, 1, 2], [8, 6, 1, 2]),  # the longer n-gram
    ],
)
def test_what_is_guessed(tokens: list[int], expected: list[int]) -> None:
    assert guessed(followed(tokens), tokens, 4) == expected


def test_chances_fall_along_the_guesses() -> None:
    tokens = [1, 2, 3, 4, 5, 6, 7, 1, 2]
    chances = [guess.chance for guess in followed(tokens).guess(array("i", tokens), 5, 0.0)]
    assert len(chances) == 5 and all(a > b for a, b in zip(chances, chances[1:], strict=False))
    few = guessed(followed(tokens), tokens, 5, least_chance=chances[2])
    assert few == [3, 4, 5]


# 0 and 1 are seen together ever again, each time with a number that was never there.
LUCKLESS = [token for number in range(60) for token in (0, 1, 2 + number)]


def test_bad_luck_ends_guessing_and_good_luck_brings_it_back() -> None:
    prompt = LUCKLESS[:30]
    ending = [*LUCKLESS, 0, 1]
    assert guessed(followed([*prompt, 0, 1], len(prompt)), [*prompt, 0, 1], 3, 0.2) != []
    assert guessed(followed(ending, len(prompt)), ending, 3, 0.2) == []
    repeated = [*ending, 7, *(40 * [0, 1, 7]), 0, 1]
    assert guessed(followed(repeated, len(prompt)), repeated, 3, 0.2) == [7, 0, 1]


def test_forced_tokens_say_nothing_about_luck() -> None:
    prompt, ending = LUCKLESS[:30], [*LUCKLESS, 0, 1]
    forced = [1] * (len(ending) - len(prompt))
    assert guessed(followed(ending, len(prompt), forced), ending, 3, 0.2) != []
