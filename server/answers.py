"""Whole answers gathered from chunks, and what both APIs say of them. Knows no wire format."""

from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field

from ..runtime.protocol import Chunk, FinishReason, TokenLogprob, Usage


@dataclass
class Answer:
    """One sample of one request, as far as it has come. Written only by `add`."""

    text: str = ""
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)
    prompt_ids: tuple[int, ...] = ()
    prompt_logprobs: tuple[TokenLogprob, ...] = ()
    usage: Usage = Usage(0, 0, 0, 0)
    finish: FinishReason | None = None

    def add(self, chunk: Chunk) -> None:
        self.text += chunk.text
        self.token_ids += chunk.token_ids
        self.logprobs += chunk.logprobs
        self.usage = chunk.usage
        self.finish = chunk.finish
        if chunk.prompt_ids is not None:
            self.prompt_ids = chunk.prompt_ids
        if chunk.prompt_logprobs is not None:
            self.prompt_logprobs = chunk.prompt_logprobs


async def gathered(
    chunks: AsyncIterator[tuple[int, Chunk]], num_requests: int, num_samples: int
) -> list[list[Answer]]:
    """Every sample of every request, in order, once all have finished."""
    answers = [[Answer() for _ in range(num_samples)] for _ in range(num_requests)]
    async for request, chunk in chunks:
        answers[request][chunk.index].add(chunk)
    return answers


def total_usage(answers: Iterable[list[Answer]]) -> Usage:
    """Sums over requests; a prompt counts once however many samples were drawn from it."""
    prompt = cached = completion = forced = 0
    for samples in answers:
        prompt += samples[0].usage.prompt_tokens
        cached += samples[0].usage.cached_tokens
        completion += sum(sample.usage.completion_tokens for sample in samples)
        forced += sum(sample.usage.forced_tokens for sample in samples)
    return Usage(prompt, cached, completion, forced)
