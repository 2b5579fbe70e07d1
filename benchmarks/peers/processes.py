"""Processes with all that they start: their end, and the memory that they hold together.

Owns: a process tree from its start to its certain end, and its peak memory. Knows no server and no
protocol. Memory is read from /proc, so only where Linux is; elsewhere it is unknown (None).
"""

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

SAMPLE_SECONDS = 0.25
GRACE_SECONDS = 10.0
"""How long a process may take to end by itself before it is killed."""


class ProcessTree:
    """A command in a session of its own; its stderr (and stdout, unless piped) goes to `log`."""

    def __init__(
        self, command: Sequence[str], env: Mapping[str, str], log: Path, *, piped: bool = False
    ) -> None:
        """`piped`: stdin and stdout are text pipes of the caller's. Raises OSError."""
        self.log = log
        self.peak_bytes: int | None = None
        with log.open("a") as file:
            self._popen = subprocess.Popen(
                command,
                env={**os.environ, **env},
                stdin=subprocess.PIPE if piped else subprocess.DEVNULL,
                stdout=subprocess.PIPE if piped else file,
                stderr=file,
                text=True,
                start_new_session=True,
            )
        self._ended = threading.Event()
        self._sampler = threading.Thread(target=self._sample, daemon=True)
        self._sampler.start()

    @property
    def pipes(self) -> tuple[IO[str], IO[str]]:
        """What the process reads and what it writes."""
        assert self._popen.stdin is not None and self._popen.stdout is not None
        return self._popen.stdin, self._popen.stdout

    def exit_status(self) -> int | None:
        """None while it runs."""
        return self._popen.poll()

    def log_tail(self, lines: int = 15) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def end(self) -> None:
        """Ask the tree to end, then kill what is left of it. Safe to call again."""
        self._ended.set()
        self._sampler.join()
        members = descendants(self._popen.pid)
        _signal(self._popen.pid, signal.SIGTERM)
        deadline = time.monotonic() + GRACE_SECONDS
        while time.monotonic() < deadline and any(map(_lives, members)):
            self._popen.poll()  # reaps, so that the process is seen to be gone
            time.sleep(0.05)
        self.kill(members)
        self._popen.wait()
        for pipe in (self._popen.stdin, self._popen.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):  # unread input of a process that is gone
                    pipe.close()

    def kill(self, members: Sequence[int] = ()) -> None:
        """Kill the tree, and `members` that it may have let go, at once; from any thread."""
        for member in {*members, *descendants(self._popen.pid)}:
            _signal(member, signal.SIGKILL)

    def _sample(self) -> None:
        while True:
            held = resident_bytes(descendants(self._popen.pid))
            if held is not None:
                self.peak_bytes = max(self.peak_bytes or 0, held)
            if self._ended.wait(SAMPLE_SECONDS):
                return


def _signal(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def _lives(pid: int) -> bool:
    """Whether `pid` still runs: one that has ended and that nobody reaps does not."""
    try:
        os.kill(pid, 0)
        return _stat_fields(pid)[0] != "Z"
    except ProcessLookupError:
        return False
    except OSError:  # no /proc, or gone since
        return not Path("/proc").exists()


def _stat_fields(pid: int) -> list[str]:
    """State, parent, ...: what follows the name, which may itself hold spaces."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def descendants(root: int) -> list[int]:
    """`root` and every process below it, or `root` alone where there is no /proc."""
    children: dict[int, list[int]] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # gone since the listing
            pid = int(folder.name)
            children.setdefault(int(_stat_fields(pid)[1]), []).append(pid)
    found, waiting = [], [root]
    while waiting:
        found.append(waiting.pop())
        waiting += children.get(found[-1], [])
    return found


def resident_bytes(pids: Sequence[int]) -> int | None:
    """Resident memory of all `pids`; a page that several of them map counts for each. None where
    there is no /proc."""
    if not Path("/proc/self/statm").exists():
        return None
    pages = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            pages += int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
