"""Free text up to the first of some texts, as states of a pushdown machine.

The states are those of Aho and Corasick: each stands for how much of the texts looked for the
last characters are the beginning of.
"""

from collections import deque
from collections.abc import Mapping, Sequence

from ..code_points import Ranges, complement, normalize
from ..errors import GrammarError
from ..pushdown.builder import Builder


def close_free_text(
    builder: Builder, start: int, ends: Mapping[str, Sequence[int]], anywhere: int | None
) -> None:
    """Let loop `start` read any characters, and, whenever what it has read ends with one of `ends`
    for the first time, go on in the states that this text leads to, and in no others.

    Of two ends, one of which begins with the other, the shorter leads on to the rest of the longer.
    anywhere: a state to go on in at any time.
    """
    follows = _first_ends(builder, ends)
    children: list[dict[str, int]] = [{}]
    found: list[tuple[int, ...]] = [()]
    for end, states in follows.items():
        node = 0
        for letter in end:
            if letter not in children[node]:
                children[node][letter] = len(children)
                children.append({})
                found.append(())
            node = children[node][letter]
        found[node] = states
    letters = sorted({letter for end in follows for letter in end})
    others = complement(normalize((ord(letter), ord(letter)) for letter in letters))
    leaves = () if anywhere is None else (anywhere,)
    loops = [start, *(builder.loop() for _ in children[1:])]
    moves = _moves(children, found)
    for node, loop in enumerate(loops):
        if found[node]:
            continue
        builder.meter.add(len(letters))
        by_target: dict[int, list[str]] = {}
        targets = list(leaves)
        for letter in letters:
            reached = moves[node].get(letter, 0)
            if found[reached]:
                targets += (builder.text(letter.encode(), state) for state in found[reached])
            else:
                by_target.setdefault(reached, []).append(letter)
        for reached, read in by_target.items():
            if reached:
                targets.append(builder.character(_ranges(read), loops[reached]))
        plain = _ranges(by_target.get(0, []))
        targets.append(builder.character(normalize((*others, *plain)), start))
        builder.close_loop(loop, *targets)


def _ranges(letters: Sequence[str]) -> Ranges:
    return normalize((ord(letter), ord(letter)) for letter in letters)


def _moves(children: list[dict[str, int]], found: list[tuple[int, ...]]) -> list[dict[str, int]]:
    """Where each node goes by each letter, if not to the root. A node in which a shorter end is
    found too goes on where that goes on as well."""
    moves: list[dict[str, int]] = [{} for _ in children]
    fallback = [0] * len(children)
    queue = deque([0])
    while queue:
        node = queue.popleft()
        below = fallback[node]
        if node:
            moves[node] = dict(moves[below])
            found[node] = tuple(dict.fromkeys((*found[node], *found[below])))
        for letter, child in children[node].items():
            fallback[child] = moves[below].get(letter, 0) if node else 0
            moves[node][letter] = child
            queue.append(child)
    return moves


def _first_ends(builder: Builder, ends: Mapping[str, Sequence[int]]) -> dict[str, tuple[int, ...]]:
    """The ends that no other begins, each with what may follow it.

    Raises GrammarError where an end could never be found, for another comes before it.
    """
    kept: dict[str, list[int]] = {}
    for end in sorted(ends, key=len):
        builder.meter.check_time()
        first = next((end[:n] for n in range(1, len(end)) if end[:n] in kept), None)
        if first is not None:
            kept[first] += (builder.text(end[len(first) :].encode(), s) for s in ends[end])
            continue
        for other in kept:
            if other in end[:-1]:
                raise GrammarError(f"{end!r} is never reached, for {other!r} comes before it")
        kept[end] = list(ends[end])
    return {end: tuple(states) or (builder.nothing(),) for end, states in kept.items()}
