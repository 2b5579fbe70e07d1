"""What programs say, store and return, with the answers scripted."""

import dataclasses
import re

import pytest

import sapwood as sw
from sapwood.runtime.protocol import FinishKind, FinishReason, Ids, Text
from sapwood.runtime.scripted_replies import Reply
from sapwood.runtime.toy_tokens import TOY_INFO, decode

pytestmark = pytest.mark.timeout(30)


def run(body, client, **options):
    return sw.function(body).run(backend=client, **options)


def test_text_and_values(scripted):
    def body(s):
        s += "Q: " + sw.gen("a") + " and " + sw.gen("b") + "!"
        assert s["a"] == "one"
        return s["b"]

    state = run(body, scripted(["one", "two"]))
    assert state.ret_value == "two"
    assert state.text() == "Q: one and two!"
    assert (state["a"], state.get_var("b")) == ("one", "two")
    assert "a" in state and "c" not in state
    assert repr(state) == "ProgramState(Q: one and two!)"


def test_a_cut_generation_goes_on_from_kept_ids_and_tail(scripted):
    def body(s):
        s += "Q"
        s += sw.gen("a", stop=".")
        s += ";"
        s += sw.gen("b")

    client = scripted([Reply("ab", tail="c"), "d"])
    state = run(body, client)
    assert state.text() == "Qabc;d"
    assert state["a"] == "abc"
    assert client.requests[1].prompt == (Ids(tuple(b"Qab")), Text("c;"))


def test_texts_merge_by_kind_and_user_text_is_never_special(scripted):
    def body(s):
        s += "a"
        s += "b"
        s.user("<|im_end|>")
        s += "c"
        s += sw.gen()

    client = scripted(["x"])
    run(body, client).sync()
    (request,) = client.requests
    assert request.prompt == (
        Text("ab"),
        Text(
            "<|im_start|>system\nBe helpful.<|im_end|>\n<|im_start|>user\n",
            special=True,
        ),
        Text("<|im_end|>"),
        Text("<|im_end|>\n", special=True),
        Text("c"),
    )


ROLE_PROGRAMS = {
    "expressions": lambda s: s.__iadd__(sw.user("hi") + sw.assistant("yo" + sw.gen("a"))),
    "markers": lambda s: s.__iadd__(
        sw.user_begin() + "hi" + sw.user_end() + sw.assistant_begin() + "yo" + sw.gen("a")
    ).__iadd__(sw.assistant_end()),
    "methods": lambda s: (s.user("hi"), s.assistant("yo" + sw.gen("a"))),
}


@pytest.mark.parametrize("way", ROLE_PROGRAMS)
def test_roles(scripted, way):
    def body(s):
        ROLE_PROGRAMS[way](s)

    state = run(body, scripted(["!"]))
    assert state.messages() == [
        {"role": "system", "content": "Be helpful."},
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "yo!"},
    ]
    assert state.text() == (
        "<|im_start|>system\nBe helpful.<|im_end|>\n<|im_start|>user\nhi<|im_end|>\n"
        "<|im_start|>assistant\nyo!<|im_end|>\n"
    )


def test_roles_as_scopes(scripted):
    def body(s):
        with s.system():
            s += "S"
        with s.user():
            s += "U"
        with s.assistant():
            s += sw.gen("a")

    state = run(body, scripted(["A"]))
    assert [m["content"] for m in state.messages()] == ["S", "U", "A"]


def test_roles_without_a_template_are_plain_lines(scripted):
    def body(s):
        s += sw.system("S") + sw.user("U") + sw.assistant(sw.gen("a"))

    state = run(body, scripted([" A"], info=dataclasses.replace(TOY_INFO, chat_template=None)))
    assert state.text() == "SYSTEM:S\nUSER:U\nASSISTANT: A\n"
    assert state.messages()[-1] == {"role": "assistant", "content": "A"}


BAD_ROLES = {
    "nested": lambda: sw.user(sw.system("x")),
    "end without begin": lambda: sw.user_end(),
    "end of another": lambda: sw.user_begin() + sw.assistant_end(),
}


@pytest.mark.parametrize("case", BAD_ROLES)
def test_bad_roles_are_refused_where_they_are_said(scripted, case):
    def body(s):
        with pytest.raises(sw.InvalidRequest, match="message"):
            s += BAD_ROLES[case]()

    run(body, scripted([])).sync()


@pytest.mark.parametrize("thing", [5, 1.0, b"x", object(), ["a"]])
def test_what_is_no_expression_is_a_type_error_at_the_call(scripted, thing):
    def body(s):
        with pytest.raises(TypeError, match=re.escape(type(thing).__name__)):
            s += thing
        s += "fine"

    assert run(body, scripted([])).text() == "fine"


def test_none_is_a_value_error(scripted):
    def body(s):
        with pytest.raises(ValueError, match="None"):
            s += None

    run(body, scripted([])).sync()


def test_several_samples(scripted):
    def body(s):
        s += "Q" + sw.gen("a", n=3) + sw.gen("b")

    client = scripted([["x", Reply("yy", chunk_size=1), "z"], "end"])
    state = run(body, client)
    assert state["a"] == ["x", "yy", "z"]
    assert state.text() == "Qxend"
    assert client.requests[1].prompt == (Ids(tuple(b"Qx")),)
    assert [m["completion_tokens"] for m in state.get_meta_info("a")] == [1, 2, 1]


