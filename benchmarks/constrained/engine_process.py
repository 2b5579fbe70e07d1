"""A worker as its parent sees it: started, asked for one case at a time, replaced when it dies.

Owns: the limits on time, and that a crash, a hang or a case over the limit costs that case alone.
Knows no engine and judges nothing.
"""

import json
import tempfile
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self

from corpus import Case
from processes import ProcessTree

READY_SECONDS: Final = 300.0
WALK_SECONDS: Final = 120.0
_LIBRARIES: Final = ("OMP", "OPENBLAS", "MKL", "RAYON")
ONE_THREAD: Final = {f"{library}_NUM_THREADS": "1" for library in _LIBRARIES}


class EngineAbsent(Exception):
    """The engine cannot be started; the message says why."""


@dataclass
class Observed:
    """What one engine did with one case; a part that is missing was not reached.

    `refused`: the engine's message, or what happened instead of an answer. `over_limit`: it was
    stopped because compiling took too long. `failed`: it died or hung after it had compiled.
    """

    seconds: float | None = None  # until the first mask
    refused: str | None = None
    over_limit: bool = False
    failed: str | None = None
    walked: dict[str, Any] = field(default_factory=dict)
    jumped: dict[str, Any] = field(default_factory=dict)


class EngineProcess:
    """Used as a context; `observe` starts a new worker after one that died."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        compile_seconds: float = 20.0,
        walk_seconds: float = WALK_SECONDS,
        log: Path | None = None,
    ) -> None:
        self._command = list(command)
        self._compile_seconds, self._walk_seconds = compile_seconds, walk_seconds
        self._log = log or Path(tempfile.mkstemp(prefix="sapwood-constrained-")[1])
        self._tree: ProcessTree | None = None
        self.version = ""

    def __enter__(self) -> Self:
        """Raises EngineAbsent."""
        try:
            self._start()
        except BaseException:
            self.end()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def end(self) -> None:
        if self._tree is not None:
            self._tree.end()
            self._tree = None

    def observe(self, case: Case) -> Observed:
        tree = self._tree or self._start()
        seen = Observed()
        question = {
            "schema": json.dumps(case.schema, ensure_ascii=False),
            "valid": case.valid,
            "invalid": case.invalid,
        }
        try:
            tree.pipes[0].write(json.dumps(question) + "\n")
            tree.pipes[0].flush()
            self._listen(tree, seen)
        except OSError:
            seen.refused = _ENDED
        if seen.over_limit or seen.failed or seen.refused == _ENDED:
            self.end()
        return seen

    def _listen(self, tree: ProcessTree, seen: Observed) -> None:
        limit = f"more than {self._compile_seconds:.0f} s"
        first = self._reply(tree, self._compile_seconds)
        match first.get("event"):
            case "refused":
                seen.refused = first["message"]
                return
            case "compiled":
                seen.seconds = first["seconds"]
            case "hung":
                seen.refused, seen.over_limit = limit, True
                return
            case _:
                seen.refused = _ENDED
                return
        for part in ("walked", "jumped"):
            body = self._reply(tree, self._walk_seconds)
            if body.get("event") == part:
                setattr(seen, part, {name: v for name, v in body.items() if name != "event"})
                continue
            if body.get("event") == "failed":
                if part == "walked":
                    seen.walked = {"failed": body["message"]}
                return
            what = f"more than {self._walk_seconds:.0f} s" if body else _ENDED
            seen.failed = f"{part}: {what}"
            return

    def _start(self) -> ProcessTree:
        try:
            tree = ProcessTree(self._command, ONE_THREAD, self._log, piped=True)
        except OSError as error:
            raise EngineAbsent(f"cannot start {self._command[0]}: {error}") from None
        self._tree = tree
        first = self._reply(tree, READY_SECONDS)
        if first.get("event") != "ready":
            why = first.get("message") or f"not ready\n{tree.log_tail(5)}"
            raise EngineAbsent(why)
        self.version = first["version"]
        return tree

    def _reply(self, tree: ProcessTree, seconds: float) -> dict[str, Any]:
        """The next line; {"event": "hung"} after `seconds`, {} where the process has ended."""
        late = threading.Event()

        def stop() -> None:
            late.set()
            tree.kill()

        timer = threading.Timer(seconds, stop)
        timer.start()
        try:
            line = tree.pipes[1].readline()
        finally:
            timer.cancel()
        if not line.endswith("\n"):
            return {"event": "hung"} if late.is_set() else {}
        body: dict[str, Any] = json.loads(line)
        return body


_ENDED: Final = "the process ended"
