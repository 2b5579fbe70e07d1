"""The native step's tests on every tier that this machine has, on emulated NEON, and under the
thread sanitizer."""

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from sapwood import _native

HERE = Path(__file__).parent
TESTS = [
    *sorted(str(path) for path in HERE.glob("test_*.py") if path != Path(__file__)),
    str(HERE.parent.parent / "models" / "test_native_llama.py"),
]


@pytest.mark.slow
@pytest.mark.parametrize("tier", [tier.name for tier in _native.TIERS])
def test_a_tier(tier: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAPWOOD_TIER", tier)
    try:
        status = _native.status()
    except ValueError as lacking:
        pytest.skip(str(lacking))
    if not status.available:
        pytest.skip(status.reason)
    command = [sys.executable, "-m", "pytest", "-x", "-p", "no:cacheprovider", *TESTS]
    answer = subprocess.run(command, env=os.environ, capture_output=True, text=True)
    assert answer.returncode == 0, (answer.stdout + answer.stderr)[-6_000:]


@pytest.mark.slow
@pytest.mark.skipif(platform.machine() == "aarch64", reason="the tests above run on NEON itself")
def test_neon_emulated(tmp_path: Path) -> None:
    compiler, emulator = (shutil.which(n) for n in ("aarch64-linux-gnu-g++", "qemu-aarch64"))
    if not compiler or not emulator:
        pytest.skip(
            "needs aarch64-linux-gnu-g++ and qemu-aarch64 (g++-aarch64-linux-gnu, qemu-user)"
        )
    program = build([compiler], tmp_path, "-static", "-DSAPWOOD_TIER_NEON=1")
    answer = subprocess.run([emulator, program], capture_output=True, text=True)
    assert answer.returncode == 0, answer.stdout[-3_000:]


@pytest.mark.slow
def test_no_data_race(tmp_path: Path) -> None:
    compiler, _ = _native._compiler()
    program = build(compiler, tmp_path, "-fsanitize=thread", "-g", "-DSAPWOOD_TIER_GENERIC=1")
    answer = subprocess.run([program], capture_output=True, text=True)
    assert answer.returncode == 0, (answer.stdout + answer.stderr)[-6_000:]


def build(compiler: Sequence[str], folder: Path, *options: str) -> str:
    """The path of `emulated.cpp` as a program."""
    program = str(folder / "emulated")
    common = [option for option in _native._COMMON if option != "-shared"]
    source = str(HERE / "emulated.cpp")
    command = [*compiler, *common, "-O1", *options, source, "-o", program]
    subprocess.run(command, check=True)
    return program
