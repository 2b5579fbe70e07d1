"""The figures of a benchmark run: every round's, their medians, and ours next to each peer's.

Owns: what is kept of a run, as plain JSON. Knows no peer's way of running and no layout of tables.
"""

import statistics
from dataclasses import asdict, dataclass, field
from typing import Any, Self

OURS = "sapwood"


@dataclass(frozen=True)
class Measure:
    """One row of figures. `unit` is for the reader; `more_is_better` says which way is good."""

    name: str
    title: str
    unit: str
    more_is_better: bool


READY = Measure("ready", "start to ready", "s", False)
MEMORY = Measure("memory", "peak memory of all processes", "MiB", False)


@dataclass
class Cell:
    """One peer's figures of one measure, a value a round; `notes` say what was wrong or missing."""

    values: list[float] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def median(self) -> float | None:
        return statistics.median(self.values) if self.values else None

    def note(self, text: str) -> None:
        """The same note of several rounds is kept once."""
        if text not in self.notes:
            self.notes.append(text)


@dataclass
class Results:
    """Written only by the run; `facts` are the machine, the versions and the settings."""

    measures: list[Measure]
    facts: dict[str, str]
    absent: dict[str, str]  # peer -> why it is not in the tables
    peers: dict[str, dict[str, Cell]] = field(default_factory=dict)

    def cell(self, peer: str, measure: str) -> Cell:
        """The cell to write to; made where it is not there."""
        return self.peers.setdefault(peer, {}).setdefault(measure, Cell())

    def median(self, peer: str, measure: str) -> float | None:
        cell = self.peers.get(peer, {}).get(measure)
        return cell.median() if cell else None

    def ratio(self, our: str, peer: str, measure: str) -> float | None:
        """Our median by the peer's, whichever way is good."""
        ours, theirs = self.median(our, measure), self.median(peer, measure)
        return ours / theirs if ours is not None and theirs else None

    def ours(self) -> list[str]:
        return [name for name in self.peers if name.startswith(OURS)]

    def others(self) -> list[str]:
        return [name for name in self.peers if not name.startswith(OURS)]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, body: dict[str, Any]) -> Self:
        """The inverse of `to_json`."""
        cells = {
            peer: {name: Cell(**cell) for name, cell in row.items()}
            for peer, row in body["peers"].items()
        }
        measures = [Measure(**each) for each in body["measures"]]
        return cls(measures, body["facts"], body["absent"], cells)
