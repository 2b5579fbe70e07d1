"""Which device an engine computes on: decided once, before anything is loaded.

Torch, which takes seconds to import, is asked only where an NVIDIA driver is there.
"""

import importlib.util
import logging
import os
from pathlib import Path
from typing import Final

from .config import ComputeDevice, DeviceOptions
from .errors import InvalidRequest

_log = logging.getLogger(__name__)

# The driver's own doors: one of Linux, one of Linux inside Windows.
_DRIVERS: Final = ("/dev/nvidiactl", "/dev/dxg")
_OLDEST: Final = (8, 0)  # Ampere: the first with bfloat16 and asynchronous copies


def choose_device(options: DeviceOptions) -> ComputeDevice:
    """Raises InvalidRequest where the GPU is asked for and cannot be used, and where an option for
    a GPU is given and there is none."""
    if options.device != "cpu":
        obstacle = gpu_obstacle()
        if obstacle is None:
            return "cuda"
        if options.device == "cuda":
            raise InvalidRequest(f"device: cuda cannot be used: {obstacle}", field="device")
        if has_driver():
            _log.warning("the engine runs on the CPU: %s", obstacle)
    if options.tensor_parallel > 1 and options.device != "cpu":
        raise InvalidRequest(
            f"tensor_parallel: {options.tensor_parallel}: for GPUs, and this machine has none that "
            "can be used; with device cpu as many processes compute, through torch",
            field="tensor_parallel",
        )
    for name in options.given:
        message = f"{name}: for a GPU, and this engine runs on the CPU"
        raise InvalidRequest(message, field=name)
    return "cpu"


def has_driver() -> bool:
    """Is there an NVIDIA driver, and are its GPUs not hidden from this process?"""
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES", "all").strip() in ("", "-1")
    return not hidden and any(Path(path).exists() for path in _DRIVERS)


def gpu_obstacle() -> str | None:
    """Why no GPU of this machine can be used; None: one can."""
    if not has_driver():
        return "this machine has no NVIDIA GPU, or none that this process may see"
    for name, how in (("torch", "torch"), ("triton", "'sapwood[gpu]'")):
        if importlib.util.find_spec(name) is None:
            return f"{name} is not installed (pip install {how})"
    return _torch_obstacle() or _triton_obstacle()


def _torch_obstacle() -> str | None:
    import torch

    if torch.version.cuda is None:
        return f"torch {torch.__version__} is built without CUDA"
    if not torch.cuda.is_available():
        return f"torch {torch.__version__} finds no GPU that works with this driver"
    found = torch.cuda.get_device_capability()
    if found < _OLDEST:
        return (
            f"{torch.cuda.get_device_name()} has compute capability {found[0]}.{found[1]}, and "
            f"{_OLDEST[0]}.{_OLDEST[1]} is the least that the kernels need"
        )
    return None


def _triton_obstacle() -> str | None:
    """It compiles what starts its kernels on this very machine, with the first of them."""
    from triton.runtime import driver

    try:
        driver.active.get_current_target()
    except Exception as error:
        return f"triton, which needs a C compiler and Python's headers, cannot start: {error}"
    return None
