"""Recording what a computation launches on a GPU, to launch it again as one.

Knows no model: what is recorded reads and writes tensors that stay where they are.
"""

from collections.abc import Callable
from typing import Final, Protocol

import torch

# Runs before the recorded one: kernels are compiled in the first, and libraries that choose by
# trying have chosen after the second.
_WARM_UPS: Final = 2


class Graphs(Protocol):
    """All recordings of one are replayed one after another: they share the memory in between."""

    def record(self, run: Callable[[], None]) -> Callable[[], None]:
        """`run` now, and what repeats it on what its tensors hold then. `run` waits for nothing on
        the device."""
        ...


class CudaGraphs:
    """See `Graphs`. To be recorded largest first: the others find their memory in what the largest
    has taken."""

    def __init__(self, device: torch.device) -> None:
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._pool = torch.cuda.graph_pool_handle()

    def record(self, run: Callable[[], None]) -> Callable[[], None]:
        current = torch.cuda.current_stream(self._stream.device)
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            for _ in range(_WARM_UPS):
                run()
        current.wait_stream(self._stream)
        graph = torch.cuda.CUDAGraph()
        # The outer one: a recording that fails leaves torch on its stream. Other threads of the
        # process may go on using the device as they like.
        with (
            torch.cuda.stream(current),
            torch.cuda.graph(
                graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"
            ),
        ):
            run()
        return graph.replay
