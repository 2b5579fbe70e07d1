"""Reasoning kept apart, images and videos, `global_config`, and what a back end cannot do."""

from dataclasses import replace

import pytest

import sapwood as sw
from sapwood.lang import backend
from sapwood.lang.backend import DefaultBackend
from sapwood.lang.reasoning import FORMATS, reasoning_format
from sapwood.runtime.protocol import Abilities, Ids, Text, Turn
from sapwood.runtime.scripted import Reply
from sapwood.runtime.toy_tokens import TOY_INFO

pytestmark = pytest.mark.timeout(30)


@pytest.mark.parametrize(
    ("family", "text", "parts"),
    [
        ("qwen3", "<think>\nhm\n</think>\n\nyes", ("hm", "yes")),
        ("qwen3", "yes", ("", "yes")),
        ("qwen3", " yes ", ("", " yes ")),
        ("qwen3", "<think>cut of", ("cut of", "")),
        ("deepseek-r1", "hm</think>yes", ("hm", "yes")),
        ("deepseek-r1", "<think>hm</think>yes", ("hm", "yes")),
        ("deepseek-r1", "cut of", ("cut of", "")),
        ("kimi", "◁think▷a◁/think▷b", ("a", "b")),
        ("mistral", "[THINK]a[/THINK]b", ("a", "b")),
        ("QWEN3", "<think></think>b", ("", "b")),
    ],
)
def test_texts_are_split_by_the_marks_of_their_family(family, text, parts):
    assert reasoning_format(family).split(text) == parts


@pytest.mark.parametrize("family", [None, "gpt-9", 5])
def test_an_unknown_family_is_refused_by_name(family):
    with pytest.raises(sw.InvalidRequest, match="model_type: .*qwen3") as caught:
        sw.separate_reasoning(sw.gen("x"), model_type=family)
    assert caught.value.field == "model_type"


def test_every_family_is_in_the_docstring():
    assert all(name in sw.separate_reasoning.__doc__ for name in FORMATS)


def test_the_answer_alone_stays_said(scripted):
    client = scripted(["<think>2+2</think>4", "<think>x</think>sure"])

    @sw.function
    def program(s):
        s += sw.user("2+2?")
        with s.assistant():
            s += "Well: " + sw.separate_reasoning(sw.gen("sum"), model_type="qwen3") + "!"
        s += sw.user("Really?")
        s += sw.assistant(sw.separate_reasoning(sw.gen("sure"), "qwen3"))

    state = program.run(backend=client)
    assert state["sum"] == "4"
    assert state["sum_reasoning_content"] == "2+2"
    assert state["sure"] == "sure"
    assert state.get_meta_info("sum")["completion_tokens"] == len("<think>2+2</think>4")
    assert [m["content"] for m in state.messages()][1:] == ["2+2?", "Well: 4!", "Really?", "sure"]
    assert "think" not in state.text()
    second = client.requests[1].prompt
    shown = bytes(second[0].ids).decode() if isinstance(second[0], Ids) else ""
    assert "think" not in shown + "".join(p.text for p in second if isinstance(p, Text))


def test_several_samples_are_split_each(scripted):
    client = scripted([["<think>a</think>1", "2"]])

    @sw.function
    def program(s):
        s += "q" + sw.separate_reasoning(sw.gen("x", n=2), "qwen3")

    state = program.run(backend=client)
    assert state["x"] == ["1", "2"]
    assert state["x_reasoning_content"] == ["a", ""]
    assert state.text() == "q1"


def test_a_stream_shows_the_reasoning(scripted):
    @sw.function
    def program(s):
        s += "q" + sw.separate_reasoning(sw.gen("x"), "qwen3")

    state = program.run(backend=scripted([Reply("<think>a</think>1", chunk_size=2)]), stream=True)
    assert "".join(state.text_iter("x")) == "<think>a</think>1"
    assert "x_reasoning_content" not in state


def test_both_variables_tell_of_a_failure(scripted):
    @sw.function
    def program(s):
        s += "q" + sw.separate_reasoning(sw.gen("x"), "qwen3") + "rest"

    state = program.run(backend=scripted([RuntimeError("boom")]))
    for name in ("x", "x_reasoning_content"):
        with pytest.raises(sw.ProgramError, match="boom"):
            state[name]


def test_reasoning_needs_a_name_and_an_expression():
    with pytest.raises(sw.InvalidRequest, match="name"):
        sw.separate_reasoning(sw.gen(), "qwen3")
    with pytest.raises(sw.InvalidRequest, match="expr"):
        sw.separate_reasoning(model_type="qwen3")


# --- images and videos ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("node", "field"), [(sw.image("cat.png"), "image"), (sw.video("cat.mp4", 8), "video")]
)
def test_a_model_without_vision_refuses_by_name_when_it_is_added(scripted, node, field):
    @sw.function
    def program(s):
        s += sw.user(node + "What is this?")

    with pytest.raises(sw.InvalidRequest, match=f"{field}: 'cat.*scripted has no vision") as caught:
        program.run(backend=scripted([]))
    assert caught.value.field == field


def test_what_is_no_image_is_refused_where_it_is_written():
    with pytest.raises(sw.InvalidRequest, match="image: 5"):
        sw.image(5)
    with pytest.raises(sw.InvalidRequest, match="num_frames: 0"):
        sw.video("x", 0)
    with pytest.raises(sw.InvalidRequest, match="video: 5"):
        sw.video(5, 1)


# --- global_config ----------------------------------------------------------------------------


