"""A rank other than 0: `python -m sapwood.runtime.parallel.worker FD`.

It computes the forward of every step that rank 0 sends, in order, and draws nothing: rank 0 alone
has the requests, the tree and the sampler. It ends with rank 0, whose death is the end of the
socket with the descriptor FD, also while it waits for the others within a step.
"""

import os
import select
import sys
import threading
from multiprocessing.connection import Connection
from typing import Any

from ..child import portable
from .messages import Answer, Build, Failure, Measure, Start
from .packing import unpack


def main(fd: int) -> None:
    os.set_inheritable(fd, False)
    connection: Connection[Any, Any] = Connection(fd)
    threading.Thread(target=_end_with_rank_0, args=(fd,), daemon=True).start()
    try:
        _work(connection)
    except Exception as error:
        _send(connection, Failure(portable(error)))
    # No farewell to the ranks: who waits for this one is to see it gone.
    os._exit(1)


def _work(connection: "Connection[Any, Any]") -> None:
    start = connection.recv()
    assert isinstance(start, Start)
    from .rank import gpu_name, load

    _send(connection, Answer(gpu=gpu_name(start.device, start.rank)))
    backend = load(start)
    while isinstance(question := connection.recv(), Measure):
        _send(connection, Answer(free_bytes=backend.free_bytes(question.schedule)))
    assert isinstance(question, Build)
    runner = backend.build(question.resolved)
    _send(connection, Answer())
    while True:
        runner.launch(unpack(connection.recv_bytes()))


def _end_with_rank_0(fd: int) -> None:
    hangup = select.poll()
    hangup.register(fd, 0)  # nothing but the other end's closing
    hangup.poll()
    os._exit(1)


def _send(connection: "Connection[Any, Any]", message: Answer | Failure) -> None:
    try:
        connection.send(message)
    except OSError:
        pass  # rank 0 is gone, and so is this process in a moment


if __name__ == "__main__":
    main(int(sys.argv[1]))
