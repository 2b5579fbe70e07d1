"""One rank's share of a model: the device that it computes on, its place in the group, its load."""

from ..machine import wait_patiently

wait_patiently()  # before torch starts its threads
# ruff: noqa: E402
import torch

from ..config import ComputeDevice
from ..torch_backend import TorchBackend
from .collectives import ProcessesGroup, join_meeting
from .messages import Start


def gpu_name(device: ComputeDevice, rank: int) -> str:
    """Of the GPU that this rank computes on; "" on a CPU."""
    return torch.cuda.get_device_name(rank) if device == "cuda" else ""


def load(start: Start) -> TorchBackend:
    """Meet the others, then read this rank's slices of the checkpoint."""
    if start.device == "cuda":
        torch.cuda.set_device(start.rank)  # what "cuda" means in this process from now on
    store = join_meeting(start.port, start.size)
    group = ProcessesGroup.join(
        *(store, start.rank, start.size, torch.device(start.device)),
        is_ordered=start.config.device.deterministic,
    )
    return TorchBackend.load(start.path, start.config, start.device, group)
