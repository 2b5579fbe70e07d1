"""Ranks as processes: how they start, what they answer, and that none outlives the engine."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch

from sapwood.runtime.config import (
    CacheOptions,
    DeviceOptions,
    EngineConfig,
    ModelOptions,
    ResolvedConfig,
    ScheduleOptions,
    resolve_schedule,
)
from sapwood.runtime.errors import EngineDied, InvalidRequest
from sapwood.runtime.local import LocalClient
from sapwood.runtime.loop import EngineLoop, assemble, build_loop
from sapwood.runtime.models.errors import ModelError
from sapwood.runtime.parallel import collectives
from sapwood.runtime.parallel import team as team_module
from sapwood.runtime.parallel.backend import check_devices
from sapwood.runtime.parallel.team import Team
from sapwood.runtime.process import ProcessClient
from sapwood.runtime.protocol import GenerateRequest, SamplingParams, as_prompt
from sapwood.runtime.tokenizer import TokenizerFiles

SECONDS = 60.0
PROMPT = "the sap of a tree rises in spring, and "


@pytest.fixture(scope="module")
def folder(make_model: Callable[..., Path], byte_files: TokenizerFiles) -> Path:
    path = make_model(num_attention_heads=6, num_key_value_heads=6)
    byte_files.tokenizer.save(str(path / "tokenizer.json"))
    return path


def config(folder: Path, ranks: int, **cache: Any) -> EngineConfig:
    return EngineConfig(
        ModelOptions(str(folder), dtype="float32", num_threads=1),
        CacheOptions(**{"max_tokens": 2_048, **cache}),
        ScheduleOptions(token_budget=48),
        DeviceOptions("cpu", tensor_parallel=ranks),
    )


def ranks_of(pid: int) -> list[int]:
    """The living processes that have this parent and compute a rank."""
    found = []
    for folder in Path("/proc").iterdir():
        try:
            state, parent = (folder / "stat").read_text().rsplit(")", 1)[1].split()[:2]
            command = (folder / "cmdline").read_bytes()
        except OSError:
            continue
        if int(parent) == pid and state != "Z" and b"parallel.worker" in command:
            found.append(int(folder.name))
    return found


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def eventually(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.01)


def ask(text: str, max_tokens: int = 16, **options: Any) -> GenerateRequest:
    params = SamplingParams(temperature=0.0, max_tokens=max_tokens, ignore_eos=True, **options)
    return GenerateRequest(as_prompt(text), params)


def test_two_processes_say_what_one_says(
    folder: Path, byte_files: TokenizerFiles, drive: Callable[[EngineLoop], Any]
) -> None:
    """A prefix is reused, a page copied, a prompt cut into chunks beside decodes, requests run
    together, greedy and seeded."""

    def outputs(loop: EngineLoop) -> dict[str, Any]:
        driver = drive(loop)
        driver.submit(PROMPT, id="first")
        driver.run()
        driver.submit(PROMPT + "falls", id="copied", max_tokens=9)
        driver.submit("x" * 130, id="chunks", temperature=1.0, stream=6)
        driver.submit(PROMPT, id="seeded", temperature=0.8, stream=7)
        answers = driver.run()
        return {id: (each.token_ids, each.usage) for id, each in answers.items()}

    from sapwood.runtime.torch_backend import TorchBackend

    before = ranks_of(os.getpid())
    ranks = build_loop(config(folder, 2, page_size=8), byte_files)
    try:
        assert len(ranks_of(os.getpid())) == len(before) + 1
        ours = outputs(ranks)
    finally:
        ranks.close()
    assert ranks_of(os.getpid()) == before
    alone_config = config(folder, 1)
    resolved = ResolvedConfig(
        "float32", 512, 256, 8, resolve_schedule(alone_config.schedule, "cpu")
    )
    alone = assemble(TorchBackend.load(folder, alone_config, "cpu"), byte_files, resolved)
    assert ours == outputs(alone)
    alone.close()


def test_a_killed_rank_wakes_everyone(folder: Path, byte_files: TokenizerFiles) -> None:
    before = ranks_of(os.getpid())
    client = LocalClient(lambda: build_loop(config(folder, 3), byte_files), byte_files)
    ranks = [pid for pid in ranks_of(os.getpid()) if pid not in before]
    assert len(ranks) == 2
    streams = [iter(client.generate(ask(f"{number}", 450))) for number in range(3)]
    for stream in streams:
        next(stream)
    os.kill(ranks[1], signal.SIGKILL)
    for stream in streams:
        with pytest.raises(EngineDied, match=r"rank \d of 3"):
            for _ in stream:
                pass
    with pytest.raises(EngineDied):
        client.control("stats")
    client.close()
    assert ranks_of(os.getpid()) == before


def test_a_rank_that_dies_at_rest_is_noticed(folder: Path, byte_files: TokenizerFiles) -> None:
    client = LocalClient(lambda: build_loop(config(folder, 2), byte_files), byte_files)
    list(client.generate(ask("a", 3)))
    (rank,) = ranks_of(os.getpid())
    os.kill(rank, signal.SIGKILL)
    with pytest.raises(EngineDied, match=r"rank 1 of 2 was killed by signal 9 \(SIGKILL\)"):
        for _ in range(1_000):
            client.control("stats")
            time.sleep(0.01)
    client.close()


def test_what_cannot_be_divided_is_refused_before_anything_starts(folder: Path) -> None:
    before = ranks_of(os.getpid())
    with pytest.raises(InvalidRequest, match="tensor_parallel: 4: this model's 6 attention heads"):
        build_loop(config(folder, 4))
    with pytest.raises(ModelError):
        build_loop(config(folder / "nothing", 2))
    assert ranks_of(os.getpid()) == before


def test_what_is_refused_late_ends_the_ranks(folder: Path, byte_files: TokenizerFiles) -> None:
    before = ranks_of(os.getpid())
    too_long = EngineConfig(
        ModelOptions(str(folder), "float32", 513, 1),
        device=DeviceOptions("cpu", tensor_parallel=2),
    )
    with pytest.raises(InvalidRequest, match="context_length: 513"):
        build_loop(too_long, byte_files)
    assert ranks_of(os.getpid()) == before


def test_a_rank_that_cannot_start(
    folder: Path, byte_files: TokenizerFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = ranks_of(os.getpid())
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(EngineDied, match=r"rank 1 of 2 ended with exit code 1"):
        build_loop(config(folder, 2), byte_files)
    assert ranks_of(os.getpid()) == before


def test_small_integers_are_not_multiplied_by_torch_on_a_cpu(folder: Path) -> None:
    asked = config(folder, 2)
    with pytest.raises(InvalidRequest, match="dtype: q4 on a CPU is for native code, and several"):
        build_loop(replace(asked, model=replace(asked.model, dtype="q4")))


def test_more_ranks_than_gpus_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(InvalidRequest, match="tensor_parallel: 2 is more than this machine's 1"):
        check_devices(2, "cuda")
    check_devices(2, "cpu")


@pytest.mark.slow
def test_a_rank_that_stands_still_is_not_waited_for_for_ever(
    folder: Path, byte_files: TokenizerFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collectives, "_PATIENCE", timedelta(seconds=2))  # of rank 0 alone
    monkeypatch.setattr(team_module, "_NEWS", 0.2)
    before = ranks_of(os.getpid())
    client = LocalClient(lambda: build_loop(config(folder, 2), byte_files), byte_files)
    (rank,) = [pid for pid in ranks_of(os.getpid()) if pid not in before]
    stream = iter(client.generate(ask("a", 450)))
    next(stream)
    os.kill(rank, signal.SIGSTOP)
    with pytest.raises(EngineDied):
        for _ in stream:
            pass
    client.close()
    assert not is_alive(rank)


PARENT = """
import os, signal, sys
from pathlib import Path
from sapwood.runtime.config import *
from sapwood.runtime.loop import build_loop

