"""The real thing: SmolLM2-135M-Instruct in an engine of this process, and behind a server of its
own."""

import json
import os
import re
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

import sapwood as sw


@pytest.fixture(scope="session")
def engine() -> Iterator["sw.Engine"]:
    """float32, so that outputs can be compared token by token."""
    with sw.Engine(dtype="float32", max_tokens_in_cache=32_768) as engine:
        yield engine


@dataclass(frozen=True)
class Server:
    url: str
    process: subprocess.Popen[str]

    def call(self, path: str, body: object = None, timeout: float = 120) -> tuple[int, Any]:
        """(status, parsed JSON) of a GET, or of a POST when there is a body (bytes go as they
        are)."""
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            self.url + path, data=data, headers={"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=timeout) as answer:
                return answer.status, _parse(answer.read())
        except urllib.error.HTTPError as error:
            with error:
                return error.code, _parse(error.read())

    def stats(self) -> dict[str, Any]:
        status, info = self.call("/server_info")
        assert status == 200
        return dict(info["stats"])


def _parse(data: bytes) -> Any:
    return json.loads(data) if data else None


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    port = free_port()
    command = [sys.executable, "-m", "sapwood", "serve", "--port", str(port)]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=dict(os.environ)
    )
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if re.search(rf"http://127\.0\.0\.1:{port}", line):
            break
    else:
        raise AssertionError("the server did not start:\n" + "".join(lines))
    yield Server(f"http://127.0.0.1:{port}", process)
    process.terminate()
    process.communicate(timeout=30)
    assert process.returncode == 0
