"""Compile the Triton kernels for GPUs that this machine need not have, as they would be launched.

    python tests/kernels/ahead_of_time.py [--arch 90] [name of a launch ...]

Owns: a Triton driver that compiles and launches nothing. Each function `launch_...` in the modules
of `launches/` calls an op's own launcher with CPU tensors (their contents are never read), so that
the very specialisations are compiled that a GPU would get. Prints one line of JSON for each
kernel: registers, bytes of stack and local memory (0 unless registers spill), shared memory.
"""

import argparse
import contextlib
import importlib.util
import inspect
import json
import os
import re
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

LAUNCHES = Path(__file__).with_name("launches")
# Bytes of shared memory that one block may use (CUDA C++ Programming Guide, table of compute
# capabilities).
MAX_SHARED = {80: 163 << 10, 86: 99 << 10, 89: 99 << 10, 90: 227 << 10}


@dataclass(frozen=True)
class Compiled:
    """One kernel for one architecture. `stack`, `local`: bytes a thread; `shared`: bytes a block,
    and whether that is too much."""

    launch: str
    kernel: str
    arch: int
    num_warps: int
    num_stages: int
    registers: int
    stack: int
    local: int
    shared: int
    fits: bool
    ptx: str = ""


class CompilingDriver:
    """What Triton's compiler asks of a driver, for a GPU of compute capability `arch`."""

    def __init__(self, arch: int) -> None:
        self._arch = arch

    def get_current_target(self) -> Any:
        from triton.backends.compiler import GPUTarget

        return GPUTarget("cuda", self._arch, 32)

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0


@contextlib.contextmanager
def compiling_only(
    arch: int,
    record: Callable[[Any], None],
    check: Callable[[tuple[Any, ...]], None] = lambda arguments: None,
) -> Iterator[None]:
    """Within it a launch has its arguments checked, compiles its kernel, tells `record`, and runs
    nothing."""
    from triton.runtime import driver
    from triton.runtime.jit import JITFunction

    run = JITFunction.run

    def compile_only(self: Any, *args: Any, grid: Any, warmup: bool, **options: Any) -> Any:
        check(args)
        kernel = run(self, *args, grid=grid, warmup=True, **options)
        record(kernel)
        return kernel

    driver.set_active(CompilingDriver(arch))
    JITFunction.run = compile_only
    try:
        yield
    finally:
        JITFunction.run = run


def resource_usage(cubin: bytes) -> dict[str, int]:
    """REG, STACK, SHARED, LOCAL, ... of the one kernel in it, as cuobjdump says."""
    import triton.backends.nvidia

    tool = Path(triton.backends.nvidia.__file__).parent / "bin" / "cuobjdump"
    if not os.access(tool, os.X_OK):  # a wheel unpacked by hand
        tool.chmod(0o755)
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        text = subprocess.run(
            [str(tool), "--dump-resource-usage", file.name], capture_output=True, check=True
        ).stdout.decode()
    return {name: int(value) for name, value in re.findall(r"\b([A-Z]+):(\d+)", text)}


def spilled(kernel: Any) -> str | None:
    """The op whose kernel keeps registers in memory, and how many bytes; None: it does not."""
    usage = resource_usage(kernel.asm["cubin"])
    if not usage["STACK"] and not usage["LOCAL"]:
        return None
    size = usage["STACK"] + usage["LOCAL"]
    return f"{kernel.src.fn.__module__}: {size} bytes, {kernel.src.constants}"


def launches() -> dict[str, Callable[[], None]]:
    """Every launch, as "module.name" without the prefix `launch_`."""
    found: dict[str, Callable[[], None]] = {}
    for path in sorted(LAUNCHES.glob("*.py")):
        spec = importlib.util.spec_from_file_location(f"launches_{path.stem}", path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        for name, function in inspect.getmembers(module, inspect.isfunction):
            if name.startswith("launch_"):
                found[f"{path.stem}.{name.removeprefix('launch_')}"] = function
    return found


def compile_launch(name: str, launch: Callable[[], None], arch: int) -> list[Compiled]:
    """Every kernel that the launch starts, each specialisation once."""
    kernels: dict[str, Any] = {}
    with compiling_only(arch, lambda kernel: kernels.setdefault(kernel.hash, kernel)):
        launch()
    compiled = []
    for kernel in kernels.values():
        usage, metadata = resource_usage(kernel.asm["cubin"]), kernel.metadata
        compiled.append(
            Compiled(
                launch=name,
                kernel=metadata.name,
                arch=arch,
                num_warps=metadata.num_warps,
                num_stages=metadata.num_stages,
                registers=usage["REG"],
                stack=usage["STACK"],
                local=usage["LOCAL"],
                shared=metadata.shared,
                fits=metadata.shared <= MAX_SHARED[arch],
                ptx=kernel.asm["ptx"],
            )
        )
    return compiled


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    options.add_argument("--arch", type=int, default=90, choices=MAX_SHARED)
    options.add_argument("--ptx", type=Path, help="a folder to write each kernel's PTX to")
    options.add_argument("names", nargs="*", help="beginnings of launches' names; none: all")
    given = options.parse_args()
    failed = False
    for name, launch in launches().items():
        if given.names and not name.startswith(tuple(given.names)):
            continue
        try:
            kernels = compile_launch(name, launch, given.arch)
        except Exception:
            traceback.print_exc()
            print(json.dumps({"launch": name, "arch": given.arch, "error": True}), flush=True)
            failed = True
            continue
        for number, kernel in enumerate(kernels):
            if given.ptx:
                given.ptx.mkdir(parents=True, exist_ok=True)
                (given.ptx / f"{name}.{number}.sm{given.arch}.ptx").write_text(kernel.ptx)
            line = {key: value for key, value in asdict(kernel).items() if key != "ptx"}
            print(json.dumps(line), flush=True)
    return int(failed)


if __name__ == "__main__":
    os.environ.pop("TRITON_INTERPRET", None)
    sys.exit(main())
