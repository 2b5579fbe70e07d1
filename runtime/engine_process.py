"""The engine as a process of its own: `python -m sapwood.runtime.engine_process FD`.

Owns: the child's end of the socket whose descriptor is FD. It ends with its parent, whose death is
the end of the socket. Knows no text: the parent tokenizes.
"""

import importlib
import os
import sys
import threading
import time
from multiprocessing.connection import Connection
from typing import Any, Final

from .child import portable
from .shell import Inbox, Loop, serve
from .wire import Boot, Died, Failed, FromEngine, Ready

_GRACE: Final = 10.0  # seconds for a step that runs when the parent is gone


def main(fd: int) -> None:
    os.set_inheritable(fd, False)  # the parent waits for the end of the socket
    connection: Connection[Any, Any] = Connection(fd)
    try:
        loop = _build(connection.recv())
    except EOFError:  # the parent is gone already
        return
    except Exception as error:
        _send(connection, Died(portable(error)))
        return
    inbox = Inbox()
    reader = threading.Thread(target=_read, args=(connection, inbox), daemon=True)
    _send(connection, Ready(loop.info))
    reader.start()
    death = serve(loop, inbox, lambda messages: _emit(connection, messages))
    if isinstance(death.__cause__, Exception):
        _send(connection, Died(portable(death.__cause__)))


def _build(boot: Boot) -> Loop:
    module, _, name = boot.factory.partition(":")
    loop: Loop = getattr(importlib.import_module(module), name)(*boot.args)
    return loop


def _read(connection: "Connection[Any, Any]", inbox: Inbox) -> None:
    try:
        while (messages := connection.recv()) is not None:
            inbox.put(messages)
    except (EOFError, OSError):
        pass  # the parent died: end as if it had asked to
    inbox.close()
    time.sleep(_GRACE)  # the main thread ends the process, unless it is stuck
    os._exit(1)


def _emit(connection: "Connection[Any, Any]", messages: list[FromEngine]) -> None:
    _send(
        connection,
        [
            Failed(message.id, portable(message.error)) if isinstance(message, Failed) else message
            for message in messages
        ],
    )


def _send(connection: "Connection[Any, Any]", message: object) -> None:
    try:
        connection.send(message)
    except OSError:
        pass  # the parent is gone; the reader sees it too and ends this process


if __name__ == "__main__":
    main(int(sys.argv[1]))
