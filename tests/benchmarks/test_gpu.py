"""The GPU's benchmark as a program: every part runs through on tiny shapes, and ends in its tables.

Its figures mean nothing on a CPU; that it works does, before somebody with a GPU needs it.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton")

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "gpu.py"


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=1_500)


@pytest.mark.slow
@pytest.mark.parametrize(("part", "num_tables"), [("kernels", 8), ("7b", 1)])
def test_a_part_ends_in_tables(part: str, num_tables: int, tmp_path: Path) -> None:
    done = run("--part", part, "--device", "cpu", "--output", str(tmp_path))
    assert done.returncode == 0, done.stderr[-4_000:]
    (page,) = tmp_path.glob("*.md")
    (data,) = tmp_path.glob("*.json")
    tables = json.loads(data.read_text())["tables"]
    assert len(tables) == num_tables and all(table["rows"] for table in tables)
    assert page.read_text().count("\n## ") == num_tables
    assert "a trial on the CPU" in page.read_text()


def test_no_gpu_is_said() -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is one")
    done = run("--part", "kernels")
    assert done.returncode == 2 and "finds no GPU" in done.stderr
