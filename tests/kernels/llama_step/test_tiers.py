"""The native step's tests again for every tier that this machine has, and NEON emulated."""

import os
import platform
import shutil
import subprocess
import sys
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
    options = (*_native._COMMON, "-O2", "-static", "-DSAPWOOD_TIER_NEON=1")
    options = tuple(option for option in options if option != "-shared")
    program = str(tmp_path / "emulated")
    source = str(HERE / "emulated.cpp")
    subprocess.run([compiler, *options, source, "-o", program], check=True)
    answer = subprocess.run([emulator, program], capture_output=True, text=True)
    assert answer.returncode == 0, answer.stdout[-3_000:]
