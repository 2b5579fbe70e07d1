"""A started peer: ready, asked for works, and surely ended.

Owns: waiting for readiness, and what a session has cost (start, memory). Knows no workload.
"""

import contextlib
import json
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from driver import Driver
from peers import Peer, Server, Worker
from processes import ProcessTree
from work import NotOffered, Outcome, Work, outcome_from_json, to_json

READY_SECONDS = 600.0
WORK_SECONDS = 1800.0
POLL_SECONDS = 0.05


class PeerFailed(Exception):
    """The peer did not start, or ended; the message ends with the end of its log."""


@dataclass(frozen=True)
class Session:
    """`run` raises NotOffered, PeerFailed, or what the client raises where a server refuses."""

    tree: ProcessTree
    ready_seconds: float
    run: Callable[[Work], Outcome]


@contextlib.contextmanager
def session(peer: Peer, log: Path) -> Iterator[Session]:
    """Start `peer`, wait until it is ready, and end it with all its processes in any case.

    Raises PeerFailed where it does not become ready.
    """
    opened = _served(peer, log) if isinstance(peer, Server) else _worker(peer, log)
    with opened as ready:
        yield ready


@contextlib.contextmanager
def _served(server: Server, log: Path) -> Iterator[Session]:
    port = _free_port()
    url = f"http://127.0.0.1:{port}"
    begin = time.perf_counter()
    with _tree(server.command(port), dict(server.env), log) as tree:
        _await_health(url + server.health, tree)
        ready = time.perf_counter() - begin
        with Driver(url, server.dialect) as driver:
            yield Session(tree, ready, driver.run)


@contextlib.contextmanager
def _worker(worker: Worker, log: Path) -> Iterator[Session]:
    begin = time.perf_counter()
    with _tree(worker.command, {}, log, piped=True) as tree:
        _reply(tree, READY_SECONDS)
        ready = time.perf_counter() - begin

        def run(work: Work) -> Outcome:
            commands, _ = tree.pipes
            commands.write(json.dumps(to_json(work)) + "\n")
            commands.flush()
            body = _reply(tree, WORK_SECONDS)
            if "not_offered" in body:
                raise NotOffered(body["not_offered"])
            if "error" in body:
                raise RuntimeError(body["error"])
            return outcome_from_json(body)

        yield Session(tree, ready, run)


@contextlib.contextmanager
def _tree(
    command: list[str], env: dict[str, str], log: Path, *, piped: bool = False
) -> Iterator[ProcessTree]:
    try:
        tree = ProcessTree(command, env, log, piped=piped)
    except OSError as error:
        raise PeerFailed(f"cannot start {command[0]}: {error}") from None
    try:
        yield tree
    finally:
        tree.end()


def _reply(tree: ProcessTree, seconds: float) -> dict[str, Any]:
    """The worker's next line. A worker that takes longer than `seconds` is killed."""
    limit = threading.Timer(seconds, tree.kill)
    limit.start()
    try:
        line = tree.pipes[1].readline()
    finally:
        limit.cancel()
    if not line:
        raise PeerFailed(f"the worker ended\n{tree.log_tail()}")
    body: dict[str, Any] = json.loads(line)
    return body


def _await_health(url: str, tree: ProcessTree) -> None:
    deadline = time.monotonic() + READY_SECONDS
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # no proxy to ourselves
    while time.monotonic() < deadline:
        if tree.exit_status() is not None:
            raise PeerFailed(f"it ended with status {tree.exit_status()}\n{tree.log_tail()}")
        # Refused while nothing listens yet; 503 while the model loads.
        with contextlib.suppress(urllib.error.URLError, OSError):
            with opener.open(url, timeout=10):
                return
        time.sleep(POLL_SECONDS)
    raise PeerFailed(f"not ready after {READY_SECONDS:.0f} s\n{tree.log_tail()}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
