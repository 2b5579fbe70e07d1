"""The real model computed by several processes says what it says in one; and behind a server."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import sapwood as sw

SECONDS = 120.0
# SmolLM2-135M has 9 heads, 3 key-value heads and 1,536 inner columns: three ranks, and not two.
RANKS = 3


@pytest.mark.slow
def test_the_same_tokens_as_in_one_process() -> None:
    prompts = [f"{number}. The capital of {place} is" for number, place in PLACES]
    greedy = {"temperature": 0, "max_new_tokens": 20}
    seeded = {"temperature": 0.8, "top_p": 0.95, "max_new_tokens": 20, "sampling_seed": 5}
    shaped = seeded | {"max_new_tokens": 24, "regex": r"[A-Z][a-z]+(, [a-z]+){2,4}\."}

    def answers(**options: Any) -> list[Any]:
        with sw.Engine(
            device="cpu", dtype="float32", max_tokens_in_cache=4_096, **options
        ) as engine:
            said = [engine.generate(prompts, params) for params in (greedy, seeded, shaped)]
            again = engine.generate(prompts[0] + " not", greedy)  # a prefix, and a copied page
            engine.check_integrity()
            return [
                (answer["output_ids"], answer["meta_info"]["cached_tokens"])
                for some in (*said, [again])
                for answer in some
            ]

    together = answers(tensor_parallel=RANKS)
    alone = answers()
    assert [ids for ids, _ in together] == [ids for ids, _ in alone]
    assert together[-1][1] == alone[-1][1] > 0


PLACES = tuple(enumerate(("France", "Peru", "Kenya", "Japan"), 1))


@pytest.mark.slow
def test_a_server_whose_rank_is_killed_ends_for_its_supervisor(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "sapwood", "serve", "--port", "0", "--dtype", "float32"]
    options = ["--device", "cpu", "--tensor-parallel", str(RANKS), "--max-tokens-in-cache", "1024"]
    with subprocess.Popen(
        [*command, *options], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as server:
        try:
            assert server.stdout is not None
            heard = ""
            while not re.search(r"ready: .* at http", heard):
                line = server.stdout.readline()
                assert line, heard
                heard += line
            ranks = _ranks_below(server.pid)
            assert len(ranks) == RANKS - 1
            os.kill(ranks[0], signal.SIGKILL)
            rest = server.communicate(timeout=SECONDS)[0]  # nobody asks for anything
        finally:
            with contextlib.suppress(ProcessLookupError):
                server.kill()
    assert server.returncode == 1
    assert re.search(r"the engine died: .*rank 1 of 3 was killed by signal 9 \(SIGKILL\)", rest)
    deadline = time.monotonic() + SECONDS
    while any(Path(f"/proc/{pid}").exists() for pid in ranks):
        assert time.monotonic() < deadline, "a rank outlived the server"
        time.sleep(0.05)


def _ranks_below(pid: int) -> list[int]:
    """The ranks among the processes that this one has started, in the order of their numbers."""
    parents: dict[int, int] = {}
    commands: dict[int, bytes] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):
                stat = (folder / "stat").read_text().rsplit(")", 1)[1].split()
                parents[int(folder.name)] = int(stat[1])
                commands[int(folder.name)] = (folder / "cmdline").read_bytes()
    below = {pid}
    for _ in range(3):
        below |= {child for child, parent in parents.items() if parent in below}
    return sorted(child for child in below if b"parallel.worker" in commands.get(child, b""))
