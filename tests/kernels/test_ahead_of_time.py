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
# Launch and architecture -> bytes a thread keeps on the stack. Two registers, in steps that mix
# decode and prefill over int8 pages on Ampere. Tiles of half as many keys would spare them, and
# cost every such step more.
KNOWN_SPILLS = {("paged_attention.mixed_quantized", 80): 8}
MODULES = sorted(path.stem for path in SCRIPT.with_name("launches").glob("*.py"))


@pytest.mark.slow
@pytest.mark.parametrize("module", MODULES)
def test_kernels_compile_without_spilling(module: str, tmp_path: Path) -> None:
    both = {arch: compiling(module, arch, tmp_path) for arch in (80, 90)}  # side by side
    for arch, process in both.items():
        output, _ = process.communicate(timeout=1_200)
        errors = (tmp_path / f"errors.{arch}").read_text()
        kernels = [json.loads(line) for line in output.splitlines()]
        assert process.returncode == 0, f"sm_{arch}: {errors}"
        assert kernels, f"{module} launches no kernel"
        for kernel in kernels:
            known = KNOWN_SPILLS.get((kernel["launch"], arch), 0)
            assert kernel["local"] == 0 and kernel["stack"] <= known, f"registers spill: {kernel}"
            assert kernel["fits"], f"too much shared memory: {kernel}"
        if module == "any_size":
            names = [(kernel["launch"], kernel["kernel"]) for kernel in kernels]
            assert len(names) == len(set(names)), f"compiled anew for another size: {names}"


def compiling(module: str, arch: int, folder: Path) -> "subprocess.Popen[str]":
    environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    environment["TRITON_CACHE_DIR"] = str(folder / str(arch))
    with (folder / f"errors.{arch}").open("w") as errors:
        return subprocess.Popen(
            [sys.executable, str(SCRIPT), "--arch", str(arch), f"{module}."],
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env=environment,
        )
