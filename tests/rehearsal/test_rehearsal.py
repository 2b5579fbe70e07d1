"""The whole GPU path on a GPU that is only pretended: see `gpu.py` for what that shows."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton")

HERE = Path(__file__).parent

needs_compiler = pytest.mark.skipif(shutil.which("c++") is None, reason="no C++ compiler")
pytestmark = [pytest.mark.slow, needs_compiler]


def run(cache: Path, script: str, *arguments: str) -> dict[str, object]:
    environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    environment["TRITON_CACHE_DIR"] = str(cache)
    done = subprocess.run(
        [sys.executable, str(HERE / script), *arguments],
        capture_output=True,
        text=True,
        env=environment,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr[-4_000:]
    found: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_what_would_wait_or_fail_is_refused(tmp_path: Path) -> None:
    outcomes = run(tmp_path, "refusals.py")
    for name, outcome in outcomes.items():
        assert (outcome == "done") == name.startswith("allowed"), f"{name}: {outcome}"


@pytest.mark.parametrize(
    "arguments",
    [
        ("--shape", "smollm2"),
        ("--shape", "8b", "--kv-dtype", "fp8"),
        ("--shape", "7b", "--kv-dtype", "int8", "--no-graphs"),
        ("--shape", "real"),
        ("--shape", "real", "--dtype", "fp8", "--no-graphs"),
    ],
    ids=" ".join,
)
def test_an_engine_serves_without_waiting(arguments: tuple[str, ...], tmp_path: Path) -> None:
    found = run(tmp_path, "engine.py", *arguments)
    assert (found["replays"] == 0) == ("--no-graphs" in arguments)
    assert found["late"] == []  # nobody waits for a kernel to be compiled
    assert isinstance(found["steps"], int) and 10 <= found["steps"] <= 40
