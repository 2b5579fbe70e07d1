"""One execution of one program: what all its branches share.

Owns: the lock under which everything of the run is written, the waiting, the client and the
defaults. Knows no nodes and no steps.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property

from ..runtime.chat import ChatFormat, chat_format
from ..runtime.client import Client
from ..runtime.dispatcher import Dispatcher
from .observer import Observer, nobody
from .sampling import Sampling
from .speculative import speculating


class Run:
    """`changed` is the lock of every change of the run's branches and variables; who makes one
    announces it.

    Clients and user code are never called while it is held.
    """

    def __init__(
        self,
        program: str,
        client: Client,
        defaults: Sampling,
        *,
        stream: bool = False,
        keep_chunks: bool = False,
        synchronous: bool = False,
        sender: Dispatcher | None = None,
        num_api_spec_tokens: int | None = None,
    ) -> None:
        self.program = program
        self.client = speculating(client, num_api_spec_tokens)
        self.num_api_spec_tokens = num_api_spec_tokens
        self.defaults = defaults
        self.stream = stream  # somebody reads the text while it grows
        self.keep_chunks = keep_chunks  # of each variable, for who reads it while it grows
        self.synchronous = synchronous  # wait for every step where it is submitted
        # Where a resting branch goes on when something is added; None: on the thread that adds it.
        self.sender = sender
        self.observer: Observer = nobody
        self.cancel_body: Callable[[], object] = lambda: None  # where a body can be broken off
        self.changed = threading.RLock()
        self.num_failures = 0  # branches that failed
        self.body_done = False
        self.body_error: BaseException | None = None
        self._watchers: list[Callable[[], None]] = []

    @cached_property
    def chat(self) -> ChatFormat:
        info = self.client.info()
        return chat_format(info.chat_template, info.special_tokens, info.model)

    def announce(self) -> None:
        """Tell whoever waits for this run; the lock must be held."""
        for watcher in self._watchers:
            watcher()

    def end_body(self, error: BaseException | None) -> None:
        with self.changed:
            self.body_error, self.body_done = error, True
            self.announce()

    @contextmanager
    def watched(self, watcher: Callable[[], None]) -> Iterator[None]:
        """Call `watcher` now and at every change; it must not block."""
        with self.changed:
            self._watchers.append(watcher)
            watcher()
        try:
            yield
        finally:
            with self.changed:
                self._watchers.remove(watcher)