@pytest.fixture
def config(monkeypatch):
    monkeypatch.setattr(backend, "_default", DefaultBackend())
    return type(sw.global_config)()


def test_the_default_back_end_is_one_and_the_same(config, scripted):
    client = scripted([])
    assert config.default_backend is None
    config.default_backend = client
    assert config.default_backend is client
    sw.set_default_backend(None)
    assert config.default_backend is None


def test_switches_that_change_nothing_may_be_either(config):
    for name in ("enable_precache_with_tracing", "enable_parallel_encoding"):
        assert getattr(config, name) is True
        setattr(config, name, False)
        assert getattr(config, name) is False
        with pytest.raises(sw.InvalidRequest, match=f"{name}: 3"):
            setattr(config, name, 3)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("verbosity", 2),
        ("skip_special_tokens_in_output", False),
        ("spaces_between_special_tokens_in_out", False),
    ],
)
def test_what_cannot_be_is_refused_by_name(config, name, value):
    setattr(config, name, getattr(config, name))
    with pytest.raises(sw.InvalidRequest, match=f"{name}: {value}"):
        setattr(config, name, value)
    with pytest.raises(AttributeError):
        config.verbosityy = 1


# --- back ends that are less than an engine ----------------------------------------------------


def less(scripted, script, **abilities):
    return scripted(script, info=replace(TOY_INFO, abilities=Abilities(**abilities)))


def test_a_text_back_end_gets_the_whole_text_each_time(scripted):
    @sw.function
    def program(s):
        s += "one " + sw.gen("a") + " two "
        forks = s.fork(2)
        forks += lambda i: f"{i}" + sw.gen("b")
        forks.join()
        s += "three" + sw.select("c", ["x", "y"])
        s += sw.gen("d")

    client = less(scripted, lambda r: "!", speaks="text")
    state = program.run(backend=client)
    assert state.text() == "one ! two threex!"
    assert [r.prompt for r in client.requests[:1]] == [(Text("one "),)]
    assert {r.prompt for r in client.requests[1:3]} == {
        (Text("one ! two 0"),),
        (Text("one ! two 1"),),
    }
    assert client.requests[3].prompt == (Text("one ! two threex"),)


def test_a_back_end_of_messages_gets_the_conversation(scripted):
    @sw.function
    def program(s):
        s += sw.system("S") + sw.user("U") + sw.assistant(sw.gen("a"))
        s += sw.user("again")
        with s.assistant():
            s += sw.gen("b")

    client = less(scripted, ["A", "B"], speaks="messages", prefill=False)
    state = program.run(backend=client)
    state.sync()
    assert client.requests[0].turns == (
        Turn("system", "S"),
        Turn("user", "U"),
        Turn("assistant", ""),
    )
    assert client.requests[1].turns[2:] == (
        Turn("assistant", "A"),
        Turn("user", "again"),
        Turn("assistant", ""),
    )


@pytest.mark.parametrize(
    ("said", "message"),
    [
        (sw.user("x") + sw.gen("a"), "outside of any message"),
        (sw.user(sw.gen("a")), "in a user message"),
        (sw.assistant("Well " + sw.gen("a")), "nothing may stand before"),
        (sw.assistant(sw.gen("a") + sw.gen("b")), "nothing may stand before"),
    ],
)
def test_where_a_gen_cannot_stand_is_told_where_it_is_said(scripted, said, message):
    @sw.function
    def program(s):
        s += said

    client = less(scripted, lambda r: "x", speaks="messages", prefill=False)
    with pytest.raises(sw.InvalidRequest, match=message):
        program.run(backend=client)


@pytest.mark.parametrize(
    ("node", "field"),
    [
        (sw.gen("a", top_k=3), "top_k"),
        (sw.gen("a", regex="x"), "regex"),
        (sw.gen("a", constraint=sw.Ebnf('root ::= "x"')), "constraint"),
        (sw.gen("a", return_logprob=True), "return_logprob"),
        (sw.select("a", ["x", "y"]), "choices"),
    ],
)
def test_what_a_back_end_cannot_do_is_refused_by_name(scripted, node, field):
    @sw.function
    def program(s):
        s += "q" + node

    limits = {"options": ("max_tokens", "stop"), "constraints": ("JsonSchema",)}
    client = less(scripted, ["x"], speaks="text", select=False, logprobs=False, **limits)
    with pytest.raises(sw.InvalidRequest) as caught:
        program.run(backend=client)
    assert caught.value.field == field
    assert "scripted" in str(caught.value)


def test_the_templates_stop_strings_are_added_to_every_gen(scripted):
    @sw.function
    def program(s):
        s += "q" + sw.gen("a", stop="x") + sw.gen("b")

    client = scripted(lambda r: "t", info=replace(TOY_INFO, template_stop=("</s>",)))
    program.run(backend=client).sync()
    assert [r.sampling.stop for r in client.requests] == [("x", "</s>"), ("</s>",)]


def test_forks_take_sglangs_offsets_of_positions(scripted):
    @sw.function
    def program(s):
        s += "q"
        forks = s.fork(2, position_ids_offset=[0, 100])
        forks += lambda i: f"{i}"
        forks.join("concate_and_append")

    assert program.run(backend=scripted([])).text() == "q01"


def test_a_printed_state_has_its_whole_text(scripted, release):
    @sw.function
    def program(s):
        s += "q" + sw.gen("a")

    client = scripted([Reply("x", hold_after=0)])
    state = program.run(backend=client)
    assert repr(state) == "ProgramState(q)"
    release(client)
    assert str(state) == "ProgramState(qx)"
