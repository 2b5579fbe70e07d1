"""A program's variables as futures.

Owns: one variable's value, meta info and streamed pieces. Written by its executor (or by `set_var`)
under the run's lock; shared by a branch and its forks.
"""

from dataclasses import dataclass, field
from typing import Any

from ..runtime.errors import InvalidRequest
from ..runtime.protocol import Chunk, LogprobOptions
from .errors import Failure

Meta = dict[str, Any] | list[Any]


@dataclass
class Variable:
    """Settled once it has a value or a failure; never both, never changed afterwards."""

    name: str | None
    value: Any = None
    meta: Meta | None = None
    failure: Failure | None = None
    settled: bool = False
    request_id: str = ""
    logprobs: LogprobOptions | None = None  # what its generation was asked to report
    chunks: list[Chunk] = field(default_factory=list)  # of the first sample, as they arrive

    def set(self, value: Any, meta: Meta | None = None) -> None:
        self.value, self.meta, self.settled = value, meta, True

    def fail(self, failure: Failure) -> None:
        if not self.settled:
            self.failure, self.settled = failure, True


def check_name(name: object) -> None:
    if not isinstance(name, str):
        raise InvalidRequest(f"name: {name!r} is not a text", field="name")
