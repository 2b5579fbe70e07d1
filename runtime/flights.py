"""Who has a part in the steps that were launched and whose outcome is not taken in yet.

Owns: that memory. Whoever leaves the running requests is forgotten here, so that what still flies
of it is nobody's; should it run again meanwhile, the outcome of its earlier life doesn't meet it.
"""

from collections import deque
from collections.abc import Iterable

from .request import Request


class Flights:
    def __init__(self) -> None:
        self._steps: deque[dict[str, Request]] = deque()
        self._have_drafts = False

    def __len__(self) -> int:
        return len(self._steps)

    def launch(self, requests: Iterable[Request], *, has_drafts: bool) -> None:
        self._steps.append({request.id: request for request in requests})
        self._have_drafts = has_drafts

    @property
    def may_be_followed(self) -> bool:
        """Not where drafts fly: how many tokens come of them is not known."""
        return not (self._steps and self._have_drafts)

    @property
    def latest(self) -> dict[str, Request]:
        """By id, those who still have a part in the step that was launched last."""
        return self._steps[-1]

    def land(self) -> dict[str, Request]:
        """By id, those who still have a part in the oldest step, which is in flight no more."""
        return self._steps.popleft()

    def forget(self, request: Request) -> None:
        for requests in self._steps:
            requests.pop(request.id, None)
