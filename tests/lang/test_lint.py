"""What the checker sees and what it leaves alone, its comments, its reports."""

import json
from pathlib import Path

import pytest

import sapwood as sw
from sapwood.lang.lint.checker import Check
from sapwood.lang.lint.report import as_json, as_text
from sapwood.lang.lint.rules import RULES
from sapwood.lang.lint.sarif import as_sarif
from sapwood.lang.lint.subject import Tokens

ROOT = Path(__file__).parents[2]


def found(source: str, check: Check | None = None) -> list[str]:
    """The line and the code of each finding; line 1 is the first one of `source`."""
    text = "import sapwood as sw\n" + source
    return sorted(f"{f.line - 1} {f.code}" for f in (check or Check()).source(text, "p.py"))


def body(*lines: str) -> str:
    """A program of these lines, the first of which is line 3."""
    return "@sw.function\ndef p(s, q):\n" + "".join(f"    {line}\n" for line in lines)


GEN = 's += sw.gen("a", max_tokens=4)'
CASES = {
    "read in a helper": (
        'def ask(t):\n    t += sw.gen("a", stop=".")\n    return t["b"]\n' + body("ask(s)"),
        ["3 SW007"],
    ),
    "set by hand": (body('s["a"] = q', 's += s["a"]'), []),
    "scope": (body('with s.var_scope("a"):', '    s += "x"', 's += s["a"]'), []),
    "set in one case": (body("if q:", f"    {GEN}", 's += s["a"]'), []),
    "set in a later turn": (body("for _ in q:", '    s += s["a"]', f"    {GEN}"), []),
    "name with a number": (
        body("for i in q:", '    s += sw.gen(f"a{i}", max_tokens=1)', 's += s["a0"] + s["b0"]'),
        ["5 SW007"],
    ),
    "reasoning": (
        body(
            f'm = sw.separate_reasoning({GEN[5:]}, model_type="x")',
            "s += m",
            's["a_reasoning_content"]',
        ),
        [],
    ),
    "out of sight": (body("q.run(s)", 's += s["a"]'), []),
    "gathered": (body("f = s.fork(2)", 'f += sw.gen("a", stop=".")', "f.join()", 's["a"]'), []),
    "not gathered": (body("f = s.fork(2)", 'f += sw.gen("a", stop=".")', 's["a"]'), ["5 SW007"]),
    "branches see what was before": (body(GEN, "for b in s.fork(2):", '    b += b["a"]'), []),
    "both sides": (
        body("f = s.fork(2)", 'f += sw.gen("a", stop=".")', GEN, "f.join()"),
        ["6 SW010"],
    ),
    "joined in turns": (
        body("for _ in q:", "    f = s.fork(2)", '    f += sw.gen("a", stop=".")', "    f.join()"),
        ["6 SW010"],
    ),
    "appended, not gathered": (
        body(GEN, "f = s.fork(2)", 'f += sw.gen("a", stop=".")', 'f.join("concate_and_append")'),
        [],
    ),
    "set again in each turn": (body("for _ in q:", f"    {GEN}"), []),
    "set again, read between": (body(GEN, 'print(s["a"])', GEN), []),
    "set again for a reason": (body(GEN, "if q:", f"    {GEN}"), []),
    "read in turn, all": (body("for b in s.fork(2):", "    b += q", "    b.text()"), []),
    "read in turn, some": (
        body("for b in s.fork(2):", '    b += sw.gen("a", stop=".")', "    b.text()"),
        ["5 SW016"],
    ),
    "read by its number": (
        body(
            "f = s.fork(2)",
            "for i in range(2):",
            '    f[i] += sw.gen("a", stop=".")',
            '    f[i]["a"]',
        ),
        ["6 SW016"],
    ),
    "read in a second loop": (
        body(
            "f = s.fork(2)",
            "for b in f:",
            '    b += sw.gen("a", stop=".")',
            "for b in f:",
            '    b["a"]',
        ),
        [],
    ),
    "volatile, but last": (body("import time", 's += "Hi" + str(time.time())', GEN), []),
    "volatile, after an answer": (
        body("import time", GEN, 's += str(time.time()) + "x" * 200'),
        [],
    ),
    "volatile by way of names": (
        "import uuid\n" + body("i = str(uuid.uuid4())[:8]", 's += f"<{i}>" + "x" * 200', GEN),
        ["5 SW001"],
    ),
    "a given time": (
        "import time\n" + body('s += time.strftime("%Y", q) + "x" * 200', GEN),
        [],
    ),
    "keys in any order": (
        "import json\n" + body('s += json.dumps(q) + "x" * 200', GEN),
        ["4 SW002"],
    ),
    "keys in order": (
        "import json\n" + body('s += json.dumps(q, sort_keys=True) + "x" * 200', GEN),
        [],
    ),
    "a run sets the limit": (
        body('s += q + sw.gen("a") + "."') + "p.run_batch([], max_new_tokens=1)\n",
        [],
    ),
    "a turn has its end": (body("s += sw.user(q) + sw.assistant(sw.gen())"), []),
    "a turn goes on": (body('s += sw.assistant(sw.gen() + "!")'), ["3 SW003"]),
    "markers": (
        body("s += sw.assistant_begin()", "s += sw.gen()", "s += sw.assistant_end()"),
        [],
    ),
    "an open turn that forks": (
        body("s += sw.assistant_begin()", "f = s.fork(2)", 'f += sw.gen("a", stop=".")'),
        [],
    ),
    "roles by the case": (
        body("if q:", "    s += sw.user_begin()", "s += q", "if q:", "    s += sw.user_end()"),
        [],
    ),
    "nested roles": (body("with s.user():", "    s += sw.system(q)"), ["4 SW014"]),
    "an end alone": (body("s += sw.user_end()"), ["3 SW014"]),
    "options known by name": (
        'OPTIONS = ["a", "b", "ab"]\n' + body("s += sw.select(choices=OPTIONS)"),
        ["4 SW004"],
    ),
    "choices of a gen": (body('s += sw.gen("x", choices=["1", "1"])'), ["3 SW004"]),
    "regex that is none": (body('s += sw.gen(regex="(")'), ["3 SW012"]),
    "regex of a stop that is none": (body('s += sw.gen(stop_regex=["a", "("])'), ["3 SW012"]),
    "regex of a stop": (body('s += sw.gen(stop_regex="a|b")'), []),
    "a schema out of bounds": (
        "import json\n" + body('s += sw.gen(json_schema=json.dumps({"type": "nothing"}))'),
        [],  # only a run knows what a call returns
    ),
    "a stop that follows": (body('s += sw.gen(regex="[a-z]+[.]?", stop=".")'), []),
    "a stop that a number has": (body('s += sw.gen_int(stop="\\n")'), []),
    "a stop that no number has": (body('s += sw.gen_int(stop=".")'), ["3 SW013"]),
    "a constraint of the module": (
        'LIST = sw.Lark("start: \\"x\\"+")\n' + body('s += sw.gen(constraint=LIST, stop="y")'),
        ["4 SW013"],
    ),
    "never read, but returned": (
        body(GEN, "return s") + 'print(p.run("x").ret_value["b"])\n',
        [],
    ),
    "never read, but the text is": (body(GEN) + "print(p.run('x').text())\n", []),
    "never read, nor is it run": (body(GEN), []),
    "an async program": (
        "@sw.function\nasync def p(s):\n    s += sw.gen('a', stop='.')\n    await s.get('b')\n",
        ["4 SW007"],
    ),
    "no program": ("def p(s):\n    s += s['x']\n", []),
}


