"""What passes between rank 0 and the others while an engine is set up: frozen, picklable.

Rank 0 asks, each rank answers with an Answer or, for good, with a Failure. Steps come after: packed
(see `packing`), and never answered.
"""

from dataclasses import dataclass
from pathlib import Path

from ..config import ComputeDevice, EngineConfig, ResolvedConfig, ScheduleOptions


@dataclass(frozen=True)
class Start:
    """The first question. Answered before the ranks meet at `port`, where they load the model."""

    rank: int
    size: int
    port: int
    path: Path
    config: EngineConfig
    device: ComputeDevice


@dataclass(frozen=True)
class Measure:
    """How many bytes are free for keys and values?"""

    schedule: ScheduleOptions


@dataclass(frozen=True)
class Build:
    """The last question: make the KV cache and be ready for steps."""

    resolved: ResolvedConfig


Question = Start | Measure | Build


@dataclass(frozen=True)
class Answer:
    gpu: str = ""  # Start's: the name of this rank's
    free_bytes: int = 0  # Measure's


@dataclass(frozen=True)
class Failure:
    """This rank is at its end."""

    error: Exception
