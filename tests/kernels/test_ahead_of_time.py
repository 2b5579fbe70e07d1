"""Every kernel compiles for GPUs as it would be launched there, within their registers and shared
memory. Needs no GPU: Triton brings the compiler."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton")

SCRIPT = Path(__file__).with_name("ahead_of_time.py")
MODULES = sorted(path.stem for path in SCRIPT.with_name("launches").glob("*.py"))


@pytest.mark.slow
@pytest.mark.parametrize("arch", [80, 90])
@pytest.mark.parametrize("module", MODULES)
def test_kernels_compile_without_spilling(module: str, arch: int, tmp_path: Path) -> None:
    environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    environment["TRITON_CACHE_DIR"] = str(tmp_path)
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--arch", str(arch), f"{module}."],
        capture_output=True,
        text=True,
        env=environment,
        timeout=1_200,
    )
    kernels = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0, done.stderr
    assert kernels, f"{module} launches no kernel"
    for kernel in kernels:
        assert kernel["local"] == 0 and kernel["stack"] == 0, f"registers spill: {kernel}"
        assert kernel["fits"], f"too much shared memory: {kernel}"
    if module == "any_size":
        names = [(kernel["launch"], kernel["kernel"]) for kernel in kernels]
        assert len(names) == len(set(names)), f"compiled anew for another size: {names}"
