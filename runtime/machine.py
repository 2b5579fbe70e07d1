"""What machine this is, as far as the engine's choices depend on it. Standard library only."""

import os
from pathlib import Path

from .._native import cpu_flags

_FAST_BFLOAT16 = frozenset({"avx512_bf16", "amx_bf16", "bf16", "svebf16"})


def wait_patiently() -> None:
    """Let torch's threads spin only shortly after each parallel part; call it before torch loads.

    With libgomp's long spin busy neighbours on a small machine make a decode step several times
    slower: everyone spins for a thread that is not running. Figures: `docs/log.md`.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "5000")


def bfloat16_is_fast() -> bool:
    """Has the processor bfloat16 dot products? Without them bfloat16 is slower than float32."""
    return bool(_FAST_BFLOAT16 & cpu_flags())


def free_memory() -> int:
    """Bytes of memory that can be taken without swapping."""
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    pages: int = os.sysconf("SC_AVPHYS_PAGES") if "SC_AVPHYS_PAGES" in os.sysconf_names else 0
    return pages * os.sysconf("SC_PAGE_SIZE") if pages else 4 << 30


def num_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
