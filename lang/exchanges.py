"""The exchanges with the engine, one class for each step that asks it: from request to answer.

Owns: what becomes of a client's answers: into the transcript and the variable, under the run's
lock. Callbacks come on the client's dispatcher thread and never block it.
"""

import time
from concurrent.futures import Future

from ..runtime.client import Event
from ..runtime.errors import Cancelled
from ..runtime.protocol import Chunk, GenerateRequest, ScoreRequest, Scores
from .choices import describe
from .collect import Collector
from .pending import Pending
from .run import Run
from .speculative import TRIES, unfit
from .steps import Fill, Generate, Score
from .transcript import Transcript


class GenerateExchange:
    """One `Generate` step; `start` returns at once."""

    def __init__(self, run: Run, transcript: Transcript, step: Generate, pending: Pending) -> None:
        self._run, self._transcript, self._step, self._pending = run, transcript, step, pending
        self._speaks = run.client.info().abilities.speaks
        self._request = GenerateRequest(
            transcript.prompt(),
            step.sampling,
            step.logprobs,
            random_path=step.path,
            heal=step.heal and transcript.open_end,
            turns=transcript.turns() if self._speaks != "ids" else (),
        )
        self._collector = Collector(self._request)

    def start(self) -> None:
        request_id = self._request.request_id
        self._pending.request_id = self._step.variable.request_id = request_id
        self._pending.limit(self._step.timeout, self._step)
        stream = self._run.client.generate(self._request)
        self._pending.can_abort_by(stream.close)
        stream.subscribe(self._on_event)

    def _on_event(self, event: Event) -> None:
        try:
            if isinstance(event, BaseException):
                raise event
            with self._run.changed:
                if self._pending.done:
                    return
                self._take(event)
                self._run.announce()
            if self._collector.complete:
                self._settle()
                self._pending.finish()
        except BaseException as error:  # nobody above could tell the program
            self._pending.fail(error, self._step)

    def _take(self, chunk: Chunk) -> None:
        self._collector.add(chunk)
        if chunk.index == 0:
            self._transcript.show(chunk.text)
            if self._run.keep_chunks:
                self._step.variable.chunks.append(chunk)

    def _settle(self) -> None:
        """The value is read without the lock: types have validators, which are user code."""
        value, meta = self._collector.value(self._step.decoder)
        with self._run.changed:
            if self._pending.done:
                return
            if self._speaks == "ids":
                self._transcript.settle(*self._collector.continuation())
            else:
                self._transcript.extend(self._collector.first_text())
            self._step.variable.set(value, meta)


class FillExchange:
    """One `Fill` step; `start` returns at once."""

    def __init__(self, run: Run, transcript: Transcript, step: Fill, pending: Pending) -> None:
        self._run, self._transcript, self._step, self._pending = run, transcript, step, pending
        self._tries = 0

    def start(self) -> None:
        self._tries += 1
        if self._tries == 1:
            self._pending.limit(self._step.timeout, self._step)
        request = GenerateRequest(
            self._transcript.prompt(),
            self._step.sampling,
            random_path=(*self._step.path, self._tries),
            turns=self._transcript.turns(),
        )
        self._collector = Collector(request)
        self._pending.request_id = request.request_id
        stream = self._run.client.generate(request)
        self._pending.can_abort_by(stream.close)
        stream.subscribe(self._on_event)

    def _on_event(self, event: Event) -> None:
        try:
            if isinstance(event, BaseException):
                raise event
            self._collector.add(event)
            if self._collector.complete:
                self._settle(self._collector.first_text())
        except BaseException as error:  # nobody above could tell the program
            self._pending.fail(error, self._step)

    def _settle(self, answer: str) -> None:
        form = self._step.form
        values = form.fit(answer)
        if values is None:
            if self._tries == TRIES:
                raise unfit(answer)
            self.start()
            return
        meta = self._collector.metas[0].as_dict()
        with self._run.changed:
            if self._pending.done:
                return
            self._transcript.append(form.text(values))
            for blank, value in zip(form.blanks, values, strict=True):
                blank.variable.set(value, meta)
        self._pending.finish()


class ScoreExchange:
    """One `Score` step; `start` returns at once."""

    def __init__(self, run: Run, transcript: Transcript, step: Score, pending: Pending) -> None:
        self._run, self._transcript, self._step, self._pending = run, transcript, step, pending
        self._request = ScoreRequest(
            transcript.prompt(),
            step.options,
            unconditional=step.method.needs_unconditional,
            bound=step.method.bound if step.early_stop else None,
        )
        self._sent = time.perf_counter()

    def start(self) -> None:
        self._pending.request_id = self._request.request_id
        self._pending.limit(self._step.timeout, self._step)
        future = self._run.client.score(self._request)
        self._pending.can_abort_by(future.cancel)
        future.add_done_callback(self._on_scores)

    def _on_scores(self, future: Future[Scores]) -> None:
        try:
            if future.cancelled():
                raise Cancelled("the scoring was cancelled")
            scores = future.result()
            decision = self._step.method.decide(scores)
            choice = self._step.options[decision.index]
            taken = scores.options[decision.index].token_ids
            meta = self._facts(scores) | describe(scores) | decision.meta
            with self._run.changed:
                if self._pending.done:
                    return
                self._transcript.show(choice)
                if self._run.client.info().abilities.speaks == "ids":
                    self._transcript.settle(scores.prompt_ids + taken)
                else:
                    self._transcript.extend(choice)
                self._step.variable.set(choice, meta)
            self._pending.finish()
        except BaseException as error:  # nobody above could tell the program
            self._pending.fail(error, self._step)

    def _facts(self, scores: Scores) -> dict[str, object]:
        usage = scores.usage
        return {
            "id": self._request.request_id,
            "choices_method": self._step.method.name,
            "prompt_tokens": usage.prompt_tokens,
            "completion_tokens": usage.completion_tokens,
            "cached_tokens": usage.cached_tokens,
            "forced_tokens": usage.forced_tokens,
            "e2e_latency": time.perf_counter() - self._sent,
        }
