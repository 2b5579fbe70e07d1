"""Several processes as one backend, and their runners as one runner. This process is rank 0.

Owns: the team of the other ranks. What a rank computes is `TorchBackend`'s.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from ..machine import num_cores, wait_patiently

wait_patiently()  # before torch starts its threads
# ruff: noqa: E402
import torch

from ..backend import Flight, Runner
from ..batch import Batch, Draws, StepResult
from ..config import ComputeDevice, ComputeDtype, EngineConfig, ResolvedConfig, ScheduleOptions
from ..errors import InvalidRequest
from ..models.config import LlamaConfig
from ..models.weights import open_checkpoint
from ..torch_backend import TorchBackend
from .collectives import ProcessesGroup, open_meeting
from .messages import Build, Measure, Start
from .packing import pack
from .rank import gpu_name
from .shard import Shard
from .team import Team


class ParallelBackend:
    """See `Backend`."""

    def __init__(self, own: TorchBackend, config: LlamaConfig, team: Team) -> None:
        self.config = config
        self.dtype: ComputeDtype = own.dtype
        self.device: ComputeDevice = own.device
        self._own = own
        self._team = team

    @classmethod
    def load(cls, path: Path, config: EngineConfig, device: ComputeDevice) -> Self:
        """Start the other ranks and load every rank's slices, all at once.

        Raises ModelError; InvalidRequest where the model or this machine cannot be divided so;
        EngineDied where a rank cannot be started.
        """
        size = config.device.tensor_parallel
        with open_checkpoint(path) as checkpoint:
            whole = Shard(checkpoint.config, 0, size).whole
        check_devices(size, device)
        config = _with_threads(config, device)
        store = open_meeting(size)
        team = Team(size)
        try:
            team.ask([Start(r, size, store.port, path, config, device) for r in range(1, size)])
            names = {gpu_name(device, 0), *(answer.gpu for answer in team.answers())}
            if len(names) > 1:  # each would cut its work in a way of its own
                raise InvalidRequest(
                    f"tensor_parallel: {size}: the GPUs are not alike: {', '.join(sorted(names))}",
                    field="tensor_parallel",
                )
            with team.blamed():
                group = ProcessesGroup.join(
                    *(store, 0, size, torch.device(device)),
                    is_ordered=config.device.deterministic,
                )
            team.on_death(group.abort)
            own = TorchBackend.load(path, config, device, group)
        except BaseException:
            team.close()
            raise
        return cls(own, whole, team)

    def free_bytes(self, schedule: ScheduleOptions) -> int:
        """Of the rank that has the fewest."""
        self._team.ask([Measure(schedule)] * self._team.count)
        with self._team.blamed():
            own = self._own.free_bytes(schedule)
        return min(own, *(answer.free_bytes for answer in self._team.answers()))

    @property
    def bytes_per_token(self) -> int:
        """On CPUs all ranks' together: they share the memory."""
        own = self._own.bytes_per_token
        return own if self.device == "cuda" else own * (self._team.count + 1)

    @property
    def row_cost(self) -> float:
        return self._own.row_cost

    def build(self, resolved: ResolvedConfig) -> "ParallelRunner":
        self._team.ask([Build(resolved)] * self._team.count)
        with self._team.blamed():
            own = self._own.build(resolved)
        self._team.answers()
        return ParallelRunner(own, self._team)

    def check(self) -> None:
        self._team.check()

    def close(self) -> None:
        self._team.close()


class ParallelRunner:
    """See `Runner`. Each step is packed and sent to all ranks, then computed here as everywhere;
    what comes of it is known here alone.

    A step that fails on one rank leaves the others waiting within it: such a failure is the end of
    the engine, and not of one request.
    """

    def __init__(self, own: Runner, team: Team) -> None:
        self.overlaps = own.overlaps
        self._own = own
        self._team = team

    def launch(self, batch: Batch) -> "ParallelFlight":
        self._team.tell(pack(batch))
        with self._team.blamed():
            return ParallelFlight(self._own.launch(batch), self._team)


@dataclass(frozen=True)
class ParallelFlight:
    """See `Flight`. What a device computed while a rank was lost is not a result."""

    own: Flight
    team: Team

    def draw(self, draws: Draws) -> None:
        self.own.draw(draws)

    def collect(self) -> StepResult:
        with self.team.blamed():
            result = self.own.collect()
        self.team.check()
        return result


def check_devices(size: int, device: ComputeDevice) -> None:
    """Raises InvalidRequest where there are too few GPUs."""
    if device == "cuda" and size > torch.cuda.device_count():
        raise InvalidRequest(
            f"tensor_parallel: {size} is more than this machine's {torch.cuda.device_count()} GPUs",
            field="tensor_parallel",
        )


def _with_threads(config: EngineConfig, device: ComputeDevice) -> EngineConfig:
    """The ranks of one processor share its cores."""
    if device == "cuda" or config.model.num_threads is not None:
        return config
    threads = max(num_cores() // config.device.tensor_parallel, 1)
    return replace(config, model=replace(config.model, num_threads=threads))