loop = build_loop(EngineConfig(
    ModelOptions({folder!r}, "float32", num_threads=1), CacheOptions(256),
    device=DeviceOptions("cpu", tensor_parallel=2)))
print(*loop._backend._team.pids, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.slow
def test_the_ranks_end_with_rank_0(folder: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PARENT.format(folder=str(folder))],
        stdout=subprocess.PIPE,
        text=True,
        timeout=SECONDS,
    )
    assert done.returncode == -signal.SIGKILL
    pids = [int(word) for word in done.stdout.split()]
    assert len(pids) == 1
    eventually(lambda: not any(is_alive(pid) for pid in pids))


def test_an_engine_process_and_its_ranks(folder: Path, byte_files: TokenizerFiles) -> None:
    """As a server has them: the engine in a child, the ranks in children of it."""
    client = ProcessClient(
        "sapwood.runtime.loop:build_loop", (config(folder, 2),), lambda: byte_files
    )
    (rank,) = ranks_of(client.pid)
    stream = iter(client.generate(ask("a", 450)))
    next(stream)
    os.kill(rank, signal.SIGKILL)
    with pytest.raises(EngineDied, match="rank 1 of 2"):
        for _ in stream:
            pass
    client.close()
    assert not is_alive(client.pid)


@pytest.mark.slow
def test_a_killed_engine_process_takes_its_ranks_along(
    folder: Path, byte_files: TokenizerFiles
) -> None:
    client = ProcessClient(
        "sapwood.runtime.loop:build_loop", (config(folder, 2),), lambda: byte_files
    )
    (rank,) = ranks_of(client.pid)
    stream = iter(client.generate(ask("a", 450)))
    next(stream)
    os.kill(client.pid, signal.SIGKILL)
    with pytest.raises(EngineDied):
        for _ in stream:
            pass
    eventually(lambda: not is_alive(rank))
    client.close()


def test_a_ctrl_c_in_the_terminal_reaches_no_rank() -> None:
    team = Team(2)
    try:
        assert all(os.getsid(pid) == pid != os.getsid(0) for pid in team.pids)
    finally:
        team.close()
    assert not any(is_alive(pid) for pid in team.pids)
