"""Starting, asking and ending the peers of the benchmark: with a server and workers of our own."""

import json
import os
import signal
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import openai
import processes
import pytest
from driver import Dialect, Driver
from peers import WORKERS, Worker
from processes import ProcessTree, lives, members
from sessions import PeerFailed, session
from work import Chats, Completions, Constrained, FirstToken, NotOffered

DIALECT = Dialect({"ignore_eos": True}, regex=lambda work: {"pattern": work.regex}, offers_n=False)


class FakeServer(ThreadingHTTPServer):
    """Answers OpenAI's routes with "ok" and keeps the bodies. `together`: so many requests must be
    there at once before any is answered."""

    daemon_threads = True

    def __init__(self, together: int = 1) -> None:
        super().__init__(("127.0.0.1", 0), FakeRoutes)
        self.bodies: list[dict[str, Any]] = []
        self.together = threading.Barrier(together)


class FakeRoutes(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FakeServer

    def do_GET(self) -> None:
        self._send({"object": "list", "data": [{"id": "m", "object": "model"}]})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.bodies.append(body)
        self.server.together.wait(timeout=20)
        usage = {"prompt_tokens": 5, "completion_tokens": body["max_tokens"], "total_tokens": 0}
        if body.get("stream"):
            chunks = [{"choices": []}, {"choices": [{"index": 0, "text": "ok"}]}]
            events = [f"data: {json.dumps(chunk)}\n\n" for chunk in chunks]
            self._send_bytes("".join([*events, "data: [DONE]\n\n"]).encode(), "text/event-stream")
            return
        reply = {"role": "assistant", "content": "ok"}
        key = {"message": reply} if "messages" in body else {"text": "ok"}
        self._send({"choices": [{"index": 0, "finish_reason": "length", **key}], "usage": usage})

    def _send(self, body: dict[str, Any]) -> None:
        self._send_bytes(json.dumps(body).encode(), "application/json")

    def _send_bytes(self, body: bytes, kind: str) -> None:
        self.send_response(200)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def fake(request: pytest.FixtureRequest) -> Iterator[tuple[FakeServer, Driver]]:
    with FakeServer(getattr(request, "param", 1)) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            with Driver(f"http://127.0.0.1:{server.server_port}", DIALECT) as driver:
                yield server, driver
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize("fake", [3], indirect=True)
def test_completions_are_asked_all_at_once(fake: tuple[FakeServer, Driver]) -> None:
    server, driver = fake
    outcome = driver.run(Completions(("a", "b", "c"), 5, 16))
    assert (outcome.prompt_tokens, outcome.output_tokens) == (15, 48)
    assert sorted(body["prompt"] for body in server.bodies) == ["a", "b", "c"]
    for body in server.bodies:
        assert body["ignore_eos"] is True
        assert (body["model"], body["temperature"], body["max_tokens"]) == ("m", 0.0, 16)


def test_first_tokens_come_one_after_the_other(fake: tuple[FakeServer, Driver]) -> None:
    server, driver = fake
    outcome = driver.run(FirstToken(("a", "b"), 5))
    assert outcome.seconds > 0
    assert [(body["prompt"], body["stream"]) for body in server.bodies] == [
        ("a", True),
        ("b", True),
    ]


@pytest.mark.parametrize("fake", [2], indirect=True)
def test_chats_grow_by_their_answers(fake: tuple[FakeServer, Driver]) -> None:
    server, driver = fake
    outcome = driver.run(Chats((("a", "b"), ("c", "d")), 4))
    assert outcome.output_tokens == 16
    histories = [[message["content"] for message in body["messages"]] for body in server.bodies]
    assert sorted(histories) == [["a"], ["a", "ok", "b"], ["c"], ["c", "ok", "d"]]


@pytest.mark.parametrize(
    ("work", "field", "value"),
    [
        (Constrained(("q",), 9, regex="a+", gbnf="g"), "pattern", "a+"),
        (
            Constrained(("q",), 9, schema={"type": "null"}),
            "response_format",
            {
                "type": "json_schema",
                "json_schema": {"name": "record", "schema": {"type": "null"}},
            },
        ),
    ],
)
def test_constraints_are_sent(
    fake: tuple[FakeServer, Driver], work: Constrained, field: str, value: object
) -> None:
    server, driver = fake
    assert driver.run(work).texts == ("ok",)
    [body] = server.bodies
    assert body[field] == value
    assert "ignore_eos" not in body


def test_what_a_server_does_not_offer_is_not_asked(fake: tuple[FakeServer, Driver]) -> None:
    server, driver = fake
    with pytest.raises(NotOffered):
        driver.run(Completions(("a",), 5, 16, n=8))
    assert not server.bodies


def test_a_failing_server_is_heard(fake: tuple[FakeServer, Driver]) -> None:
    server, driver = fake
    server.together = threading.Barrier(2)
    server.together.abort()  # the handler raises, and the connection closes
    server.handle_error = lambda *_: None  # type: ignore[method-assign]
    with pytest.raises(openai.APIError):
        driver.run(Completions(("a",), 5, 16))


# --- workers -----------------------------------------------------------------------------------

WORKER = f"""
    import os, sys
    sys.path[:0] = [{str(WORKERS)!r}, {str(WORKERS.parent)!r}]
    from pipe import serve, timed
    from work import NotOffered, Outcome

    def do(work):
        print("noise that must not reach the pipe")
        if work.prompts == ("refuse",):
            raise NotOffered("not this")
        if work.prompts == ("fail",):
            raise ValueError("bad")
        if work.prompts == ("die",):
            os._exit(3)
        return Outcome(1.5, len(work.prompts), work.max_tokens)

    serve(do)
"""


def worker(source: str) -> Worker:
    return Worker("w", [sys.executable, "-c", textwrap.dedent(source)], ["true"])


def test_a_worker_does_what_it_can_and_says_what_it_cannot(tmp_path: Path) -> None:
    with session(worker(WORKER), tmp_path / "log") as ready:
        assert ready.ready_seconds > 0
        assert ready.run(Completions(("a", "b"), 1, 7)).output_tokens == 7
        with pytest.raises(NotOffered, match="not this"):
            ready.run(Completions(("refuse",), 1, 1))
        with pytest.raises(RuntimeError, match="ValueError: bad"):
            ready.run(Completions(("fail",), 1, 1))
        assert ready.run(Completions(("a",), 1, 8)).output_tokens == 8
        with pytest.raises(PeerFailed, match="the worker ended"):
            ready.run(Completions(("die",), 1, 1))
    assert ready.tree.exit_status() == 3
    assert "noise" in (tmp_path / "log").read_text()


def test_a_worker_that_does_not_start_shows_its_log(tmp_path: Path) -> None:
    with pytest.raises(PeerFailed, match="no_such_module"):
        with session(worker("import no_such_module"), tmp_path / "log"):
            pass


def test_a_program_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(PeerFailed, match="cannot start"):
        with session(Worker("w", ["/no/such/program"], []), tmp_path / "log"):
            pass


# --- process trees -----------------------------------------------------------------------------


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc")
@pytest.mark.parametrize("stubborn", [False, True], ids=["polite", "stubborn"])
def test_a_tree_ends_with_all_its_processes(
    stubborn: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "GRACE_SECONDS", 0.3)
    trap = "trap '' TERM; " if stubborn else ""
    # The child is in a session of its own, as some servers' workers are.
    script = f"{trap}setsid sleep 300 & sleep 300 & wait"
    tree = ProcessTree(["sh", "-c", script], {}, tmp_path / "log")
    known = _eventually_three(tree)
    peak = tree.peak_bytes()
    tree.end()
    assert not [pid for pid in known if lives(pid)]
    assert peak is not None and peak > 3 * 2**16  # three programs
    tree.end()


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc")
def test_children_of_a_process_that_died_are_found(tmp_path: Path) -> None:
    tree = ProcessTree(["sh", "-c", "sleep 300 & sleep 300 & wait"], {}, tmp_path / "log")
    leader, *orphans = _eventually_three(tree)
    os.kill(leader, signal.SIGKILL)
    tree.end()
    assert not [pid for pid in orphans if lives(pid)]


def _eventually_three(tree: ProcessTree) -> list[int]:
    end = time.monotonic() + 20
    while len(known := tree.members()) < 3:
        assert time.monotonic() < end, "the children did not start"
        time.sleep(0.01)
    return known


def test_a_session_holds_no_stranger() -> None:
    known = members(os.getsid(0))
    assert os.getpid() in known
    assert 1 not in known or os.getsid(0) == os.getsid(1)
