"""The end-to-end work, and the figures of whoever did it.

The recipe of the field's own comparisons: prompts of 2,048 tokens, 2,048 tokens of output, greedy,
ends of text ignored, all requests handed over at once. Prompts differ from their first token on.
"""

import random
import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Work:
    """`concurrency` requests at once."""

    concurrency: int
    num_input: int = 2_048
    num_output: int = 2_048

    def prompts(self, vocab_size: int, seed: int = 0) -> list[list[int]]:
        rng = random.Random(seed)
        # From 300 on: clear of special tokens, which stand at the ends of vocabularies.
        top = min(vocab_size, 49_000)
        low = min(300, top // 2)
        return [
            [rng.randrange(low, top) for _ in range(self.num_input)]
            for _ in range(self.concurrency)
        ]


@dataclass(frozen=True)
class Run:
    """What one run showed. `times`: for each request, when its tokens came, in seconds since the
    requests were handed over; tokens that came together have the same time."""

    times: Sequence[Sequence[float]]

    @property
    def num_tokens(self) -> int:
        return sum(len(times) for times in self.times)

    @property
    def seconds(self) -> float:
        return max(times[-1] for times in self.times)

    @property
    def tokens_per_second(self) -> float:
        """Of output, over the whole run, the prompts' prefill included."""
        return self.num_tokens / self.seconds

    @property
    def first_token(self) -> float:
        """Median time to it."""
        return statistics.median(times[0] for times in self.times)

    @property
    def between_tokens(self) -> float:
        """The median gap between two tokens of a request, once all have begun."""
        begun = max(times[0] for times in self.times)
        gaps = [
            later - earlier
            for times in self.times
            for earlier, later in zip(times, times[1:], strict=False)
            if earlier >= begun
        ]
        return statistics.median(gaps) if gaps else float("nan")
