"""Processes with all that they start: their end, and the memory that they hold together.

Owns: a process tree from its start to its certain end, and its peak memory. Knows no server and no
protocol. Memory is read from /proc, so only where Linux is; elsewhere it is unknown (None).
"""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

_PROC = Path("/proc")
GRACE_SECONDS = 10.0
"""How long a process may take to end by itself before it is killed."""


class ProcessTree:
    """A command in a session of its own; its stderr (and stdout, unless piped) goes to `log`."""

    def __init__(
        self, command: Sequence[str], env: Mapping[str, str], log: Path, *, piped: bool = False
    ) -> None:
        """`piped`: stdin and stdout are text pipes of the caller's. Raises OSError."""
        self.log = log
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
        """Ask the tree to end, then kill what is left of it; all of it is gone on return. Safe to
        call again."""
        known = self.members()
        self._popen.terminate()
        self._await_end(known)
        known += self.members()  # those that were born meanwhile
        self.kill(known)
        self._await_end(known)
        for pipe in (self._popen.stdin, self._popen.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):  # unread input of a process that is gone
                    pipe.close()

    def members(self) -> list[int]:
        return members(self._popen.pid)

    def peak_bytes(self) -> int | None:
        """The most memory that each process of the tree has held, summed; None where there is no
        /proc. It costs the measured processes nothing, but it misses children that have ended, and
        a page that several of them map counts for each."""
        if not _PROC.exists():
            return None
        return sum(map(_high_water_bytes, self.members()))

    def kill(self, known: Sequence[int] = ()) -> None:
        """Kill the tree, and `known` members that it may have let go, at once; from any thread."""
        for pid in {*known, *self.members()}:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def _await_end(self, pids: Sequence[int]) -> None:
        deadline = time.monotonic() + GRACE_SECONDS
        while time.monotonic() < deadline:
            if self._popen.poll() is not None and not any(map(lives, pids)):
                return
            time.sleep(0.02)


def lives(pid: int) -> bool:
    """Whether `pid` still runs: one that has ended and that nobody reaps does not, but one whose
    first thread alone has ended does."""
    try:
        os.kill(pid, 0)
        fields = _stat_fields(pid)
        return fields[0] != "Z" or int(fields[17]) > 1  # proc_pid_stat(5): state, num_threads
    except ProcessLookupError:
        return False
    except OSError:  # no /proc, or gone since
        return not _PROC.exists()


def _stat_fields(pid: int) -> list[str]:
    """State, parent, ...: what follows the name, which may itself hold spaces."""
    return (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()


def members(leader: int) -> list[int]:
    """The processes of the session that `leader` began and all below them, also when `leader` has
    ended; `leader` alone where there is no /proc."""
    if not _PROC.exists():
        return [leader]
    children: dict[int, list[int]] = {}
    waiting = []
    for folder in _PROC.glob("[0-9]*"):
        with contextlib.suppress(OSError):  # gone since the listing
            pid = int(folder.name)
            _, parent, _, session, *_ = _stat_fields(pid)
            children.setdefault(int(parent), []).append(pid)
            if int(session) == leader:
                waiting.append(pid)
    found = set()
    while waiting:
        if (pid := waiting.pop()) not in found:
            found.add(pid)
            waiting += children.get(pid, [])
    return sorted(found)


def _high_water_bytes(pid: int) -> int:
    with contextlib.suppress(OSError):  # gone since the listing
        for line in (_PROC / str(pid) / "status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return 0
