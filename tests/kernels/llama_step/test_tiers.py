"""The native step's tests again for every tier that this machine has."""

import os
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
    status = _native.status()
    if not status.available:
        pytest.skip(status.reason)
    command = [sys.executable, "-m", "pytest", "-x", "-p", "no:cacheprovider", *TESTS]
    answer = subprocess.run(command, env=os.environ, capture_output=True, text=True)
    assert answer.returncode == 0, (answer.stdout + answer.stderr)[-6_000:]