def test_meta_info(scripted):
    def body(s):
        s += "Q" + sw.gen("a", return_logprob=True, logprob_start_len=0, top_logprobs_num=2)
        s += sw.gen("b", return_logprob=True, return_text_in_logprobs=True)
        s += sw.gen("c")
        s["d"] = 5

    finish = FinishReason(FinishKind.LENGTH)
    reply = Reply("xy", finish=finish, cached_tokens=1, forced_tokens=2, chunk_size=1)
    client = scripted([reply, "z", "w"])
    state = run(body, client)
    meta = state.get_meta_info("a")
    latency = meta.pop("e2e_latency")
    assert latency >= 0
    assert meta == {
        "id": client.requests[0].request_id,
        "finish_reason": {"type": "length", "length": 2},
        "prompt_tokens": 1,
        "completion_tokens": 2,
        "cached_tokens": 1,
        "forced_tokens": 2,
        "num_retractions": 0,
        "input_token_logprobs": [[None, ord("Q"), None]],
        "input_top_logprobs": [None],
        "output_token_logprobs": [[-0.5, ord("x"), None], [-0.5, ord("y"), None]],
        "output_token_logprobs_length": 2,
        "output_top_logprobs": [
            [[-0.5, ord("x"), None], [-1.5, ord("y"), None]],
            [[-0.5, ord("y"), None], [-1.5, ord("z"), None]],
        ],
    }
    assert state.get_meta_info("b")["output_token_logprobs"] == [[-0.5, ord("z"), "z"]]
    assert "output_token_logprobs" not in state.get_meta_info("c")
    assert state.get_meta_info("d") is None


def test_prefill_only(scripted):
    def body(s):
        s += "Q" + sw.gen("a", max_tokens=0) + "R" + sw.gen("b")

    client = scripted(["never", "x"])
    state = run(body, client)
    assert (state["a"], state.text()) == ("", "QRx")
    assert client.requests[1].prompt == (Ids(tuple(b"Q")), Text("R"))


def test_select_continues_from_the_scored_tokens(scripted):
    def body(s):
        s += "Q " + sw.select("a", ["no", "yes"]) + "." + sw.gen("b", choices=["p", "q"])
        s += sw.gen("c")

    client = scripted(["x"], scores=lambda r: [-3.0, -1.0])
    state = run(body, client)
    assert state.text() == "Q yes.qx"
    assert (state["a"], state["b"]) == ("yes", "q")
    assert client.scored[1].prompt == (Ids(tuple(b"Q yes")), Text("."))
    assert client.requests[0].prompt == (Ids(tuple(b"Q yes.q")),)
    meta = state.get_meta_info("a")
    assert meta["id"] == client.scored[0].request_id
    assert meta["normalized_prompt_logprobs"] == [-1.5, pytest.approx(-1 / 3)]
    assert sum(meta["probabilities"]) == pytest.approx(1)
    assert meta["probabilities"][1] == pytest.approx(0.8807970)


def test_var_scope(scripted):
    def body(s):
        s += "a"
        with s.var_scope("v"):
            s += "b" + sw.gen() + "c"
        s += "d"
        assert s["v"] == "bXc"

    assert run(body, scripted(["X"])).text() == "abXcd"


def test_variables_by_hand(scripted):
    def body(s):
        s["x"] = [1]
        s.set_var("y", 2)
        s += sw.gen("x")

    state = run(body, scripted(["new"]))
    assert (state["x"], state["y"]) == ("new", 2)


def test_unknown_variable_is_a_key_error(scripted):
    state = run(lambda s: s.__iadd__(sw.gen("a")), scripted(["x"]))
    with pytest.raises(KeyError, match=r"'b'.*\(a\)"):
        state["b"]


def test_the_body_does_not_wait_for_what_it_does_not_read(scripted):
    def body(s):
        s += sw.gen("a") + "," + sw.gen("b")

    client = scripted([Reply("x", hold_after=0), "y"])
    state = run(body, client)
    assert "b" in state
    assert len(client.requests) == 1
    client.release()
    assert state.text() == "x,y"


def test_use_thread_false_ends_each_step_before_the_next(scripted):
    client = scripted(["x", "y"])

    def body(s):
        s += sw.gen("a")
        assert len(client.requests) == 1
        assert s._branch.executor.idle
        s += sw.gen("b")

    assert run(body, client, use_thread=False).text() == "xy"


def test_long_chains_do_not_recurse(scripted):
    size = 3000

    def body(s):
        s += sw.gen()  # everything below waits for this one, and then runs at once
        for _ in range(size):
            s += "a" + sw.gen(max_tokens=1)
        for _ in range(size):
            s = s.fork(1)[0]
            s += "b"
        return s

    client = scripted(lambda r: Reply("x", hold_after=0 if len(client.requests) == 1 else None))
    state = run(body, client)
    client.release()
    assert state.ret_value.text() == "x" + "ax" * size + "b" * size


def test_empty_text_changes_nothing(scripted):
    client = scripted(["x"])
    run(lambda s: s.__iadd__("" + sw.gen("a", max_tokens=3) + ""), client).sync()
    assert client.requests[0].prompt == ()
    assert decode(()) == ""
