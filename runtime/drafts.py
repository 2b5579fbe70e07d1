"""Guesses what a text says next by looking up what followed the same words before (prompt lookup,
Saxena 2023; n-gram speculation).

Owns: of one request, where each n-gram stood last, and how often such guesses have been right. That
is measured on every token drawn, whether or not it was guessed aloud: a request without luck costs
two look-ups a token, and one whose luck turns is noticed. Knows no grammar, no batch and no price.
"""

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

SIZES: Final = (4, 3, 2)  # tokens of the n-grams, the most telling first
_PRIOR: Final = {4: 0.7, 3: 0.5, 2: 0.3}  # chance that what followed an n-gram follows it again
_WEIGHT: Final = 0.1  # of the newest token in that chance


@dataclass(frozen=True)
class Guess:
    """`chance`: that this token and all guesses before it are right."""

    token: int
    chance: float


class Drafter:
    """Of one request. `prompt_len`: tokens that are nobody's guess; they are only looked up."""

    def __init__(self, prompt_len: int) -> None:
        self._prompt_len = prompt_len
        # Of each size: n-gram -> position of the token after its last occurrence. The n-gram that a
        # text ends in gets its entry with the token after it, so a look-up never finds itself.
        self._after: dict[int, dict[tuple[int, ...], int]] = {size: {} for size in SIZES}
        self._num_known = 0
        self._chances = dict(_PRIOR)

    def follow(self, tokens: "array[int]", forced: Sequence[int]) -> None:
        """Take in what was appended to `tokens` (prompt and output) since the last call. Output
        token i with `forced[i]` was not drawn: it says nothing about luck. O(1) per new token."""
        if self._num_known < self._prompt_len:
            self._enter(tokens, 0, self._prompt_len)
        for position in range(max(self._num_known, self._prompt_len), len(tokens)):
            if not forced[position - self._prompt_len]:
                self._measure(tokens, position)
            self._enter(tokens, position, position + 1)
        self._num_known = len(tokens)

    def guess(self, tokens: "array[int]", most: int, least_chance: float) -> list[Guess]:
        """At most `most` tokens after `tokens`, as long as all of them are right with at least
        `least_chance`. `tokens` are those followed last."""
        found = self._find(tokens, len(tokens))
        if found is None:
            return []
        source, size = found
        guesses: list[Guess] = []
        chance = 1.0
        while len(guesses) < most:
            # A guess that was right makes a longer n-gram that was found.
            chance *= self._chances[min(size + len(guesses), SIZES[0])]
            if chance < least_chance:
                break
            at = source + len(guesses)  # beyond the text, it goes on with the guesses themselves
            token = tokens[at] if at < len(tokens) else guesses[at - len(tokens)].token
            guesses.append(Guess(token, chance))
        return guesses

    def _enter(self, tokens: "array[int]", start: int, end: int) -> None:
        """Tokens start..end-1 follow the n-grams before them."""
        for size in SIZES:
            first = max(start, size)
            if first < end:
                shifted = (tokens[first - size + i : end - size + i] for i in range(size))
                ngrams = zip(*shifted, strict=True)
                self._after[size].update(zip(ngrams, range(first, end), strict=True))

    def _find(self, tokens: "array[int]", end: int) -> tuple[int, int] | None:
        """(position after the last occurrence, size) of the longest n-gram that ends at `end`."""
        last = tuple(tokens[max(end - SIZES[0], 0) : end])
        for size in SIZES:
            source = self._after[size].get(last[-size:])
            if source is not None:
                return source, size
        return None

    def _measure(self, tokens: "array[int]", position: int) -> None:
        """Would the token at `position` have been guessed?"""
        found = self._find(tokens, position)
        if found is not None:
            source, size = found
            was_right = tokens[source] == tokens[position]
            self._chances[size] += _WEIGHT * (was_right - self._chances[size])
