"""`sapwood replay`: recorded programs repeated with no model, and asked again of one."""

import sys
from pathlib import Path

import pytest

import sapwood as sw
from sapwood.runtime.scripted import ScriptedClient
from sapwood.server.cli import main
from sapwood.server.commands import replay
from sapwood.server.commands.run import load

pytestmark = pytest.mark.timeout(60)

PROGRAMS = """
import sapwood as sw

@sw.function
def colour(s, thing, *more, n=1, **rest):
    s += f"The colour of {thing} {more} {n} {rest}:" + sw.gen("x")
    forks = s.fork(2)
    forks += " " + sw.gen("y")
    forks.join()
    s += sw.select("z", ["red", "green"])

@sw.function
def keeps(s, what):
    s += sw.gen("x")

class Space:
    @sw.function
    def inside(s):
        s += sw.gen("x")
"""


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    """Two runs of programs in a file beside it."""
    source = tmp_path / "recorded_colours.py"
    source.write_text(PROGRAMS)
    module = load(source)
    client = ScriptedClient(lambda request: "blue")
    path = tmp_path / "run.jsonl"
    with sw.record(path):
        module.colour.run("sky", 1, 2, n=3, other="a", temperature=0, backend=client).sync()
        module.Space.inside.run(backend=client).sync()
    client.close()
    return path


def told(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, list[str]]:
    """(exit status, lines of stdout and then of stderr)."""
    for name in [name for name in sys.modules if name.startswith("recorded_")]:
        del sys.modules[name]
    status = main(["replay", *map(str, words)])
    out, err = capsys.readouterr()
    return status, [*out.splitlines(), *err.splitlines()]


def test_programs_are_repeated_with_no_model(recording, capsys) -> None:
    assert told(capsys, recording) == (
        0,
        [
            "run 0 colour: as recorded",
            "run 1 Space.inside: as recorded",
            "2 runs, 5 requests: all as recorded",
        ],
    )


NESTED = """
import sapwood as sw

@sw.function
def inner(s, x):
    s += x * 60 + sw.gen("a")
    return s["a"]

@sw.function
def outer(s):
    states = inner.compile().run_batch([{"x": "1"}, {"x": "2"}])
    s += inner.run("3").ret_value + states[0]["a"] + sw.gen("b")
"""


def test_programs_that_programs_call_ask_no_engine_either(
    tmp_path: Path, capsys, monkeypatch
) -> None:
    source = tmp_path / "recorded_nested.py"
    source.write_text(NESTED)
    client = ScriptedClient(lambda request: "blue")
    sw.set_default_backend(client)
    with sw.record(tmp_path / "run.jsonl"):
        load(source).outer.run().sync()
    sw.set_default_backend(None)
    client.close()
    monkeypatch.setattr(sw.Engine, "__init__", lambda *_: pytest.fail("an engine was started"))
    assert told(capsys, tmp_path / "run.jsonl") == (
        0,
        ["run 0 outer: as recorded", "1 runs, 4 requests: all as recorded"],
    )


def test_a_changed_program_is_told_with_its_first_difference(recording, capsys) -> None:
    source = recording.parent / "recorded_colours.py"
    source.write_text(PROGRAMS.replace("The colour", "The color"))
    status, lines = told(capsys, recording)
    assert status == 1
    assert lines[0] == "note: colour was changed since it was recorded"
    assert "after 'The colo' the text was \"ur of sky" in lines[1]
    assert "recorded_colours.py:6" in lines[1]
    assert lines[-1] == "2 runs, 5 requests: not as recorded"


def test_a_program_that_asks_for_less_is_told(recording, capsys) -> None:
    source = recording.parent / "recorded_colours.py"
    source.write_text(PROGRAMS.replace('    s += sw.select("z", ["red", "green"])\n', ""))
    status, lines = told(capsys, recording)
    assert status == 1
    assert "run 0 of 'colour': a recorded select was not repeated" in lines


@pytest.mark.parametrize(
    "before, after, words",
    [
        ("def colour", "def color", "no longer holds a program 'colour'"),
        ("thing", "what", "no longer has a parameter 'thing'"),
    ],
)
def test_programs_that_cannot_be_repeated(recording, capsys, before, after, words) -> None:
    source = recording.parent / "recorded_colours.py"
    source.write_text(PROGRAMS.replace(before, after))
    status, lines = told(capsys, recording)
    assert status == 1
    assert words in lines[-1]


def test_arguments_that_json_does_not_have(tmp_path: Path, capsys) -> None:
    source = tmp_path / "recorded_colours.py"
    source.write_text(PROGRAMS)
    client = ScriptedClient(lambda request: "blue")
    path = tmp_path / "run.jsonl"
    with sw.record(path):
        load(source).keeps.run({1, 2}, backend=client).sync()
    client.close()
    status, lines = told(capsys, path)
    assert status == 1
    assert "was given {1, 2} in what, which a recording cannot hold" in lines[-1]


def test_mistakes(tmp_path: Path, recording: Path, capsys) -> None:
    status, lines = told(capsys, tmp_path / "none.jsonl")
    assert (status, lines) == (1, [f"sapwood: {tmp_path}/none.jsonl: No such file or directory"])
    status, lines = told(capsys, recording, "--dtype", "float32")
    assert (status, lines) == (2, ["sapwood: --dtype is about an engine: it needs --rerun"])
    text = tmp_path / "text.jsonl"
    text.write_text("hello\n")
    status, lines = told(capsys, text)
    assert status == 1
    assert "line 1 is not a recording's" in lines[0]


@pytest.mark.parametrize("answer, status", [("blue", 0), ("blux", 1)])
def test_asking_an_engine_again(recording, capsys, monkeypatch, answer, status) -> None:
    client = ScriptedClient(lambda request: answer)
    monkeypatch.setattr(replay, "launched", lambda config: client)
    got, lines = told(capsys, recording, "--rerun")
    assert got == status
    if status:
        assert "run 0 colour, request 0: token 3 was 101 and is 120" in lines[0]
        assert lines[-1] == "5 requests asked again: 4 came out otherwise"
    else:
        assert lines == ["5 requests asked again: none came out otherwise"]
