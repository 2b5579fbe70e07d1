"""Graphs of programs that ran: with real arguments, and answers that stand for a model's."""

import json
from typing import Literal

import pytest

import sapwood as sw

pytestmark = pytest.mark.timeout(30)


def test_a_run_is_told_as_it_went():
    calls = []

    @sw.function
    def program(s, names, tool):
        s += sw.system("Be brief.")
        with s.user():
            for name in names:
                s += name + ";"
            s += tool(names)
        with s.var_scope("all"):
            s += sw.assistant(sw.gen("plan", max_tokens=9) + sw.select("mood", ["good", "bad"]))
        forks = s.fork(2)
        forks += lambda i: f"tip {i}:" + sw.gen("tip", regex="[0-9]{3}")
        forks.join()
        if s["mood"] == "bad":
            raise AssertionError("the first option is the answer")
        s += s["plan"] + str(s["tip"])

    def tool(names):
        calls.append(names)
        return "called"

    graph = program.trace(["a", "b"], tool=tool, execute=True)
    assert calls == [["a", "b"]]
    head, *lines = str(graph).split("\n")
    assert head.startswith("program program(names=\"['a', 'b']\", tool='<function")
    assert lines == [
        "├─ system",
        "│  └─ text 'Be brief.'",
        "├─ user",
        "│  ├─ text 'a;'",
        "│  ├─ text 'b;'",
        "│  └─ text 'called'",
        "├─ scope all",
        "│  └─ assistant",
        "│     ├─ gen plan (max_tokens=9)",
        "│     └─ select mood of 'good' | 'bad'",
        "├─ fork #1 (2)",
        "│  ├─ branch 0",
        "│  │  ├─ text 'tip 0:'",
        "│  │  └─ gen tip (constraint=Regex(pattern='[0-9]{3}'))",
        "│  └─ branch 1",
        "│     ├─ text 'tip 1:'",
        "│     └─ gen tip (constraint=Regex(pattern='[0-9]{3}'))",
        "├─ join #1 (gather_variable)",
        "└─ text \"<answer>['000', '000']\"",
    ]
    assert "flowchart" in graph.mermaid()


def test_answers_satisfy_what_is_asked_for():
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}

    @sw.function
    def program(s):
        s += sw.gen("a", json_schema=schema) + sw.gen_int("b") + sw.gen("c", n=2)
        s += sw.gen("d", type=Literal["x", "yy"])
        s["found"] = [json.loads(s["a"]), int(s["b"]), s["c"], s["d"]]
        s += repr(s["found"])

    assert str(program.trace(execute=True)).endswith(
        """text "[{'n': 0}, 0, ['<answer>', '<answer>'], 'x']\""""
    )


def test_an_async_program():
    @sw.function
    async def program(s):
        s += "Q" + sw.gen("a")
        branches = s.fork(2)
        branches += sw.gen("b")
        await branches.join()
        s += await s.get("a")

    lines = str(program.trace(execute=True)).split("\n")
    assert [line.lstrip("│├└─ ") for line in lines[1:]] == [
        *("text 'Q'", "gen a", "fork #1 (2)", "branch 0", "gen b", "branch 1", "gen b"),
        *("join #1 (gather_variable)", "text '<answer>'"),
    ]


def test_on_a_back_end(scripted):
    @sw.function
    def program(s):
        s += sw.gen("a")
        s += s["a"]

    assert str(program.trace(execute=True, backend=scripted(["42"]))).endswith("text '42'")


def test_errors_are_the_programs_own(scripted):
    @sw.function
    def program(s, wrong):
        s += sw.gen("a")
        if wrong:
            raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError, match="mine"):
        program.trace(True, execute=True)
    with pytest.raises(sw.ProgramError, match="boom"):
        program.trace(False, execute=True, backend=scripted([sw.EngineError("boom")]))
    with pytest.raises(TypeError, match="wrong"):
        program.trace(execute=True)
    with pytest.raises(sw.InvalidRequest, match="backend"):
        program.trace(backend=scripted([]))


def test_reading_and_running_say_the_same():
    @sw.function
    def program(s):
        s += sw.user("Hello") + sw.assistant("Yes? " + sw.gen("a", max_tokens=3))
        with s.var_scope("x"):
            s += "end"

    read, ran = (str(program.trace(execute=way)) for way in (False, True))
    assert read == ran


def test_a_trace_is_no_part_of_a_recording(tmp_path):
    @sw.function
    def program(s):
        s += "Q" + sw.gen("a")

    with sw.record(tmp_path / "run.jsonl"):
        seen = str(program.trace(execute=True))
    with sw.replay(tmp_path / "run.jsonl"):
        assert str(program.trace(execute=True)) == seen
    assert len((tmp_path / "run.jsonl").read_text().splitlines()) == 1
