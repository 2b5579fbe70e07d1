"""A group of processes over `torch.distributed`: gloo on CPUs, NCCL on GPUs.

Owns: how ranks find each other, and the order of sums. Knows no model. No process-wide group is
made: a process may hold several engines, and a group of its user's own.
"""

import socket
from datetime import timedelta
from typing import Final, Self

import torch
from torch._C._distributed_c10d import (
    AllgatherOptions,
    AllreduceOptions,
    AllToAllOptions,
    Backend,
    BroadcastOptions,
    Store,
    TCPStore,
    Work,
)
from torch.distributed import ProcessGroup, ProcessGroupGloo

_HOST: Final = "127.0.0.1"
_MEETING: Final = timedelta(seconds=60)  # for all ranks to find each other, once all have loaded
# Ranks wait for each other within a step only. A rank that dies is noticed at once by other means;
# this is for one that is stopped.
_PATIENCE: Final = timedelta(seconds=120)
# Up to this size a sum is one exchange of everything with everyone; beyond, each rank sums a share
# and the sums are exchanged: two latencies, a fraction of the bytes. An estimate, not measured.
_ONE_EXCHANGE: Final = 256 << 10  # bytes of each rank


class ProcessesGroup:
    """See `Group`.

    `is_ordered`: a sum is taken in the order of the ranks in float32 and rounded once to x's dtype,
    whichever way the bytes go. The library's own, without, sums in an order that depends on the
    size of what is summed and on each number's place in it: a request's tokens would depend on what
    is computed beside it.
    """

    def __init__(self, processes: ProcessGroup, rank: int, size: int, is_ordered: bool) -> None:
        self.rank = rank
        self.size = size
        self._is_ordered = is_ordered
        self._processes = processes
        self._to_gather = AllgatherOptions()
        self._to_exchange = AllToAllOptions()
        self._to_broadcast = BroadcastOptions()
        self._to_sum = AllreduceOptions()
        for options in (self._to_gather, self._to_exchange, self._to_broadcast, self._to_sum):
            options.asyncOp = False  # on a GPU: in the stream that computes

    @classmethod
    def join(
        cls, store: Store, rank: int, size: int, device: torch.device, *, is_ordered: bool
    ) -> Self:
        """Meet the other ranks; returns when all have come. Raises RuntimeError when they don't."""
        store.set(f"rank {rank}", "here")
        store.wait([f"rank {other}" for other in range(size)], _MEETING)
        kind, backend = _backend(store, rank, size, device)
        processes = ProcessGroup(store, rank, size)
        processes._set_default_backend(kind)
        processes._register_backend(device, kind, backend)
        group = cls(processes, rank, size, is_ordered)
        # The first exchange sets connections up, which must not happen while a graph is captured.
        group.all_reduce(torch.zeros(1, device=device))
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return group

    def all_reduce(self, x: torch.Tensor) -> torch.Tensor:
        if not self._is_ordered:
            total = x.contiguous()
            _wait(self._processes.allreduce([total], self._to_sum))
            return total
        flat = x.reshape(-1)
        if self.size == 2 or x.nbytes <= _ONE_EXCHANGE:
            return _ordered_sum(self._gathered(flat)).view(x.shape)
        missing = -len(flat) % self.size
        if missing:
            flat = torch.nn.functional.pad(flat, (0, missing))
        shares = torch.empty_like(flat)
        _wait(self._processes.alltoall_base(shares, flat, [], [], self._to_exchange))
        sums = self._gathered(_ordered_sum(shares.view(self.size, -1)))
        return sums.view(-1)[: x.numel()].view(x.shape)

    def all_gather(self, x: torch.Tensor, columns: int) -> torch.Tensor:
        parts = self._gathered(x.reshape(-1)).view(self.size, *x.shape)
        together = parts.transpose(0, 1).reshape(len(x), self.size * x.shape[1])
        return together[:, :columns].contiguous()  # a copy only where the last part was filled up

    def broadcast(self, x: torch.Tensor) -> None:
        _wait(self._processes.broadcast([x], self._to_broadcast))

    def abort(self) -> None:
        """Let go of whoever waits for the others; from any thread. The group is of no use then."""
        self._processes.abort()

    def _gathered(self, flat: torch.Tensor) -> torch.Tensor:
        """[n] -> [size, n]."""
        out = flat.new_empty((self.size, len(flat)))
        work = self._processes._allgather_base(out.view(-1), flat.contiguous(), self._to_gather)
        _wait(work)
        return out


def open_meeting(size: int) -> TCPStore:
    """Rank 0's store, where the ranks of one engine find each other; its port is a free one.

    Listens on this machine alone: whoever reaches a store may write to it.
    """
    listener = socket.create_server((_HOST, 0))
    port = listener.getsockname()[1]
    return TCPStore(
        *(_HOST, port, size, True),
        timeout=_MEETING,
        wait_for_workers=False,
        master_listen_fd=listener.detach(),
    )


def join_meeting(port: int, size: int) -> TCPStore:
    """The other ranks' end of it."""
    return TCPStore(_HOST, port, size, False, timeout=_MEETING)


def _backend(
    store: Store, rank: int, size: int, device: torch.device
) -> tuple[ProcessGroup.BackendType, Backend]:
    if device.type == "cuda":
        from torch.distributed import ProcessGroupNCCL

        nccl = ProcessGroupNCCL.Options()
        nccl._timeout = _PATIENCE
        return ProcessGroup.BackendType.NCCL, ProcessGroupNCCL(store, rank, size, nccl)
    gloo = ProcessGroupGloo._Options()  # type: ignore[attr-defined]
    gloo._devices = [ProcessGroupGloo.create_device(hostname=_HOST)]
    gloo._timeout = _PATIENCE
    return ProcessGroup.BackendType.GLOO, ProcessGroupGloo(store, rank, size, gloo)


def _wait(work: Work | None) -> None:
    """For the exchange; of a GPU only the stream waits, and there is nothing to wait for where the
    exchange runs in it."""
    if work is not None:
        work.wait()


def _ordered_sum(parts: torch.Tensor) -> torch.Tensor:
    """[n, m] -> [m]: one after the other, in float32 whatever the dtype."""
    total = parts[0].float()
    for part in parts[1:]:
        total = total + part
    return total.to(parts.dtype)
