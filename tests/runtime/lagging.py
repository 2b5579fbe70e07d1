"""A backend whose device is behind: it works off a queue, whenever a random generator says so, and
at the latest when somebody waits. What it keeps as keys and values are the tokens themselves, so
that every read can be checked. A module and no fixture, for several tests.

The "model": an entry of a page holds its position and a hash of its token and the entry before.
Whoever reads a prefix checks this chain from the first token on: an entry that nobody wrote, that
is another request's or that was overwritten breaks it. The logits after a token are made of the
last entry's hash alone.
"""

from collections import deque
from collections.abc import Callable
from random import Random
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sapwood.radix_cache import PrefixCache
from sapwood.runtime.batch import AWAITED, Batch, Draws, Sampling, Span, SpanResult, StepResult
from sapwood.runtime.config import ResolvedConfig
from sapwood.runtime.masks import ban
from sapwood.runtime.models.config import LlamaConfig
from sapwood.runtime.page_table import PageTable
from sapwood.runtime.protocol import TokenLogprob

Entry = tuple[int, int]  # position, hash
START: Entry = (-1, 7)


def follow(before: Entry, token: int) -> Entry:
    return before[0] + 1, hash((before[1], token))


class Device:
    """Works in order of arrival, but not at once. `num_pages` pages of entries."""

    def __init__(self, num_pages: int, page_size: int, num_slots: int, rng: Random) -> None:
        self.pages: list[list[Entry | None]] = [[None] * page_size for _ in range(num_pages)]
        self.last_tokens = [0] * num_slots
        self.rng = rng
        self._queue: deque[Callable[[], None]] = deque()
        self._num_done = 0

    def put(self, work: Callable[[], None]) -> int:
        """Returns the number to `wait` for."""
        self._queue.append(work)
        for _ in range(self.rng.choice([0, 0, 0, 1, 2, 5])):
            self._work()
        return self._num_done + len(self._queue)

    def wait(self, number: int) -> None:
        while self._num_done < number:
            self._work()

    def _work(self) -> None:
        if self._queue:
            self._queue.popleft()()
            self._num_done += 1

    def copy(self, source: int, target: int) -> None:
        self.pages[target] = list(self.pages[source])

    def read(self, rows: NDArray[np.int32], length: int) -> list[Entry]:
        """The first `length` entries, which must be one chain."""
        size = len(self.pages[0])
        found: list[Entry] = []
        for position in range(length):
            entry = self.pages[rows[position // size]][position % size]
            assert entry is not None, f"position {position} was never written"
            assert entry[0] == position, f"position {position} holds that of {entry[0]}"
            found.append(entry)
        return found


class LaggingRunner:
    """`fails`: by request id, why its next span cannot be computed, or else not drawn."""

    def __init__(self, table: PageTable, device: Device, vocab: int, overlaps: bool) -> None:
        self.overlaps = overlaps
        self.table = table
        self.device = device
        self.vocab = vocab
        self.fails: dict[str, Exception] = {}

    def launch(self, batch: Batch) -> "LaggingFlight":
        for copy in batch.page_copies:
            self.device.put(lambda copy=copy: self.device.copy(copy.source, copy.target))  # type: ignore[misc]
        self.table.write(batch.page_writes)
        flight = LaggingFlight(self, batch.spans)
        for number, span in enumerate(batch.spans):
            if span.request_id in self.fails:
                flight.errors[number] = self.fails.pop(span.request_id)
                if self.device.rng.random() < 0.5:  # the forward itself, or only the draw
                    continue
            rows = self.table.rows([span.slot], -(-span.end // self.table.page_size))[0]
            self.device.put(lambda n=number, s=span, r=rows: flight.compute(n, s, r))  # type: ignore[misc]
        return flight


class LaggingFlight:
    def __init__(self, runner: LaggingRunner, spans: tuple[Span, ...]) -> None:
        self._runner = runner
        self._spans = spans
        self._entries: list[list[Entry]] = [[] for _ in spans]  # of the tokens of each span
        self._results: list[SpanResult | None] = [None] * len(spans)
        self._wait_for = 0
        self.errors: dict[int, Exception] = {}

    def compute(self, number: int, span: Span, rows: NDArray[np.int32]) -> None:
        """What it must not read fails the span; that of a request which failed in the step before
        reads what there is, and nobody asks."""
        device, size = self._runner.device, self._runner.table.page_size
        try:
            before = device.read(rows, span.start)
        except AssertionError as error:
            self.errors[number] = error
            return
        entry = before[-1] if before else START
        for position, token in enumerate(span.token_ids, span.start):
            if token == AWAITED:
                token = device.last_tokens[span.slot]
            entry = follow(entry, token)
            device.pages[rows[position // size]][position % size] = entry
            self._entries[number].append(entry)

    def draw(self, draws: Draws) -> None:
        for number, (span, drawn) in enumerate(zip(self._spans, draws, strict=True)):
            assert len(drawn) in (0, len(span.samplings))
            masks = [self._mask(sampling) for sampling in drawn]  # read now: they may change
            self._wait_for = self._runner.device.put(
                lambda n=number, s=span, d=drawn, m=masks: self._finish(n, s, d, m)  # type: ignore[misc]
            )

    def _finish(
        self,
        number: int,
        span: Span,
        draws: tuple[Sampling, ...],
        masks: list[NDArray[np.bool_]],
    ) -> None:
        if number in self.errors:
            self._results[number] = SpanResult(error=self.errors[number])
            return
        entries = self._entries[number]
        first = len(entries) - len(draws)
        logits = [_logits(entry, self._runner.vocab) for entry in entries]
        tokens = [
            _choose(row, mask, sampling)
            for row, mask, sampling in zip(logits[first:], masks, draws, strict=True)
        ]
        if tokens:
            self._runner.device.last_tokens[span.slot] = tokens[-1]
        scored: list[TokenLogprob] = []
        if span.scoring is not None:
            for at, token in zip(
                span.scoring.rows.tolist(), span.scoring.targets.tolist(), strict=True
            ):
                scored.append(TokenLogprob(token, float(logits[at - span.start][token])))
        reports = [
            TokenLogprob(token, float(row[token]))
            for token, row, sampling in zip(tokens, logits[first:], draws, strict=True)
            if sampling.report
        ]
        self._results[number] = SpanResult(tuple(tokens), tuple(reports), tuple(scored))

    def _mask(self, sampling: Sampling) -> NDArray[np.bool_]:
        vocab = self._runner.vocab
        words = np.full(-(-vocab // 32), -1, np.int32)
        if sampling.grammar is not None:
            sampling.grammar.fill_mask(words, sampling.budget)
        ban(words, sampling.banned)
        bits = np.unpackbits(words.view(np.uint8), bitorder="little")[:vocab]
        return bits.astype(np.bool_)

    def collect(self) -> StepResult:
        self._runner.device.wait(self._wait_for)
        assert all(result is not None for result in self._results)
        return StepResult(tuple(result for result in self._results if result is not None))


def _logits(entry: Entry, vocab: int) -> NDArray[np.float64]:
    return np.random.default_rng(entry[1] % (1 << 32)).normal(size=vocab) * 2


def _choose(logits: NDArray[np.float64], allowed: NDArray[np.bool_], sampling: Sampling) -> int:
    """Any draw will do that depends on all that it may depend on."""
    logits = logits.copy()
    for token, bias in sampling.logit_bias:
        logits[token] += bias
    if sampling.penalties is not None:
        np.subtract.at(logits, sampling.penalties.output, sampling.penalties.frequency)
    logits[~allowed] = -np.inf
    if sampling.temperature > 0:
        seed = (sampling.stream, sampling.position)
        logits += np.random.default_rng(seed).gumbel(size=len(logits)) * sampling.temperature
    return int(np.argmax(logits))


class LaggingBackend:
    """See `Backend`."""

    dtype = "float32"
    device = "cpu"
    bytes_per_token = 1
    row_cost = 0.05

    def __init__(self, config: LlamaConfig, rng: Random, *, overlaps: bool) -> None:
        self.config = config
        self.runner: LaggingRunner
        self._rng = rng
        self._overlaps = overlaps

    def free_bytes(self, schedule: Any) -> int:
        return 1 << 20

    def check(self) -> None:
        """It computes in this process."""

    def close(self) -> None:
        """There is nothing to give back."""

    def build(self, resolved: ResolvedConfig) -> LaggingRunner:
        slots, size = resolved.schedule.max_running, resolved.page_size
        table = PageTable(slots, resolved.pages_per_request, size)
        device = Device(resolved.num_pages, size, slots, self._rng)
        self.runner = LaggingRunner(table, device, self.config.vocab_size, self._overlaps)
        return self.runner


def check_tree(cache: PrefixCache, device: Device) -> None:
    """What the tree says of a page is what the page holds, whatever is still in flight."""
    for root in cache._tree.roots():
        nodes = [(child, START) for child in root.children.values()]
        while nodes:
            node, entry = nodes.pop()
            for at, token in enumerate(np.frombuffer(node.key, np.int32).tolist()):
                entry = follow(entry, token)
                page = device.pages[node.pages[at // cache.page_size]]
                assert page[at % cache.page_size] == entry, "the tree's page holds something else"
            nodes += [(child, entry) for child in node.children.values()]
