"""The engine on a pretended GPU: python tests/rehearsal/engine.py [--shape 8b] [--no-graphs]

Builds the engine of a model's shape, serves requests of every kind, and prints a line of JSON: how
many steps, launches and replays there were, how many kernels were compiled, and which of them only
when requests waited for it. Whatever would fail on a GPU before a number is computed fails here.
"""

import argparse
import importlib.util
import json
import os
import sys
from collections import Counter
from pathlib import Path
from types import ModuleType
from typing import Any

HERE = Path(__file__).parent


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--shape", choices=("8b", "7b", "smollm2", "real"), default="smollm2")
    parser.add_argument("--dtype", default="auto", help="of the real weights")
    parser.add_argument("--kv-dtype", default="auto")
    parser.add_argument("--no-graphs", action="store_true")
    args = parser.parse_args()
    os.environ.pop("TRITON_INTERPRET", None)
    gpu_module = load(HERE / "gpu.py")
    ahead = load(HERE.parent / "kernels" / "ahead_of_time.py")
    launches: Counter[str] = Counter()
    kernels: dict[str, Any] = {}
    early: set[str] = set()

    def record(kernel: Any) -> None:
        launches[kernel.metadata.name] += 1
        kernels[kernel.hash] = kernel

    serving = load(HERE / "serving.py")
    with (
        gpu_module.pretended_gpu() as gpu,
        ahead.compiling_only(90, record, gpu_module.check_operands),
    ):
        steps = serving.serve(args, gpu, lambda: early.update(kernels))
    print(
        json.dumps(
            {
                "steps": steps,
                "replays": gpu_module._Graph.num_replays,
                "launches": dict(launches),
                "kernels": len(kernels),
                "late": [
                    kernel.metadata.name for hash, kernel in kernels.items() if hash not in early
                ],
                "spilling": [
                    text for kernel in kernels.values() if (text := ahead.spilled(kernel))
                ],
            }
        )
    )


if __name__ == "__main__":
    main()
