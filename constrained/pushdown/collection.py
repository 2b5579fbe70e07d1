"""Collections while they are read: which members may come next and how many bytes still must.

Knows the rules of a `Collection`, not how members are read.
"""

from dataclasses import dataclass, replace
from typing import Final

from .builder import Member

NEVER: Final = 2**30
"""Bytes that are needed where there is no way to the end."""

BEGIN, AFTER_MEMBER, AFTER_COMMA = range(3)


@dataclass(frozen=True)
class Progress:
    """phase: what was read last; count: items so far, counted as far as it matters; last: the
    member that came last, where members are ordered; seen: bits of members that came, where that
    matters; raised: the counters."""

    phase: int
    count: int
    last: int
    seen: int
    raised: tuple[int, ...]


class CollectionRules:
    """One `Collection`. cost: bytes of the shortest text of each member; comma: of a comma."""

    def __init__(
        self,
        members: tuple[Member, ...],
        cost: list[int],
        comma: int,
        *,
        ordered: bool,
        required: frozenset[int],
        needs: tuple[tuple[int, int], ...],
        low: int,
        high: int | None,
        counters: tuple[tuple[int, int | None], ...],
    ) -> None:
        self.members = members
        self._cost = cost
        self._comma = comma
        self._ordered = ordered
        self._needs = needs
        self._low, self._high = low, high
        self._counters = counters
        self._required = required
        # What has come is remembered only where something depends on it.
        needed = {member for need in needs for member in need}
        self._tracked = needed if ordered else {n for n, m in enumerate(members) if m.once}
        self._most = max(low, high or 0)
        self._by_cost = sorted(range(len(members)), key=lambda m: (cost[m], m))

    @property
    def begin(self) -> Progress:
        return Progress(BEGIN, 0, -1, 0, (0,) * len(self._counters))

    @property
    def work(self) -> int:
        """What it takes to find the members that may come."""
        count = len(self.members)
        is_free = not self._needs and not self._counters and self._high is None
        return count if is_free else count * (1 + count)

    def available(self, progress: Progress) -> list[int]:
        """The members that may come next; after a member a comma stands between."""
        return [
            m
            for m in range(len(self.members))
            if self._is_open(progress, m)
            and not self._passes_over(progress, m)
            and self.shortest(self.after(progress, m)) < NEVER
        ]

    def may_end(self, progress: Progress) -> bool:
        return progress.phase != AFTER_COMMA and self._plan(progress) == []

    def after(self, progress: Progress, member: int) -> Progress:
        raised = list(progress.raised)
        if (counter := self.members[member].counter) >= 0:
            low, high = self._counters[counter]
            raised[counter] = min(raised[counter] + 1, max(low, high or 0))
        return Progress(
            AFTER_MEMBER,
            min(progress.count + 1, self._most),
            member if self._ordered else -1,
            progress.seen | (1 << member if member in self._tracked else 0),
            tuple(raised),
        )

    def after_comma(self, progress: Progress) -> Progress:
        return replace(progress, phase=AFTER_COMMA)

    def shortest(self, progress: Progress) -> int:
        """Fewest bytes of what must still come before the end; NEVER where there is no way."""
        plan = self._plan(progress)
        if plan is None:
            return NEVER
        commas = len(plan) - (progress.phase != AFTER_MEMBER) if plan else 0
        return sum(self._cost[member] for member in plan) + commas * self._comma

    def _is_open(self, progress: Progress, member: int) -> bool:
        """Whether `member` may come, what must follow it aside."""
        if self._cost[member] >= NEVER or progress.count == self._high:
            return False
        once, counter = self.members[member].once, self.members[member].counter
        if counter >= 0 and progress.raised[counter] == self._counters[counter][1]:
            return False
        if not self._ordered:
            return not (once and progress.seen >> member & 1)
        return member > progress.last if once else member >= progress.last

    def _passes_over(self, progress: Progress, member: int) -> bool:
        """Whether a required member could no longer come after `member`."""
        return self._ordered and any(progress.last < r < member for r in self._required)

    def _plan(self, progress: Progress) -> list[int] | None:
        """The members that must still come and cost least (each as often as it stands there); None
        where what must come cannot.

        What is planned stays planned once a part of it has come, so the cost falls with each step.
        """
        plan: list[int] = []
        for member in sorted(self._required):
            if self._has_come(progress, member) or member in plan:
                continue
            if not self._add(progress, plan, member):
                return None
        for first, second in self._needs:
            if progress.seen >> first & 1 and not self._add_needed(progress, plan, second):
                return None
        for counter, (low, _) in enumerate(self._counters):
            raises = [m for m in self._by_cost if self.members[m].counter == counter]
            raises = [m for m in raises if self._is_open(progress, m)]
            lacking = low - progress.raised[counter]
            if lacking > 0 and not raises:
                return None
            plan += raises[:1] * lacking
        least = max(self._low - progress.count, progress.phase == AFTER_COMMA)
        while len(plan) < least:
            for member in self._by_cost:
                longer = list(plan)
                if self._fills(progress, plan, member) and self._add(progress, longer, member):
                    if self._has_room(progress, longer):
                        plan = longer
                        break
            else:
                return None
        return plan if self._has_room(progress, plan) else None

    def _has_room(self, progress: Progress, plan: list[int]) -> bool:
        return self._high is None or progress.count + len(plan) <= self._high

    def _has_come(self, progress: Progress, member: int) -> bool:
        if self._ordered and member not in self._tracked:
            return member <= progress.last  # a required one is never passed over
        return bool(progress.seen >> member & 1)

    def _fills(self, progress: Progress, plan: list[int], member: int) -> bool:
        counter = self.members[member].counter
        if counter >= 0:
            high = self._counters[counter][1]
            planned = sum(self.members[m].counter == counter for m in plan)
            if high is not None and progress.raised[counter] + planned >= high:
                return False
        return self._is_open(progress, member) and not (
            self.members[member].once and member in plan
        )

    def _add(self, progress: Progress, plan: list[int], member: int) -> bool:
        """Plan `member` and what it needs; False, the plan being of no more use, where it cannot
        come."""
        if not self._is_open(progress, member):
            return False
        plan.append(member)
        return all(
            self._add_needed(progress, plan, second)
            for first, second in self._needs
            if first == member
        )

    def _add_needed(self, progress: Progress, plan: list[int], member: int) -> bool:
        if member in plan or progress.seen >> member & 1:
            return True
        return self._add(progress, plan, member)
