"""Forks: what branches share, what joining takes over, what a failed branch does."""

import pytest

import sapwood as sw
from sapwood.runtime.protocol import Ids, Text
from sapwood.runtime.scripted_replies import STALL, Reply
from sapwood.runtime.toy_tokens import encode_prompt

pytestmark = pytest.mark.timeout(30)


def run(body, client, **options):
    return sw.function(body).run(backend=client, **options)


def echo(request):
    """Answers with the last character of its prompt, in capitals."""
    return chr(encode_prompt(request.prompt)[-1]).upper()


ADDITIONS = {
    "text": ("b", ["ab", "ab"]),
    "expression": ("b" + sw.gen("x"), ["abB", "abB"]),
    "function": (lambda i: "pq"[i], ["ap", "aq"]),
    "list": (["p", "q"], ["ap", "aq"]),
    "tuple": (("p", "q" + sw.gen("x")), ["ap", "aqQ"]),
}


@pytest.mark.parametrize("case", ADDITIONS)
def test_adding_to_all_branches(scripted, case):
    added, expected = ADDITIONS[case]

    def body(s):
        s += "a"
        forks = s.fork(2)
        forks += added
        return [fork.text() for fork in forks]

    texts = run(body, scripted(echo)).ret_value
    assert texts == expected


@pytest.mark.parametrize("added, error", [(5, TypeError), (["one"], sw.InvalidRequest)])
def test_what_cannot_be_added_is_refused_at_once(scripted, added, error):
    def body(s):
        forks = s.fork(2)
        with pytest.raises(error):
            forks += added

    run(body, scripted(echo))


def test_join_gathers_new_variables_in_branch_order(scripted):
    def body(s):
        s += "a" + sw.gen("old")
        forks = s.fork(3)
        for i, fork in enumerate(forks):
            fork += "xyz"[i] + sw.gen("new") + sw.gen("old")
            if i != 1:
                fork["some"] = i
        assert len(forks) == 3
        forks.join()
        s += "end"

    state = run(body, scripted(echo))
    assert state["new"] == ["X", "Y", "Z"]
    assert state["old"] == "A"
    assert state["some"] == [0, 2]
    assert state.text() == "aAend"
    assert [m["prompt_tokens"] for m in state.get_meta_info("new")] == [3, 3, 3]


def test_join_refuses_a_name_that_the_parent_was_given_since_the_fork(scripted):
    def body(s):
        s += "a"
        forks = s.fork(2)
        forks += ["x" + sw.gen("v"), "y" + sw.gen("v")]
        s["v"] = "parent"
        with pytest.raises(sw.InvalidRequest, match="'v'") as caught:
            forks.join()
        assert caught.value.field == "v"
        assert [fork["v"] for fork in forks] == ["X", "Y"]  # nothing is lost
        forks.join("concate_and_append")  # which takes over no variables

    state = run(body, scripted(echo))
    assert (state["v"], state.text()) == ("parent", "axXyY")


def test_join_refuses_a_name_that_another_join_has_gathered(scripted):
    def body(s):
        s += "a"
        first, second = s.fork(1), s.fork(1)
        first += "x" + sw.gen("v")
        second += "y" + sw.gen("v")
        first.join()
        with pytest.raises(sw.InvalidRequest, match="'v'"):
            second.join()
        return second[0]["v"]

    state = run(body, scripted(echo))
    assert (state["v"], state.ret_value) == (["X"], "Y")


def test_join_says_so_without_waiting(scripted):
    def body(s):
        forks = s.fork(2)
        forks += sw.gen("v")
        s["v"] = "parent"
        with pytest.raises(sw.InvalidRequest, match="'v'"):
            forks.join()

    client = scripted([STALL, STALL])
    run(body, client)


def test_what_the_parent_alone_was_given_since_the_fork_stays(scripted):
    def body(s):
        forks = s.fork(2)
        forks += ["x" + sw.gen("v"), "y" + sw.gen("v")]
        s["own"] = 5
        forks.join()

    state = run(body, scripted(echo))
    assert (state["own"], state["v"]) == (5, ["X", "Y"])


def test_a_name_from_before_the_fork_keeps_its_value(scripted):
    def body(s):
        s += "a" + sw.gen("v")
        forks = s.fork(2)
        forks += ["x" + sw.gen("v"), "y" + sw.gen("v")]
        s["v"] = "later"
        forks.join()
        return [fork["v"] for fork in forks]

    state = run(body, scripted(echo))
    assert (state["v"], state.ret_value) == ("later", ["X", "Y"])


def test_join_can_append_the_branches_texts(scripted):
    def body(s):
        s += "a"
        forks = s.fork(2)
        forks += ["x" + sw.gen(), "y" + sw.gen()]
        forks.join("concate_and_append")
        s += "." + sw.gen("last")

    client = scripted(echo)
    state = run(body, client)
    assert state.text() == "axXyY.."
    assert client.requests[-1].prompt == (Text("axXyY."),)


def test_join_cannot_append_a_finished_message(scripted):
    def body(s):
        forks = s.fork(2)
        forks += sw.user("x")
        with pytest.raises(sw.InvalidRequest, match="message"):
            forks.join("concate_and_append")

    run(body, scripted(echo))


def test_branches_share_what_the_engine_confirmed(scripted):
    def body(s):
        s += "a" + sw.gen() + "b"
        forks = s.fork(2)
        forks += sw.gen("x")
        forks.join()

    client = scripted(["R", "x", "y"])
    run(body, client)
    assert [r.prompt for r in client.requests[1:]] == [(Ids(tuple(b"aR")), Text("b"))] * 2


