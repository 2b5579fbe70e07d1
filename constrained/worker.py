"""The process in which large constraints are compiled: `python -m sapwood.constrained.worker`.

Reads pickled (spec, limits) messages from standard input and answers each on standard output with a
pickled `Automaton` or `GrammarError`. It may be killed at any time; it ends with its parent, for
it then reads the end of its input.
"""

import os
import pickle
import queue
import signal
import struct
import sys
import threading
from pathlib import Path
from typing import IO, Final

from .limits import CompileLimits
from .lower import lower
from .spec import Constraint

_LENGTH: Final = struct.Struct("<Q")

OUT_OF_MEMORY: Final = 3
"""Exit status of a worker that passed its limit of memory."""

Request = tuple[Constraint, CompileLimits]


def write_message(stream: IO[bytes], message: object) -> None:
    payload = pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
    stream.write(_LENGTH.pack(len(payload)))
    stream.write(payload)
    stream.flush()


def read_message(stream: IO[bytes]) -> object:
    """The next message; raises EOFError where the other side is gone."""
    header = stream.read(_LENGTH.size)
    if len(header) < _LENGTH.size:
        raise EOFError("the stream ended")
    (length,) = _LENGTH.unpack(header)
    payload = stream.read(length)
    if len(payload) < length:
        raise EOFError("the stream ended inside a message")
    return pickle.loads(payload)


def _answer(request: Request) -> object:
    spec, limits = request
    try:
        return lower(spec, limits)
    except ValueError as error:  # GrammarError and its children, which the parent raises again
        return error


def _limit_memory(megabytes: int) -> None:
    """Allow so many MiB of address space beyond what the process has now (Linux only)."""
    if not sys.platform.startswith("linux"):
        return  # there the limits of states and time bound a compilation
    import resource

    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + megabytes * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))


def _read_requests(stream: IO[bytes], requests: "queue.SimpleQueue[Request]") -> None:
    try:
        while True:
            requests.put(read_message(stream))  # type: ignore[arg-type]
    except EOFError:
        os._exit(0)  # the parent is gone; whatever is being compiled, nobody waits for it


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # an interrupt is the parent's to handle
    # The answers have a descriptor of their own, so that nothing printed gets among them.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    requests: queue.SimpleQueue[Request] = queue.SimpleQueue()
    reader = threading.Thread(target=_read_requests, args=(sys.stdin.buffer, requests), daemon=True)
    reader.start()
    _limit_memory(int(sys.argv[1]))
    while True:
        request = requests.get()
        try:
            write_message(answers, _answer(request))
        except (MemoryError, SystemError):  # CPython reports a failed allocation as either
            os._exit(OUT_OF_MEMORY)


if __name__ == "__main__":
    main()
