"""What an error of the device means: too little memory for this step, or the end of the process.

Every other error is a fault of what was computed, and the engine goes on without it.
"""

from typing import Final

import torch

# Libraries that allocate by themselves say it in these words.
_NO_MEMORY: Final = ("out of memory", "ALLOC_FAILED", "can't allocate memory")
# After such an error no kernel of this process runs any more (CUDA's errors are sticky).
_FATAL: Final = ("CUDA error", "CUDA driver error", "Triton Error [CUDA]", "NCCL")


def is_out_of_memory(error: Exception) -> bool:
    if isinstance(error, torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _NO_MEMORY)


def is_fatal(error: Exception) -> bool:
    if isinstance(error, torch.AcceleratorError):
        return not is_out_of_memory(error)
    is_of_device = isinstance(error, RuntimeError) and any(words in str(error) for words in _FATAL)
    return is_of_device and not is_out_of_memory(error)


def give_back_memory(device: torch.device) -> None:
    """What torch keeps for later steps, so that the next one can have it in other pieces."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