def test_fork_does_not_wait(scripted):
    client = scripted(lambda r: Reply(echo(r), hold_after=0 if len(client.requests) == 1 else None))

    def body(s):
        s += "a" + sw.gen("first")
        forks = s.fork(2)
        forks += ["x" + sw.gen("v"), "y" + sw.gen("v")]
        nested = forks[1].fork(2)
        nested += sw.gen("w")
        assert len(client.requests) == 1
        client.release()
        assert nested[1]["first"] == "A"  # a parent's variable, seen from a branch
        nested.join()
        assert forks[1]["w"] == ["Y", "Y"]
        forks.join()

    state = run(body, client)
    assert state["v"] == ["X", "Y"]
    assert state["w"] == [["Y", "Y"]]  # the other branch has none


def test_fork_variables_before_the_join(scripted):
    def body(s):
        forks = s.fork(2)
        forks[0] += "p" + sw.gen("v")
        forks[1] += "q" + forks[0]["v"] + sw.gen("v")
        return forks[1]["v"]

    assert run(body, scripted(echo)).ret_value == "P"


def test_copy_is_one_branch_joined_at_the_end(scripted):
    def body(s):
        s += "a"
        with s.copy() as branch:
            branch += "b" + sw.gen("v")

    state = run(body, scripted(echo))
    assert (state["v"], state.text()) == (["B"], "a")


def failing_middle(request):
    last = echo(request)
    return sw.EngineError("boom") if last == "Y" else last


def fork_three(s):
    forks = s.fork(3)
    forks += ["x" + sw.gen("v"), "y" + sw.gen("v") + sw.gen("late"), "z" + sw.gen("v")]
    return forks


def test_a_failed_branch_raises_at_the_join(scripted):
    def body(s):
        fork_three(s).join()

    with pytest.raises(sw.ProgramError) as caught:
        run(body, scripted(failing_middle))
    assert caught.value.variable == "v"
    assert "branch 1 of 3" in caught.value.__notes__[0]


def test_a_failed_branch_raises_while_another_still_runs(scripted):
    def script(request):
        answer = failing_middle(request)
        return STALL if answer == "X" else answer

    def body(s):
        fork_three(s).join()

    with pytest.raises(sw.ProgramError):
        run(body, scripted(script))


@pytest.mark.parametrize("errors, kind", [("keep", sw.ProgramError), ("none", type(None))])
def test_a_failed_branch_keeps_its_place(scripted, errors, kind):
    def body(s):
        fork_three(s).join(errors=errors)
        s += "on"

    state = run(body, scripted(failing_middle))
    first, second, third = state["v"]
    assert (first, third) == ("X", "Z")
    assert isinstance(second, kind)
    assert isinstance(state["late"][0], kind)
    assert state.text() == "on"


def test_a_failed_branchs_text_is_not_appended(scripted):
    def body(s):
        fork_three(s).join("concate_and_append", errors="none")

    assert run(body, scripted(failing_middle)).text() == "xXzZ"


def test_a_failed_branch_does_not_hurt_its_parent(scripted):
    def body(s):
        forks = fork_three(s)
        s += "a" + sw.gen("own")
        assert forks[1].error() is not None
        assert forks[0]["v"] == "X"

    assert run(body, scripted(failing_middle))["own"] == "A"


MISUSE = {
    "mode": lambda s: s.fork(1).join("concat"),
    "errors": lambda s: s.fork(1).join(errors="ignore"),
    "size": lambda s: s.fork(0),
    "bool size": lambda s: s.fork(True),
    "position_ids_offset": lambda s: s.fork(2, [0]),
}


@pytest.mark.parametrize("case", MISUSE)
def test_misuse_is_refused_by_name(scripted, case):
    def body(s):
        with pytest.raises(sw.InvalidRequest, match=case.split()[-1]):
            MISUSE[case](s)

    run(body, scripted(echo))


def test_joined_branches_are_closed(scripted):
    def body(s):
        forks = s.fork(2)
        forks.join()
        with pytest.raises(sw.InvalidRequest, match="joined"):
            forks[0] += "x"
        with pytest.raises(sw.InvalidRequest, match="joined"):
            forks.join()
        with pytest.raises(sw.InvalidRequest, match="joined"):
            forks[1].fork(2)
        with pytest.raises(TypeError):
            forks[0] = s

    run(body, scripted(echo))


def test_random_paths_tell_every_generation_apart(scripted):
    def body(s):
        s += sw.gen(n=2) + sw.gen()
        for _ in range(2):
            forks = s.fork(2)
            for fork in forks:
                fork += sw.gen() + sw.gen()
                inner = fork.fork(2)
                inner += sw.gen()
                inner.join()
            forks.join()

    def paths(client):
        run(body, client, seed=7)
        assert {r.sampling.seed for r in client.requests} == {7}
        return sorted(r.random_path for r in client.requests)

    first = paths(scripted(lambda r: ["x"] * r.sampling.n))
    assert len(set(first)) == len(first) == 2 + 2 * 2 * 4
    assert paths(scripted(lambda r: ["x"] * r.sampling.n)) == first


def test_deep_random_paths_stay_short_and_apart(scripted):
    def body(s):
        for _ in range(60):
            s += sw.gen()
            s = s.fork(1)[0]
        s.sync()

    client = scripted(lambda r: "x")
    run(body, client)
    paths = [r.random_path for r in client.requests]
    assert len(set(paths)) == 60
    assert max(map(len, paths)) <= 33
