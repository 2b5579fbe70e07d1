"""The routes about the server itself."""

import re
from pathlib import Path
from typing import Any

import pytest

from sapwood.runtime import errors
from sapwood.runtime.scripted_replies import STALL
from sapwood.server import admin, metrics
from sapwood.server.generations import Counts


def test_health(serve: Any) -> None:
    served = serve()
    assert served.call("GET", "/health").json() == {"status": "ok"}
    assert served.call("GET", "/health_generate").status_code == 200
    [request] = served.client.requests
    assert request.sampling.max_tokens == 1
    served.client.die()
    for path in ("/health", "/health_generate"):
        answer = served.call("GET", path)
        assert answer.status_code == 503 and "died" in answer.json()["reason"]


def test_health_of_an_engine_that_hangs(
    serve: Any, monkeypatch: pytest.MonkeyPatch, eventually: Any
) -> None:
    monkeypatch.setattr(admin, "HEALTH_SECONDS", 0.05)
    served = serve([STALL])
    answer = served.call("GET", "/health_generate")
    assert answer.status_code == 503 and "did not answer" in answer.json()["reason"]
    eventually(lambda: len(served.client.aborted) == 1)


def test_models(serve: Any) -> None:
    [model] = serve().call("GET", "/v1/models").json()["data"]
    assert model["id"] == "scripted" and model["object"] == "model"
    assert model["max_model_len"] == 1 << 20


@pytest.mark.parametrize("path", ["/model_info", "/get_model_info"])
def test_model_info(serve: Any, path: str) -> None:
    info = serve(served_model_name="mine").call("GET", path).json()
    assert info["model_path"] == "scripted" and info["served_model_name"] == "mine"
    assert info["is_generation"] is True


@pytest.mark.parametrize("path", ["/server_info", "/get_server_info"])
def test_server_info(serve: Any, path: str) -> None:
    info = serve().call("GET", path).json()
    assert info["page_size"] == 16 and info["stats"]["action"] == "stats"


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_flush_cache(serve: Any, method: str) -> None:
    served = serve()
    assert served.call(method, "/flush_cache").json()["success"] is True
    assert served.client.controls == ["flush_cache"]


@pytest.mark.parametrize("body", [{}, {"rid": ""}, {"rid": "x", "abort_all": True}])
def test_abort_must_say_what(serve: Any, body: Any) -> None:
    answer = serve().post("/abort_request", body)
    assert answer.status_code == 400 and "rid" in answer.json()["error"]["message"]


def test_engine_statistics_that_only_grow_are_counters() -> None:
    stats = {"steps": 3, "preemptions": 1, "pages_total": 9, "requests_running": 2}
    lines = metrics.exposition(Counts(), 0, stats).splitlines()
    assert {"sapwood_engine_steps_total 3", "sapwood_engine_pages 9"} <= set(lines)
    for name, kind in [line.split()[2:] for line in lines if line.startswith("# TYPE")]:
        assert (kind == "counter") == name.endswith("_total"), name
        assert any(re.match(rf"{name}[ {{]", line) for line in lines)


def test_the_growing_statistics_are_the_engines_own() -> None:
    files = Path(errors.__file__).parent.glob("*.py")
    source = "".join(file.read_text() for file in files if file.name != "scripted.py")
    assert all(f'"{name}":' in source for name in metrics.GROWING)


def test_metrics(serve: Any) -> None:
    served = serve(["abc", ZeroDivisionError("a bug")])
    app = served.app()
    served.app = lambda: app  # counters live in the app
    served.post("/generate", {"text": "ab"})
    served.post("/generate", {"text": "ab"})
    served.post("/generate", {"text": "ab"})  # the script has ended: refused
    answer = served.call("GET", "/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    line = r"# (HELP|TYPE) [a-z_]+ .+|[a-z_]+(\{outcome=\"[a-z]+\"\})? [0-9.]+"
    assert all(re.fullmatch(line, one) for one in answer.text.splitlines())
    assert 'sapwood_requests_total{outcome="finished"} 1\n' in answer.text
    assert 'sapwood_requests_total{outcome="failed"} 1\n' in answer.text
    assert 'sapwood_requests_total{outcome="refused"} 1\n' in answer.text
    assert "sapwood_prompt_tokens_total 2\n" in answer.text
    assert "sapwood_completion_tokens_total 3\n" in answer.text
    assert "sapwood_requests_in_flight 0\n" in answer.text
    assert "sapwood_engine_num_requests 3\n" in answer.text
