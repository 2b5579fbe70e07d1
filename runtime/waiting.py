"""The waiting queue: who goes next, and who waits for a twin.

Owns: the order (first come first served, or longest prefix match with ageing) and the holds: a
request that shares at least a page of uncomputed prefix with a running one waits until that one has
computed it, and takes it from the tree. Probes, of which many share each part of a trie, wait for
each other's every token.
"""

from array import array
from collections.abc import Iterable, Iterator

import numpy as np

from ..radix_cache import PrefixCache
from .config import Policy
from .request import Request

MATCH_WINDOW = 128  # requests, in order of arrival, among which the longest match goes first
PATIENCE = 64  # later arrivals that may overtake a request before it takes precedence


class WaitingQueue:
    def __init__(self, cache: PrefixCache, policy: Policy) -> None:
        self._cache = cache
        self._policy = policy
        self._requests: dict[str, Request] = {}
        self._holds: dict[
            str, tuple[Request, int]
        ] = {}  # id -> (leader, tokens that the leader must have computed)

    def __len__(self) -> int:
        return len(self._requests)

    def __contains__(self, request_id: object) -> bool:
        return request_id in self._requests

    def __getitem__(self, request_id: str) -> Request:
        return self._requests[request_id]

    def __iter__(self) -> Iterator[Request]:
        return iter(self._requests.values())

    def add(self, request: Request) -> None:
        self._requests[request.id] = request

    def remove(self, request: Request) -> None:
        del self._requests[request.id]
        self._holds.pop(request.id, None)

    def admitted(self, request: Request) -> None:
        """It leaves the queue to run: everyone who came before it was overtaken."""
        self.remove(request)
        if self._policy == "fcfs":
            return
        for other in self._requests.values():
            if other.arrival < request.arrival:
                other.num_overtaken += 1

    def ordered(self) -> list[Request]:
        """Everyone, in the order in which to try them now."""
        arrivals = sorted(self._requests.values(), key=lambda request: request.arrival)
        if self._policy == "fcfs":
            return arrivals
        window, rest = arrivals[:MATCH_WINDOW], arrivals[MATCH_WINDOW:]
        ranks = {request.id: self._rank(request) for request in window}
        return sorted(window, key=lambda request: ranks[request.id]) + rest

    def _rank(self, request: Request) -> tuple[bool, int, int]:
        if request.num_preemptions or request.num_overtaken >= PATIENCE:
            return (False, 0, request.arrival)
        match = self._cache.peek(request.tokens[: request.match_limit], request.wire.namespace)
        return (True, -match, request.arrival)

    def is_held(self, request: Request, running: Iterable[Request]) -> bool:
        """Should it wait for one of `running` to compute a prefix that both need? Remembers the
        answer until it is due."""
        hold = self._holds.get(request.id)
        if hold is not None:
            leader, needed = hold
            if leader.slot is not None and leader.num_computed < needed:
                return True
            del self._holds[request.id]
        leaders = [
            other
            for other in running
            if other.target - other.num_computed > (0 if other.wire.probe else 1)
            and other.wire.namespace == request.wire.namespace
        ]
        if not leaders:
            return False
        wanted = request.tokens[: request.match_limit]
        match = self._cache.peek(wanted, request.wire.namespace)
        size = self._cache.page_size
        best: tuple[int, Request] | None = None
        for leader in leaders:
            shared = _common_prefix(leader.tokens[: leader.target], wanted)
            least = 1 if leader.wire.probe and request.wire.probe else size
            shared = shared // least * least
            if (
                shared > leader.num_computed
                and shared - match >= least
                and (best is None or shared > best[0])
            ):
                best = (shared, leader)
        if best is None:
            return False
        shared, leader = best
        # Of a page that is not full it is the end that gives it to the tree.
        needed = shared if shared % size == 0 else leader.target
        self._holds[request.id] = (leader, needed)
        return True


def _common_prefix(a: "array[int]", b: "array[int]") -> int:
    """How many leading tokens are equal."""
    length = min(len(a), len(b))
    left = np.frombuffer(a, dtype=np.int32, count=length) if length else np.empty(0, np.int32)
    right = np.frombuffer(b, dtype=np.int32, count=length) if length else np.empty(0, np.int32)
    differs = np.flatnonzero(left != right)
    return int(differs[0]) if len(differs) else length
