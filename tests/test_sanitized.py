"""The native code's own tests again, on a checked build: nothing out of bounds, nothing undefined.

`make sanitize` runs this. The sanitizers' runtimes must be loaded before Python is.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sapwood import _native

FOLDERS = [
    folder
    for name in ("kernels/sample", "kernels/llama_step", "constrained/pushdown")
    if (folder := Path(__file__).parent / name).is_dir()
]
MISTAKES = """
#define EXPORT extern "C" __attribute__((visibility("default")))
EXPORT int past_the_end(const int* values, int count) { return values[count]; }
EXPORT int overflow(const int* values, int count) { return values[0] + 2147483647 + count; }
"""
CALL = """
import ctypes, pathlib, sys
import numpy as np
from sapwood import _native
library = _native.load("mistakes", [pathlib.Path(sys.argv[1])])
values = np.ones(1_000, np.int32)
library[sys.argv[2]](ctypes.c_void_p(values.ctypes.data), len(values))
"""
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not _native.status().available, reason=_native.status().reason),
]


def runtime(name: str) -> str:
    """The path of a sanitizer's runtime, or its bare name where the compiler has none."""
    command = [*_native._compiler()[0], f"-print-file-name={name}"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def run_checked(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Python on a checked build."""
    runtimes = [runtime("libasan.so"), runtime("libubsan.so")]
    if not all(Path(path).is_absolute() for path in runtimes):
        pytest.skip("the compiler has no shared sanitizer runtimes")
    environment = {
        **os.environ,
        "SAPWOOD_SANITIZE": "address,undefined",
        "LD_PRELOAD": " ".join(runtimes),
        "ASAN_OPTIONS": "detect_leaks=0",  # Python keeps what it allocated to the end
        "UBSAN_OPTIONS": "print_stacktrace=1",
    }
    command = [sys.executable, *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True)


@pytest.mark.parametrize(
    ("mistake", "told"),
    [("past_the_end", "heap-buffer-overflow"), ("overflow", "signed integer overflow")],
)
def test_mistakes_are_seen(tmp_path: Path, mistake: str, told: str) -> None:
    source = tmp_path / "mistakes.cpp"
    source.write_text(MISTAKES)
    answer = run_checked("-c", CALL, str(source), mistake)
    assert answer.returncode != 0 and told in answer.stderr


@pytest.mark.parametrize("tier", ["best", "avx2"])
@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_native_code_is_clean(folder: Path, tier: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """avx2: what AMX's tile instructions read and write is not checked, so once more without."""
    if tier != "best":
        monkeypatch.setenv("SAPWOOD_TIER", tier)
        try:
            _native.status()
        except ValueError as lacking:
            pytest.skip(str(lacking))
    answer = run_checked("-m", "pytest", "-x", "-p", "no:cacheprovider", str(folder))
    assert answer.returncode == 0, (answer.stdout + answer.stderr)[-6_000:]
