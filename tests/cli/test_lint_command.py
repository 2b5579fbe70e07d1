"""`sapwood lint`: what it prints, its formats, its exit status."""

import json
from pathlib import Path

import pytest

from sapwood.runtime.models.pull import DEFAULT_MODEL
from sapwood.server.cli import main

CLEAN = 'import sapwood as sw\n\n@sw.function\ndef p(s):\n    s += sw.gen(max_tokens=3, stop="x")\n'
BAD = CLEAN + '    s += s["a"]\n'


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "clean.py").write_text(CLEAN)
    (tmp_path / "bad.py").write_text(BAD)
    return tmp_path


def test_text_and_status(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lint", "clean.py"]) == 0
    assert capsys.readouterr().out == "no findings\n"
    assert main(["lint", "clean.py", "bad.py"]) == 1
    assert capsys.readouterr().out == (
        "bad.py:6:10: SW007 nothing before this sets variable 'a' [undefined-variable]\n1 finding\n"
    )
    assert main(["lint", "bad.py", "--ignore", "SW007"]) == 0
    assert main(["lint", "bad.py", "--select", "SW001,SW003"]) == 0


def test_a_folder(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "deep").mkdir()
    (folder / "deep" / "bad.py").write_text(BAD)
    assert main(["lint", "."]) == 1
    files = [line.partition(":")[0] for line in capsys.readouterr().out.split("\n")[:-2]]
    assert files == ["bad.py", "deep/bad.py"]


def test_json_and_sarif(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lint", "bad.py", "--format", "json"]) == 1
    (finding,) = json.loads(capsys.readouterr().out)
    assert (finding["file"], finding["line"], finding["code"]) == ("bad.py", 6, "SW007")
    assert main(["lint", "clean.py", "--format", "sarif", "--select", "SW007"]) == 0
    (run,) = json.loads(capsys.readouterr().out)["runs"]
    assert [rule["id"] for rule in run["tool"]["driver"]["rules"]] == ["SW007"]
    assert run["results"] == []


MISTAKES = {
    "no file": (["missing.py"], "missing.py: no such file or folder"),
    "rule": (["clean.py", "--select", "SW099"], "--select: there is no rule 'SW099'"),
    "format": (["clean.py", "--format", "xml"], "invalid choice: 'xml'"),
    "syntax": (["bad.py", "broken.py"], "broken.py:1: "),
    "encoding": (["latin.py"], "latin.py:1: invalid or missing encoding"),
    "encoding, later on": (["late.py"], "late.py:1: the file is not utf-8"),
    "link": (["bad.py", "."], "link.py: No such file or directory"),
    "NUL": (["nul.py"], "nul.py:1: "),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_mistakes(folder: Path, capsys: pytest.CaptureFixture[str], case: str) -> None:
    (folder / "broken.py").write_text("def p(s:\n")
    (folder / "latin.py").write_bytes(b"x = '\xff'\n")
    (folder / "late.py").write_bytes(b"\n\n\nx = '\xff'\n")
    (folder / "link.py").symlink_to("nowhere")
    (folder / "nul.py").write_bytes(b"x = '\0'\n")
    words, message = MISTAKES[case]
    assert main(["lint", *words]) == 2
    shown = capsys.readouterr()
    assert message in shown.err
    assert ("SW007" in shown.out) == ("bad.py" in words)  # other files are checked all the same


def test_a_declared_encoding(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad = BAD.replace("def p", "def \xe9")
    (folder / "latin.py").write_text("# -*- coding: latin-1 -*-\n" + bad, encoding="latin-1")
    assert main(["lint", "latin.py"]) == 1
    assert "latin.py:7:10: SW007" in capsys.readouterr().out


def test_a_models_own_tokens(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = "import time\n" + CLEAN + "    # later\n"
    late = text.replace("s += ", 's += str(time.time()) + "the sap of the tree " * 8 + ')
    (folder / "late.py").write_text(late)
    assert main(["lint", "late.py", "--model", DEFAULT_MODEL]) == 1
    assert "SW001" in (out := capsys.readouterr().out)
    assert "about" not in out
