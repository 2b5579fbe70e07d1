"""The GPU path beside the GPU's own limits and beside others, one part at a time.

    python benchmarks/gpu.py --part kernels|8b|7b|small [--output benchmarks/results]

kernels: correctness in bfloat16 against float64, then each kernel's GB/s or TFLOP/s as a share of
what copies and matrix products reach in the same run, beside torch's SDPA, flex_attention and,
where installed, FlashInfer. 8b, 7b, small: the engine end to end on a model's shape with random
weights (Llama-3.1-8B, Qwen2-7B, SmolLM2-135M), beside transformers' continuous batching. Every part
ends in tables, printed and written to `--output`; it is meant to take less than 8 minutes.

`--device cpu` tries the program on tiny shapes in Triton's interpreter; such figures mean nothing.
"""

import argparse
import os
import sys
import time
from pathlib import Path

PART_SECONDS = 8 * 60
PARTS = ("kernels", "8b", "7b", "small")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--part", choices=PARTS, required=True)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results")
    args = parser.parse_args()
    if args.device == "cpu":
        os.environ["TRITON_INTERPRET"] = "1"  # read when Triton is imported, below
    import torch

    if args.device == "cuda" and not torch.cuda.is_available():
        print("gpu.py: torch finds no GPU here; --device cpu tries the program", file=sys.stderr)
        return 2
    return _run(args.part, args.device, args.output)


def _run(part: str, device_name: str, output: Path) -> int:
    from on_gpu import kernels, models, report
    from on_gpu.device import Device
    from on_gpu.end_to_end import tables as end_to_end

    from sapwood.kernels import implementation

    if device_name == "cpu":
        implementation.is_triton = lambda x: True

    deadline = time.monotonic() + PART_SECONDS
    device = Device(device_name)
    facts = device.describe()
    limits = device.limits()
    facts["copy bandwidth"] = f"{limits.bandwidth / 1e9:,.0f} GB/s (read and written)"
    facts["bfloat16 GEMM rate"] = f"{limits.rate / 1e12:,.0f} TFLOP/s"
    print("\n".join(f"{key}: {value}" for key, value in facts.items()), flush=True)
    if part == "kernels":
        tables = kernels.tables(device, limits)
    else:
        shape = {
            "8b": models.Shape("Llama-3.1-8B shape", models.LLAMA_8B),
            "7b": models.Shape("Qwen2-7B shape", models.QWEN_7B),
            "small": models.Shape("SmolLM2-135M shape", models.SMOLLM2),
        }[part]
        tables = end_to_end(device, shape, limits, deadline)
    kind = "gpu" if device.is_gpu else "gpu-trial-on-cpu"
    page = report.write(output, f"{kind}-{part}-{facts['date']}", facts, tables)
    print(page.read_text())
    return 0


if __name__ == "__main__":
    sys.exit(main())
