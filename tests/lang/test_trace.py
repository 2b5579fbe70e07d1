"""Graphs of programs, read from their source: what they show, and that nothing runs."""

import json
import random
import time

import pytest

import sapwood as sgl
import sapwood as sw
from sapwood.lang.trace import graph as g
from sapwood.lang.trace.tree import title

EXAMPLES = [("1+1", "2"), ("2+2", "4")]
RULES = "Answer " + "briefly. " * 2


def must_not_run() -> str:
    raise AssertionError("user code ran")


def lines(graph: g.Graph) -> list[str]:
    """The tree without its drawing, and without its head."""
    return [line.lstrip("│├└─ ") for line in str(graph).split("\n")[1:]]


def test_the_tree_of_a_program():
    @sw.function
    def program(s, place, days=3):
        s += sw.system(RULES)
        with s.user():
            s += f"Plan {days} days in {place}."
        s += sw.assistant_begin()
        s += sw.gen("plan", max_tokens=20, stop="\n") + sw.select("mood", ["good", "bad"])
        s += sw.assistant_end()
        with s.var_scope("rest"):
            s += "Why? " + s["plan"]
        return s["mood"]

    assert str(program.trace("Rome")) == (
        "program program(place='Rome', days)\n"
        "├─ system\n"
        "│  └─ text 'Answer briefly. briefly. '\n"
        "├─ user\n"
        "│  ├─ text 'Plan '\n"
        "│  ├─ argument days\n"
        "│  ├─ text ' days in '\n"
        "│  ├─ argument place = 'Rome'\n"
        "│  └─ text '.'\n"
        "├─ assistant\n"
        "│  ├─ gen plan (max_tokens=20, stop='\\n')\n"
        "│  └─ select mood of 'good' | 'bad'\n"
        "├─ scope rest\n"
        "│  ├─ wait for plan\n"
        "│  ├─ text 'Why? '\n"
        "│  └─ variable plan\n"
        "├─ wait for mood\n"
        "└─ return s['mood']"
    )


def helper(state, topic):
    state += "About " + topic
    branches = state.fork(2)
    branches += sw.gen("fact", stop=".")
    return branches


def fork_loop(s):
    forks = s.fork(3)
    for i, (branch, tip) in enumerate(zip(forks, ["a", "b", "c"], strict=True)):
        branch += f"{i}: {tip}" + sw.gen("tip")
    forks.join()


def fork_index(s, n):
    forks = s.fork(n)
    for i in range(n):
        forks[i] += sw.gen(f"tip{i}")
    forks[0] += "first"
    forks.join("concate_and_append")


def fork_spread(s):
    forks = s.fork(2)
    forks += lambda i: f"tip {i}" + sw.gen("tip")
    forks += ["a", sw.gen("b")]
    forks.join()


def fork_in_turn(s):
    for branch in s.fork(2):
        branch += sw.gen("a")
        branch += "Again " + branch["a"]


def fork_in_helper(s, topic):
    helper(s, topic).join()


def fork_copy(s):
    with s.copy() as aside:
        aside += sw.gen("a")


FORKS = {
    fork_loop: """
        fork forks (3)
        branch each
        computed i
        text ': '
        computed tip
        gen tip
        join forks (gather_variable)""",
    fork_index: """
        fork forks (n)
        branch each
        gen tip{...}
        branch 0
        text 'first'
        join forks (concate_and_append)""",
    fork_spread: """
        fork forks (2)
        branch each
        text 'tip '
        computed i
        gen tip
        branch 0
        text 'a'
        branch 1
        gen b
        join forks (gather_variable)""",
    fork_in_turn: """
        fork fork (2)
        branch each
        gen a
        wait for a (before the next branch's turn)
        text 'Again '
        variable a""",
    fork_in_helper: """
        text 'About '
        argument topic
        fork branches (2)
        branch each
        gen fact (stop='.')
        join branches (gather_variable)""",
    fork_copy: """
        fork aside (1)
        branch 0
        gen a
        join aside (gather_variable)""",
}


@pytest.mark.parametrize("body", FORKS, ids=lambda body: body.__name__)
def test_forks(body):
    wanted = [line.strip() for line in FORKS[body].strip().split("\n")]
    assert lines(sw.function(body).trace()) == wanted


def branches(s, flag):
    if flag:
        s += "yes" + sw.gen("a")
    elif s["x"] > 3:
        s += "no"
    s += "A" if flag else sw.gen("b")


def loops(s, items):
    text = ""
    for item in items:
        text += item
        s += "Q: " + item + sw.gen("a")
    i = 0
    while s["a"] != "stop":
        i += 1
        s += str(i)
    s += text


def many(s):
    states = []
    for branch in s.fork(2):
        states.append(branch)
    for state in states:
        state += sw.gen("a")
    found = [state["a"] for state in states]
    s += "; ".join(found)


