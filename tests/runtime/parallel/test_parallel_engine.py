"""Engines whose model several ranks compute say what one alone would, token for token.

The ranks are threads here: everything but the processes is the real thing.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest

from sapwood.constrained import Regex
from sapwood.runtime.backend import Runner
from sapwood.runtime.batch import Span
from sapwood.runtime.config import (
    EngineConfig,
    ModelOptions,
    ResolvedConfig,
    ScheduleOptions,
    resolve_schedule,
)
from sapwood.runtime.loop import EngineLoop, assemble
from sapwood.runtime.models.config import LlamaConfig
from sapwood.runtime.parallel.backend import ParallelRunner
from sapwood.runtime.parallel.group import Group
from sapwood.runtime.parallel.packing import unpack
from sapwood.runtime.protocol import LogprobOptions
from sapwood.runtime.tokenizer import TokenizerFiles
from sapwood.runtime.torch_backend import TorchBackend

SECONDS = 60.0


class ThreadsTeam:
    """Followers on threads; see `Team`."""

    def __init__(self, runners: list[Runner]) -> None:
        self._steps: list[SimpleQueue[bytes | None]] = [SimpleQueue() for _ in runners]
        self._errors: list[Exception] = []
        self._threads = [
            threading.Thread(target=self._follow, args=pair, daemon=True)
            for pair in zip(runners, self._steps, strict=True)
        ]
        for thread in self._threads:
            thread.start()

    def _follow(self, runner: Runner, steps: "SimpleQueue[bytes | None]") -> None:
        try:
            while (step := steps.get()) is not None:
                runner.launch(unpack(step))
        except Exception as error:
            self._errors.append(error)

    def tell(self, step: bytes) -> None:
        for steps in self._steps:
            steps.put(step)

    def check(self) -> None:
        assert not self._errors

    @contextmanager
    def blamed(self) -> Iterator[None]:
        yield

    def close(self) -> None:
        for steps in self._steps:
            steps.put(None)
        for thread in self._threads:
            thread.join(SECONDS)
            assert not thread.is_alive()
        self.check()


class ThreadsBackend:
    """See `Backend`. `overlaps`: as a GPU would, steps are launched before those before them were
    collected, and tokens that were drawn there are known to rank 0 alone."""

    row_cost = 0.3
    dtype = "float32"
    device = "cpu"

    def __init__(self, path: Path, groups: list[Group], overlaps: bool) -> None:
        config = EngineConfig(ModelOptions(dtype="float32", num_threads=1))
        self._ranks = [TorchBackend.load(path, config, "cpu", group) for group in groups]
        self._groups, self._overlaps = groups, overlaps
        self.config: LlamaConfig = self._ranks[0].config
        self.bytes_per_token = self._ranks[0].bytes_per_token

    def build(self, resolved: ResolvedConfig) -> ParallelRunner:
        runners = [rank.build(resolved) for rank in self._ranks]
        for runner in runners:
            runner.overlaps = self._overlaps
        self._team = ThreadsTeam(list(runners[1:]))
        return ParallelRunner(runners[0], self._team)  # type: ignore[arg-type]

    def free_bytes(self, schedule: ScheduleOptions) -> int:
        return 1 << 28

    def check(self) -> None:
        self._team.check()

    def close(self) -> None:
        self._team.close()


Make = Callable[..., Any]
PROMPT = "the sap of a tree rises in spring, and "


@pytest.fixture(scope="module")
def folder(make_model: Callable[..., Path]) -> Path:
    return make_model(tie_word_embeddings=True)


@pytest.fixture
def engine(
    folder: Path,
    byte_files: TokenizerFiles,
    drive: Callable[[EngineLoop], Any],
    make_groups: Callable[[int], list[Group]],
) -> Iterator[Make]:
    """engine(size, overlaps=..., num_pages=..., **schedule) -> Driver; with size 1, alone."""
    loops: list[EngineLoop] = []

    def make(size: int, overlaps: bool = False, num_pages: int = 128, **schedule: int) -> Any:
        options = ScheduleOptions(**{"token_budget": 48, "max_running": 16, **schedule})  # type: ignore[arg-type]
        resolved = ResolvedConfig("float32", 512, num_pages, 8, resolve_schedule(options, "cpu"))
        backend: Any
        if size > 1:
            backend = ThreadsBackend(folder, make_groups(size), overlaps)
        else:
            config = EngineConfig(ModelOptions(dtype="float32", num_threads=1))
            backend = TorchBackend.load(folder, config, "cpu")
        loops.append(assemble(backend, byte_files, resolved))
        return drive(loops[-1])

    yield make
    for loop in loops:
        loop.close()


def everything(driver: Any) -> dict[str, Any]:
    """Requests of all kinds, some together and some after others, so that they find prefixes, copy
    pages, run in chunks beside decodes."""
    driver.submit(PROMPT, id="greedy")
    driver.submit(PROMPT + "falls", id="seeded", temperature=0.9, stream=5, max_tokens=24)
    driver.run()
    driver.submit(PROMPT + "fails", id="a copied page", max_tokens=9)
    driver.submit("x" * 130, id="chunks", temperature=1.0, stream=6, top_p=0.9)
    driver.submit(
        PROMPT, id="constrained", constraint=Regex("(leaf|bark|root)+"), temperature=0.8, stream=7
    )
    driver.submit(PROMPT + "falls", id="again", temperature=0.9, stream=5, max_tokens=24)
    driver.submit(
        "y" * 20, id="penalised", frequency_penalty=0.7, temperature=0.5, stream=8, min_tokens=12
    )
    logprobs = LogprobOptions(start=0, top=2)
    driver.submit("a log of it", id="scored", logprobs=logprobs, max_tokens=5)
    answers = driver.run()
    return {id: (answer.token_ids, answer.finish, answer.usage) for id, answer in answers.items()}


@pytest.mark.parametrize("overlaps", [False, True])
@pytest.mark.parametrize("size", [2, 4])
def test_the_same_tokens_as_alone(engine: Make, size: int, overlaps: bool) -> None:
    assert everything(engine(size, overlaps)) == everything(engine(1))


@pytest.mark.parametrize("overlaps", [False, True])
def test_where_pages_run_out(engine: Make, overlaps: bool) -> None:
    """Requests give their pages back and begin anew."""

    def crowd(driver: Any) -> dict[str, Any]:
        for number in range(6):
            driver.submit(f"{number} " * 9, id=str(number), max_tokens=40, stream=number)
        answers = driver.run()
        return {id: answer.token_ids for id, answer in answers.items()}

    few = engine(2, overlaps, num_pages=16)
    assert crowd(few) == crowd(engine(1))
    assert few.loop.control("stats")["preemptions"] > 0


def test_log_probabilities(engine: Make) -> None:
    options = LogprobOptions(start=0, top=3)
    ours, theirs = (engine(size).answer(PROMPT, logprobs=options, max_tokens=6) for size in (2, 1))
    assert ours.token_ids == theirs.token_ids
    for got, expected in zip(
        (*ours.prompt_logprobs, *ours.logprobs),
        (*theirs.prompt_logprobs, *theirs.logprobs),
        strict=True,
    ):
        assert got.token_id == expected.token_id
        if expected.logprob is not None:
            assert abs(got.logprob - expected.logprob) <= 1e-4


def test_a_failed_draw_is_one_requests_own(engine: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only rank 0 draws: it draws again from the logits that are there, and computes nothing again,
    which the other ranks would not do."""
    from sapwood.runtime.torch_path import runner

    launch_draws = runner.launch_draws

    def failing(sampler: Any, spans: tuple[Span, ...], *others: Any) -> Any:
        if any(span.request_id == "bad" for span in spans):
            raise ValueError("a grammar of its own")
        return launch_draws(sampler, spans, *others)

    alone = engine(1).answer(PROMPT)
    monkeypatch.setattr(runner, "launch_draws", failing)
    driver = engine(2)
    good, bad = driver.submit(PROMPT), driver.submit("z" * 9, id="bad")
    driver.run()
    assert "a grammar of its own" in str(driver.answers[bad].error)
    assert driver.answers[good].token_ids == alone.token_ids
