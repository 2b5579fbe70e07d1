"""`Recording`: a recorded file, read.

Owns: the checks of its form. Immutable; which answers were used is the reader's own business.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..client import Event
from ..errors import InvalidRequest, SapwoodError
from ..protocol import EngineInfo, GenerateRequest, ScoreRequest, Scores
from .encoding import decode, decode_error
from .recorder import FORMAT
from .runs import RunInfo


@dataclass
class Ask:
    """One request with what came back, in order. `refusal`: the call itself raised it."""

    request: GenerateRequest | ScoreRequest
    events: list[Event] = field(default_factory=list)
    scores: Scores | None = None
    refusal: SapwoodError | None = None


@dataclass
class RecordedRun:
    """`number`: its place among the runs, from 0."""

    number: int
    info: RunInfo
    engine: EngineInfo
    asks: list[Ask] = field(default_factory=list)


@dataclass(frozen=True)
class Recording:
    """Written once, by `read`."""

    path: Path
    version: str
    runs: tuple[RecordedRun, ...]

    @classmethod
    def read(cls, path: str | Path) -> "Recording":
        """Raises InvalidRequest, naming the line, for what is no recording; OSError. A last line
        that was cut off, as by a killed process, is left out."""
        try:
            lines = Path(path).read_text(encoding="utf-8").split("\n")
        except UnicodeDecodeError as error:
            raise InvalidRequest(f"{path}: no recording: {error}", field="path") from None
        reader = _Reader()
        version = ""
        for number, line in enumerate(lines, 1):
            if not line:
                continue
            try:
                value = json.loads(line)
                if number == 1:
                    version = _version(value)
                else:
                    reader.take(value)
            except (ValueError, KeyError, TypeError, IndexError) as error:
                if number == len(lines) and number > 1:
                    break
                raise InvalidRequest(
                    f"{path}: line {number} is not a recording's: {error}", field="path"
                ) from error
        if not version:
            raise InvalidRequest(f"{path}: empty, so no recording", field="path")
        return cls(Path(path), version, tuple(reader.runs.values()))


def _version(line: Any) -> str:
    if not isinstance(line, dict) or "sapwood" not in line:
        raise ValueError('it does not begin with {"sapwood": ...')
    if line.get("format") != FORMAT:
        raise ValueError(f"its format is {line.get('format')!r}, this version reads {FORMAT}")
    return str(line["sapwood"])


class _Reader:
    def __init__(self) -> None:
        self.runs: dict[int, RecordedRun] = {}
        self._engines: dict[int, EngineInfo] = {}
        self._asks: dict[int, Ask] = {}

    def take(self, line: Mapping[str, Any]) -> None:
        if "info" in line:
            self._engines[line["engine"]] = decode(line["info"])
        elif "program" in line:
            names = ("program", "file", "source", "arguments", "options", "nested")
            info = RunInfo(**{name: line[name] for name in names})
            engine = self._engines[line["engine"]]
            self.runs[line["run"]] = RecordedRun(len(self.runs), info, engine)
        elif "ask" in line:
            ask = self._asks[line["ask"]] = Ask(decode(line["request"]))
            self.runs[line["run"]].asks.append(ask)
        else:
            self._answer(self._asks[line["answer"]], line)

    def _answer(self, ask: Ask, line: Mapping[str, Any]) -> None:
        if "chunk" in line:
            ask.events.append(decode(line["chunk"]))
        elif "scores" in line:
            ask.scores = decode(line["scores"])
        elif line.get("refused"):
            ask.refusal = decode_error(line["error"])
        else:
            ask.events.append(decode_error(line["error"]))