def formats(s, q):
    s += "{} {name}!".format(q, name="Ada")
    s += "a%sb" % q  # noqa: UP031
    s += "-".join(["x", q, "y"])
    s += json.dumps({"a": 1}, sort_keys=True)


def escapes(s, tool):
    tool(s)
    with s.user():
        s += sw.image("p.png")
    try:
        s += "try"
    except ValueError:
        s += "failed"


CODE = {
    branches: """
        if flag
        then
        text 'yes'
        gen a
        else
        wait for x
        if s['x'] > 3
        then
        text 'no'
        if flag
        then
        text 'A'
        else
        gen b""",
    loops: """
        loop item in items
        text 'Q: '
        computed item
        gen a
        loop while s['a'] != 'stop'
        wait for a
        computed str(i)
        computed text""",
    many: """
        fork fork (2)
        branch each
        gen a
        wait for a
        computed '; '.join(found)""",
    formats: """
        argument q
        text ' '
        text 'Ada'
        text '!'
        computed 'a%sb' % q
        text 'x'
        text '-'
        argument q
        text '-'
        text 'y'
        computed json.dumps({'a': 1}, sort_keys=True)""",
    escapes: """
        unknown: the state is given to tool(s)
        user
        image 'p.png'
        text 'try'
        if an exception
        else
        text 'failed'""",
}


@pytest.mark.parametrize("body", CODE, ids=lambda body: body.__name__)
def test_code(body):
    wanted = [line.strip() for line in CODE[body].strip().split("\n")]
    assert lines(sw.function(body).trace()) == wanted


def test_nothing_of_the_program_runs():
    @sw.function
    def program(s, items):
        must_not_run()
        s += f"{must_not_run()} {items.pop()}"
        s += sw.gen("a", max_tokens=must_not_run())

    items = ["x"]
    graph = program.trace(items)
    assert items == ["x"]
    assert lines(graph)[-1] == "gen a (max_tokens=must_not_run())"


def test_volatile_text_is_told_apart():
    @sw.function
    def program(s, names):
        now = time.time()
        s += f"At {now}: " + str(random.choice(names)) + ", ".join(set(names))
        s += time.strftime("%Y", time.gmtime(0))

    reasons = [(v.volatile, v.unordered) for v in program.trace().walk() if type(v) is g.Computed]
    assert reasons == [
        ("the clock", None),
        ("a random draw", None),
        (None, "the order of a set"),
        (None, None),
    ]


def test_other_names_of_the_module_and_another_program():
    @sgl.function
    def inner(s):
        s += sgl.gen("a")

    @sgl.function
    def outer(s):
        s += sgl.gen_int("n") + inner.run()["a"]

    assert lines(outer.trace()) == ["run inner", "gen_int n", "computed inner.run()['a']"]


def test_arguments_are_checked_and_bound_ones_shown():
    @sw.function
    def program(s, a, b="x"):
        s += a + b

    assert str(program.bind(b="y").trace()).split("\n")[0] == "program program(a, b='y')"
    with pytest.raises(TypeError, match="program: .*'c'"):
        program.trace(c=1)


def test_without_source_it_says_so():
    with pytest.raises(sw.InvalidRequest, match="no source"):
        sw.function(lambda s: None).trace()


def test_mermaid():
    @sw.function
    def program(s, q):
        with s.user():
            s += 'say "hi" ' + q
        forks = s.fork(2)
        forks += sw.gen("a")
        forks.join()
        s += "end" if q else sw.gen("b")

    assert program.trace().mermaid() == (
        "flowchart TD\n"
        'start(["program program"])\n'
        'subgraph n1["user"]\n'
        "n2[\"text 'say #quot;hi#quot; '\"]\n"
        'n3["argument q"]\n'
        "end\n"
        'n4[/"fork forks (2)"\\]\n'
        'n5("each")\n'
        'n6(["gen a"])\n'
        'n7[\\"join forks (gather_variable)"/]\n'
        'n8{"if q"}\n'
        "n9[\"text 'end'\"]\n"
        'n10(["gen b"])\n'
        "start --> n2\n"
        "n2 --> n3\n"
        "n3 --> n4\n"
        "n4 --> n5\n"
        "n5 --> n6\n"
        "n4 --> n7\n"
        "n6 --> n7\n"
        "n7 --> n8\n"
        "n8 --> n9\n"
        "n8 --> n10\n"
    )


def test_every_vertex_has_a_title():
    kinds = g.Vertex.__args__
    names = g.VarName(("a", None))
    samples = {
        "name": names, "text": "t", "body": (), "cases": ((), ()), "options": (), "choices": None,
        "group": 0, "size": "2", "value": None, "place": g.NOWHERE, "in_turn": False, "lanes": (),
        "volatile": None, "unordered": None,
    }  # fmt: skip
    for kind in kinds:
        fields = {name: samples.get(name, "x") for name in kind.__dataclass_fields__}
        assert title(kind(**fields))
