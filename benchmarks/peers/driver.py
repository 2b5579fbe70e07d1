"""Asks any OpenAI-compatible server to do a work, with the same client for all of them.

Owns: the requests, their clock, and the few fields that servers name differently (`Dialect`). Knows
no process and no workload's unit.
"""

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

from openai import AsyncOpenAI, DefaultAsyncHttpxClient
from work import Chats, Completions, Constrained, FirstToken, NotOffered, Outcome, Work

REQUEST_SECONDS = 900.0
STREAMED_TOKENS = 8  # of an answer whose first token is timed
Fields = Mapping[str, Any]


def response_format(schema: Fields) -> Fields:
    """OpenAI's own way to ask for a schema."""
    named = {"name": "record", "schema": schema}
    return {"response_format": {"type": "json_schema", "json_schema": named}}


@dataclass(frozen=True)
class Dialect:
    """Where one server differs from OpenAI's API, which knows no regex and no answer of an exact
    length. `counts_samples`: whether `usage` counts all samples or only the first."""

    exact_length: Fields
    regex: Callable[[Constrained], Fields]
    schema: Callable[[Fields], Fields] = response_format
    offers_n: bool = True
    counts_samples: bool = True


class Driver:
    """A client for one running server: `run` does a work. Close it with `close`."""

    def __init__(self, url: str, dialect: Dialect) -> None:
        self._dialect = dialect
        self._runner = asyncio.Runner()
        self._client = AsyncOpenAI(
            base_url=f"{url}/v1",
            api_key="none",
            max_retries=0,
            timeout=REQUEST_SECONDS,
            http_client=DefaultAsyncHttpxClient(trust_env=False),  # no proxy to ourselves
        )
        self._model = self._runner.run(self._first_model())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._runner.run(self._client.close())
        self._runner.close()

    def run(self, work: Work) -> Outcome:
        """Raises NotOffered, or openai.APIError where the server refuses or fails."""
        match work:
            case Completions():
                return self._runner.run(self._completions(work))
            case FirstToken():
                return self._runner.run(self._first_token(work))
            case Chats():
                return self._runner.run(self._chats(work))
            case Constrained():
                return self._runner.run(self._constrained(work))

    async def _first_model(self) -> str:
        return (await self._client.models.list()).data[0].id

    async def _completions(self, work: Completions) -> Outcome:
        if work.n > 1 and not self._dialect.offers_n:
            raise NotOffered("several samples of one prompt")
        several = {"n": work.n, "temperature": 1.0, "seed": 1} if work.n > 1 else {}

        async def ask(prompt: str) -> Any:
            return await self._client.completions.create(
                **{"model": self._model, "temperature": 0.0, **several},
                prompt=prompt,
                max_tokens=work.max_tokens,
                extra_body=dict(self._dialect.exact_length),
            )

        outcome = _outcome(*await _timed(map(ask, work.prompts)))
        if self._dialect.counts_samples:
            return outcome
        return replace(outcome, output_tokens=outcome.output_tokens * work.n)

    async def _first_token(self, work: FirstToken) -> Outcome:
        waits = []
        for prompt in work.prompts:
            begin = time.perf_counter()
            stream = await self._client.completions.create(
                model=self._model,
                prompt=prompt,
                max_tokens=STREAMED_TOKENS,
                temperature=0.0,
                stream=True,
                extra_body=dict(self._dialect.exact_length),
            )
            came = None
            async for chunk in stream:
                if came is None and chunk.choices and chunk.choices[0].text:
                    came = time.perf_counter() - begin
            if came is None:
                raise RuntimeError("the stream held no text")
            waits.append(came)
        tokens = work.prompt_tokens * len(work.prompts)
        return Outcome(statistics.median(waits), tokens, len(work.prompts))

    async def _chats(self, work: Chats) -> Outcome:
        async def talk(lines: tuple[str, ...]) -> list[Any]:
            messages: list[Any] = []
            answers = []
            for line in lines:
                messages.append({"role": "user", "content": line})
                answer = await self._client.chat.completions.create(
                    model=self._model,
                    messages=messages,
                    max_tokens=work.max_tokens,
                    temperature=0.0,
                    extra_body=dict(self._dialect.exact_length),
                )
                answers.append(answer)
                said = answer.choices[0].message.content or ""
                messages.append({"role": "assistant", "content": said})
            return answers

        seconds, conversations = await _timed(map(talk, work.conversations))
        return _outcome(seconds, [answer for talk in conversations for answer in talk])

    async def _constrained(self, work: Constrained) -> Outcome:
        dialect = self._dialect
        bound = dialect.regex(work) if work.schema is None else dialect.schema(work.schema)

        async def ask(question: str) -> Any:
            return await self._client.chat.completions.create(
                model=self._model,
                messages=[{"role": "user", "content": question}],
                max_tokens=work.max_tokens,
                temperature=0.0,
                extra_body=dict(bound),
            )

        seconds, answers = await _timed(map(ask, work.questions))
        texts = tuple(answer.choices[0].message.content or "" for answer in answers)
        return _outcome(seconds, answers, texts)


async def _timed(calls: Iterable[Awaitable[Any]]) -> tuple[float, list[Any]]:
    """All calls at once, and the seconds until the last has ended."""
    begin = time.perf_counter()
    answers = await asyncio.gather(*calls)
    return time.perf_counter() - begin, answers


def _outcome(seconds: float, answers: list[Any], texts: tuple[str, ...] = ()) -> Outcome:
    prompt_tokens = sum(answer.usage.prompt_tokens for answer in answers)
    return Outcome(
        seconds, prompt_tokens, sum(answer.usage.completion_tokens for answer in answers), texts
    )
