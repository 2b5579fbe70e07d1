"""Which drafts a step computes: guesses that the grammar allows, where they are worth their time.

Owns: the price of a draft against its chance. Reads Requests, writes nothing but the drafters that
it keeps on them. Knows no page and no draw: what becomes of a draft is the scheduler's business.

A step of one row takes 1 unit of time, each row more `row_cost` (decoding is bound by the reading
of weights, which all rows share). Without drafts, a step of B requests makes T = B tokens in
C = 1 + row_cost (B - 1). One more draft, right with chance p together with those before it, makes p
tokens more in row_cost more: it pays where p / row_cost > T / C. The most likely go first, and T
and C grow with each.

Where steps overlap, drafts have another price: they stand after tokens that are known, so the step
before has to land first, and the device waits for the plan. At worst that takes as long as a step
does. So there they must bring, together, at least a token for each request that draws.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from ..constrained import GrammarState
from .advance import FORCE_TAIL, Advancer
from .config import ComputeDtype
from .drafts import Drafter, Guess
from .request import Request

_log = logging.getLogger(__name__)

# Of the native step, over 8 rows of one sequence on two cores with AMX (docs/log.md): unpacking 4-
# and 8-bit weights, and products with them, are not hidden behind the reading.
ROW_COSTS: Final[dict[ComputeDtype, float]] = {
    "float32": 0.04,
    "bfloat16": 0.03,
    "int8": 0.1,
    "q4": 0.1,
    "stored": 0.1,
}
TORCH_ROW_COST: Final = 0.08  # bf16 on two cores: a step of 8 rows takes 1.6 times one of 1 row
GPU_ROW_COST: Final = 0.02  # an estimate, not measured: a row's share of keys and values to read
MAX_ROWS: Final = 16  # drawn in a step; beyond, arithmetic begins to bound it


@dataclass(frozen=True)
class Draft:
    """`grammar`: its state after this token, nobody else's."""

    token: int
    grammar: GrammarState | None


@dataclass(frozen=True)
class _Candidate:
    draft: Draft
    chance: float  # that this draft and all before it are right


class Speculator:
    """`max_drafts`: of one request in one step; 0: never any. `least_gain`: tokens that they must
    bring for each request."""

    def __init__(
        self, advancer: Advancer, max_drafts: int, row_cost: float, least_gain: float
    ) -> None:
        self._advancer = advancer
        self._max_drafts = max_drafts
        self._row_cost = row_cost
        self._least_gain = least_gain

    def choose(self, requests: Sequence[Request], room: int) -> list[tuple[Draft, ...]]:
        """Drafts for each of `requests`, which all draw in this step; at most `room` together."""
        room = min(room, MAX_ROWS - len(requests))
        if room <= 0 or not self._max_drafts:
            return [()] * len(requests)
        chains = [self._candidates(request, room) for request in requests]
        counts = self._worthwhile(chains, room)
        return [
            tuple(candidate.draft for candidate in chain[:count])
            for chain, count in zip(chains, counts, strict=True)
        ]

    def expects(self, requests: Sequence[Request]) -> bool:
        """Are drafts likely to be chosen once the next token of each of `requests`, which is being
        drawn, is known?"""
        room = MAX_ROWS - len(requests)
        if room <= 0 or not self._max_drafts or not requests:
            return False
        later = [self._candidates(request, room + 1)[1:] for request in requests]
        return any(self._worthwhile(later, room))

    def _worthwhile(self, chains: Sequence[Sequence[_Candidate]], room: int) -> list[int]:
        """How many of each chain's candidates to take."""
        # Chances fall along a chain, so its candidates come in order.
        ranked = sorted(
            (
                (candidate.chance, number)
                for number, chain in enumerate(chains)
                for candidate in chain
            ),
            reverse=True,
        )
        tokens, time = float(len(chains)), 1 + self._row_cost * (len(chains) - 1)
        counts = [0] * len(chains)
        for chance, number in ranked[:room]:
            if chance * time <= self._row_cost * tokens:
                break
            counts[number] += 1
            tokens += chance
            time += self._row_cost
        enough = tokens - len(chains) >= self._least_gain * len(chains)
        return counts if enough else [0] * len(chains)

    def _candidates(self, request: Request, room: int) -> list[_Candidate]:
        most = min(room, self._max_drafts, request.max_tokens - request.num_output - 1)
        if most <= 0:
            return []
        if request.drafter is None:
            request.drafter = Drafter(request.prompt_len)
        request.drafter.follow(request.tokens, request.forced)
        # Alone, a step makes a token per unit of time: nothing pays that is less likely than this.
        guesses = request.drafter.guess(request.tokens, most, least_chance=self._row_cost)
        try:
            return self._allowed(request, guesses)
        except Exception:  # the request itself will fail of it, or will not: a draft is no need
            _log.exception("no drafts for request %s", request.id)
            return []

    def _allowed(self, request: Request, guesses: Sequence[Guess]) -> list[_Candidate]:
        """The guesses up to the first that cannot come, or that the model is not asked after: an
        end, or what the grammar continues by itself."""
        state = request.grammar and request.grammar.snapshot()
        tail = request.tokens[-FORCE_TAIL:].tolist()
        budget = request.max_tokens - request.num_output
        allowed: list[_Candidate] = []
        for guess in guesses:
            budget -= 1
            tail.append(guess.token)
            if guess.token in request.stop_ids:
                break
            if state is not None and not self._goes_on(state, guess.token, tail, budget):
                break
            allowed.append(_Candidate(Draft(guess.token, state and state.snapshot()), guess.chance))
        return allowed

    def _goes_on(self, state: GrammarState, token: int, tail: list[int], budget: int) -> bool:
        """Advance by `token`; will the model be asked what follows, with something to choose from?
        `budget`: tokens that may still come after it."""
        return (
            state.accept(token)
            and not state.is_finished
            and state.shortest <= budget
            and not self._advancer.forced(state, tail[-FORCE_TAIL:], budget)
        )