@pytest.mark.parametrize("case", CASES)
def test_what_is_found(case):
    source, wanted = CASES[case]
    assert found(source) == wanted


BAD = 's += s["x"] + sw.gen()'
COMMENTS = {
    "none": (body(BAD), ["3 SW003", "3 SW007"]),
    "one": (body(f"{BAD}  # sapwood: ignore[SW003]"), ["3 SW007"]),
    "several": (body(f"{BAD}  # sapwood: ignore[SW003, SW007]"), []),
    "all": (body(f"{BAD}  # sapwood: ignore"), []),
    "another": (body(f"{BAD}  # sapwood: ignore[SW001]"), ["3 SW003", "3 SW007"]),
    "line before": (body("# sapwood: ignore[SW007]", BAD, BAD), ["4 SW003", "5 SW003", "5 SW007"]),
    "within a statement": (
        body("s += (", '    s["x"]  # sapwood: ignore[SW007]', "    + sw.gen()", ")"),
        ["5 SW003"],
    ),
    "a text": (body('"# sapwood: ignore"; ' + BAD), ["3 SW003", "3 SW007"]),
}


@pytest.mark.parametrize("case", COMMENTS)
def test_comments(case):
    source, wanted = COMMENTS[case]
    assert found(source) == wanted


def test_rules_are_chosen_by_code_or_name():
    assert found(body(BAD), Check.of(select=["SW007"])) == ["3 SW007"]
    assert found(body(BAD), Check.of(ignore=["undefined-variable"])) == ["3 SW003"]
    assert found(body(BAD), Check.of(select="SW007")) == ["3 SW007"]
    with pytest.raises(sw.InvalidRequest, match="'SW099'") as error:
        Check.of(select=["SW099"])
    assert error.value.field == "select"


