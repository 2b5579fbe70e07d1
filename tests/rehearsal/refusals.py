"""What a pretended GPU refuses within a step, and what not: prints one line of JSON."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent))
from gpu import pretended_gpu


def main() -> None:
    outcomes: dict[str, str] = {}
    with pretended_gpu() as gpu:
        x = torch.randn(4, 8, device="cuda")
        pinned = torch.empty(4, 8, pin_memory=True)
        calls: dict[str, Callable[[], object]] = {
            "a CPU operand": lambda: x + torch.ones(8),
            "a value read back": lambda: x.sum().item(),
            "a list": lambda: x.tolist(),
            "a size that depends on values": lambda: x[x > 0],
            "to the host": lambda: x.cpu(),
            "to pageable memory": lambda: torch.zeros(4, 8).copy_(x, non_blocking=True),
            "to pinned memory, awaited": lambda: pinned.copy_(x),
            "from pageable memory": lambda: torch.ones(4).to("cuda", non_blocking=True),
            "made from a list": lambda: torch.tensor([1, 2], device="cuda"),
            "allowed: arithmetic": lambda: (x * 2 + 1).argmax(dim=-1),
            "allowed: to pinned memory": lambda: pinned.copy_(x, non_blocking=True),
            "allowed: from pinned memory": lambda: pinned.to("cuda", non_blocking=True),
            "allowed: filled": lambda: torch.zeros(3, device="cuda"),
        }
        for name, call in calls.items():
            try:
                with gpu.strict():
                    call()
                outcomes[name] = "done"
            except Exception as error:
                outcomes[name] = type(error).__name__
    print(json.dumps(outcomes))


if __name__ == "__main__":
    main()
