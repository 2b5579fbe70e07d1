"""Which runtime a program runs on."""

import sys
import threading
import types

import pytest

import sapwood as sw
from sapwood.lang import backend
from sapwood.lang.backend import DefaultBackend

pytestmark = pytest.mark.timeout(30)


@sw.function
def program(s):
    s += "q" + sw.gen("a")


class Wrapped:
    def __init__(self, client):
        self.client = client


@pytest.fixture(autouse=True)
def default(monkeypatch):
    fresh = DefaultBackend()
    monkeypatch.setattr(backend, "_default", fresh)
    return fresh


def test_a_client_or_what_has_one(scripted):
    client = scripted(["x", "y"])
    assert program.run(backend=client)["a"] == "x"
    assert program.run(backend=Wrapped(client))["a"] == "y"


@pytest.mark.parametrize("thing", [5, "engine", Wrapped(None), object()])
def test_no_back_end_is_a_type_error(thing):
    with pytest.raises(TypeError, match="no back end"):
        program.run(backend=thing)
    with pytest.raises(TypeError, match="no back end"):
        sw.set_default_backend(thing)


def test_the_default_gives_way_to_an_explicit_one(scripted):
    default, other = scripted(["d", "d"]), scripted(["o"])
    sw.set_default_backend(Wrapped(default))
    assert program.run()["a"] == "d"
    assert program.run(backend=other)["a"] == "o"
    assert program.run_batch([{}])[0]["a"] == "d"


class FakeEngine:
    made: list["FakeEngine"] = []
    clients: list = []

    def __init__(self):
        if not self.clients:
            raise RuntimeError("no model")
        self.client = self.clients.pop()
        self.made.append(self)

    def close(self):
        self.client.close()


@pytest.fixture
def fake_engine(monkeypatch):
    module = types.ModuleType("sapwood.runtime.engine")
    module.Engine = FakeEngine
    monkeypatch.setitem(sys.modules, "sapwood.runtime.engine", module)
    FakeEngine.made, FakeEngine.clients = [], []


def test_one_engine_is_started_for_all_who_name_none(scripted, fake_engine):
    FakeEngine.clients = [scripted(lambda r: "x")]
    threads = [threading.Thread(target=lambda: program.run().sync()) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(FakeEngine.made) == 1


def test_an_engine_that_does_not_start_is_tried_again(scripted, fake_engine):
    with pytest.raises(RuntimeError, match="no model"):
        program.run()
    FakeEngine.clients = [scripted(["x"])]
    assert program.run()["a"] == "x"


def test_flush_cache_and_server_info(scripted, fake_engine):
    assert sw.flush_cache() is False
    assert sw.get_server_info() is None
    assert FakeEngine.made == []
    client = scripted([])
    assert sw.flush_cache(client) is True
    assert client.controls == ["flush_cache"]
    sw.set_default_backend(client)
    assert sw.flush_cache() is True
    info = sw.get_server_info()
    assert info["model"] == "scripted"
    assert info["num_requests"] == 0
