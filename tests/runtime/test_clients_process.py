"""The engine in a child process: how it starts, how either side's death reaches the other."""

import importlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sapwood.runtime import process as process_module
from sapwood.runtime.errors import EngineDied, EngineError
from sapwood.runtime.models.errors import ModelError
from sapwood.runtime.process import ProcessClient
from sapwood.runtime.protocol import GenerateRequest, SamplingParams, as_prompt
from sapwood.runtime.tokenizer import TokenizerFiles

HERE = str(Path(__file__).parent)
sys.path.append(HERE)
fake_loop = importlib.import_module("fake_loop")

SECONDS = 30.0


@pytest.fixture
def client(byte_files: TokenizerFiles) -> Iterator[ProcessClient]:
    made = ProcessClient("fake_loop:build", (), lambda: byte_files)
    yield made
    made.close()


def ask(text: str, namespace: str = "") -> GenerateRequest:
    return GenerateRequest(as_prompt(text), SamplingParams(max_tokens=5), namespace=namespace)


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def eventually(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.01)


def test_a_killed_child_wakes_everyone(client: ProcessClient) -> None:
    readers = [iter(client.generate(ask("ab", "forever"))) for _ in range(3)]
    for reader in readers:
        assert next(reader).text == "a"
    os.kill(client.pid, signal.SIGKILL)
    for reader in readers:
        with pytest.raises(EngineDied, match=r"killed by signal 9 \(SIGKILL\)"):
            for _ in reader:
                pass
    with pytest.raises(EngineDied):
        client.generate(ask("ab"))
    with pytest.raises(EngineDied):
        client.control("stats")


def test_a_child_that_dies_with_a_request_in_hand(client: ProcessClient) -> None:
    with pytest.raises(EngineDied, match="SIGKILL"):
        list(client.generate(ask("ab", "vanish")))


def test_close_ends_the_child(client: ProcessClient) -> None:
    client.generate(ask("ab", "forever"))
    assert is_alive(client.pid)
    client.close()
    assert not is_alive(client.pid)
    transport: Any = client._transport
    assert transport._process.returncode == 0  # by itself, not killed after the grace time


def test_a_child_that_does_not_hear_is_killed(
    client: ProcessClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process_module, "_GRACE", 0.2)
    stream = client.generate(ask("ab", "stuck"))
    client.close()
    assert not is_alive(client.pid)
    with pytest.raises(EngineDied):
        list(stream)


def test_what_building_raises_is_raised_here(byte_files: TokenizerFiles) -> None:
    with pytest.raises(ModelError, match="model.gguf: not a model"):
        ProcessClient("fake_loop:build_nothing", (), lambda: byte_files)
    with pytest.raises(ModuleNotFoundError, match="no_such_module"):
        ProcessClient("no_such_module:build", (), lambda: byte_files)


def test_what_is_raised_meanwhile_ends_the_child(monkeypatch: pytest.MonkeyPatch) -> None:
    children: list[int] = []

    class Recorded(process_module._EngineChild):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            children.append(self.pid)

    def fail() -> TokenizerFiles:
        assert is_alive(children[0])  # the child is there already, and loads
        raise ModelError("no tokenizer")

    monkeypatch.setattr(process_module, "_EngineChild", Recorded)
    with pytest.raises(ModelError, match="no tokenizer"):
        ProcessClient("fake_loop:build", (), fail)
    assert not is_alive(children[0])


def test_a_child_that_ends_while_building(byte_files: TokenizerFiles) -> None:
    with pytest.raises(EngineError, match="ended with exit code 3 before it was ready"):
        ProcessClient("fake_loop:build_and_vanish", (), lambda: byte_files)


def test_a_ctrl_c_in_the_terminal_does_not_reach_the_child(client: ProcessClient) -> None:
    # A terminal signals its foreground process group; the child is in a session of its own.
    assert os.getsid(client.pid) == client.pid != os.getsid(0)


def test_the_child_has_a_python_of_its_own(client: ProcessClient) -> None:
    assert client.pid != os.getpid()
    assert (
        Path(f"/proc/{client.pid}/cmdline")
        .read_bytes()
        .split(b"\0")[3]
        .endswith(b"runtime.engine_process")
    )


PARENT = """
import os, signal, sys
sys.path.append({here!r})
import text_files
from sapwood.runtime.process import ProcessClient
from sapwood.runtime.protocol import GenerateRequest, as_prompt
client = ProcessClient("fake_loop:build", (), text_files.single_bytes)
stream = client.generate(GenerateRequest(as_prompt("ab"), namespace="forever"))
next(iter(stream))
print(client.pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_the_child_ends_with_its_parent() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PARENT.format(here=HERE)],
        stdout=subprocess.PIPE,
        text=True,
        timeout=SECONDS,
    )
    assert done.returncode == -signal.SIGKILL
    pid = int(done.stdout)
    eventually(lambda: not is_alive(pid))


def test_a_burst_larger_than_the_sockets_buffer_passes(client: ProcessClient) -> None:
    """Both sides write at once, more than the socket holds: neither may wait for the other."""
    prompt = "x" * 2_000
    streams: list[Any] = []

    def submit() -> None:
        streams.extend(client.generate(ask(prompt)) for _ in range(300))

    thread = threading.Thread(target=submit)
    thread.start()
    thread.join(SECONDS)
    assert len(streams) == 300
    assert all(len(list(stream)) == 5 for stream in streams)