def test_tokens_by_a_tokenizer():
    source = body('s += sw.select(choices=["ﬁ", "fi"])', "import time", "s += str(time.time())")
    merges = Tokens(lambda text: list(text.replace("ﬁ", "fi").encode()))
    assert found(source) == []
    assert found(source, Check(tokens=merges)) == ["3 SW004"]
    late = body("import time", 's += str(time.time()) + "x" * 20', GEN)
    assert found(late) == []
    (finding,) = Check(tokens=merges).source("import sapwood as sw\n" + late, "p.py")
    assert "20 tokens" in finding.message and "about" not in finding.message


def test_a_program_that_is_there():
    forbidden = "no" + "thing"

    @sw.function
    def program(s):
        s += forbidden + sw.gen("a", regex="[0-9]+", stop=forbidden)
        s += s["b"]  # sapwood: ignore[SW007]

    (finding,) = program.check()
    assert (finding.code, finding.file) == ("SW013", __file__)
    assert "'nothing'" in str(finding)
    assert program.check(ignore=["SW013"]) == []


def test_reports():
    findings = Check().source("import sapwood as sw\n" + body("é = 1; " + BAD), "a/p.py")
    assert as_text(findings) == (
        "a/p.py:4:17: SW007 nothing before this sets variable 'x' [undefined-variable]\n"
        "a/p.py:4:26: SW003 this gen has neither stop nor max_tokens nor a constraint "
        "[unbounded-gen]\n"
        "2 findings\n"
    )
    assert as_text([]) == "no findings\n"
    first = json.loads(as_json(findings))[0]
    assert first == {
        "file": "a/p.py",
        "line": 4,
        "column": 17,
        "code": "SW007",
        "name": "undefined-variable",
        "level": "error",
        "message": "nothing before this sets variable 'x'",
    }


def test_sarif():
    """The shape that SARIF 2.1.0 asks for, part by part."""
    findings = Check().source("import sapwood as sw\n" + body(BAD), "a/p.py")
    log = json.loads(as_sarif(findings, RULES, "1.2.3"))
    assert log["version"] == "2.1.0" and log["$schema"].endswith("sarif-2.1.0.json")
    (run,) = log["runs"]
    driver = run["tool"]["driver"]
    assert (driver["name"], driver["version"]) == ("sapwood lint", "1.2.3")
    assert [rule["id"] for rule in driver["rules"]] == [rule.code for rule in RULES]
    for rule in driver["rules"]:
        assert rule["name"].isalpha() and rule["fullDescription"]["text"]
        assert rule["defaultConfiguration"]["level"] in ("error", "warning", "note")
    assert len(run["results"]) == 2
    for result in run["results"]:
        assert driver["rules"][result["ruleIndex"]]["id"] == result["ruleId"]
        assert result["message"]["text"] and result["level"] in ("error", "warning", "note")
        (location,) = result["locations"]
        place = location["physicalLocation"]
        assert place["artifactLocation"]["uri"] == "a/p.py"
        assert place["region"]["startLine"] == 4 and place["region"]["startColumn"] >= 1


EXAMPLES = sorted((ROOT / "examples").rglob("*.py"))


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.name)
def test_no_false_alarm_on_our_examples(file):
    assert Check().source(file.read_text(), str(file)) == []


def test_no_false_alarm_on_programs_of_sglangs_shape():
    """What is found there is so: a loop that waits for each branch, and a parameter `n`."""
    file = ROOT / "tests" / "end_to_end" / "test_sglang_programs.py"
    findings = Check().source(file.read_text(), str(file))
    lines = file.read_text().split("\n")
    assert [(f.code, lines[f.line - 1].strip().partition("(")[0]) for f in findings] == [
        ("SW016", "steps = f.get_meta_info"),
        ("SW016", "assert str"),
        ("SW006", "def parallel_sample"),
    ]
