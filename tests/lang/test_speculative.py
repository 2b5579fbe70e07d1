"""`num_api_spec_tokens`: what of one long answer goes to which gen."""

from dataclasses import replace

import pytest

import sapwood as sw
from sapwood.lang.speculative import Blank, Form
from sapwood.lang.variables import Variable
from sapwood.runtime.protocol import Abilities
from sapwood.runtime.scripted_replies import STALL
from sapwood.runtime.toy_tokens import TOY_INFO

pytestmark = pytest.mark.timeout(30)

TEXT = replace(TOY_INFO, abilities=Abilities(speaks="text"))
MESSAGES = replace(
    TOY_INFO, chat_template=None, abilities=Abilities(speaks="messages", prefill=False)
)


@sw.function(num_api_spec_tokens=64)
def character(s):
    s += "A character.\nName:" + sw.gen("name", stop="\n", max_tokens=8)
    s += "\nBirthday:" + sw.gen("birthday", stop="\n") + "\nJob:" + sw.gen("job", stop="\n") + "\n"


def test_one_call_of_a_text_model_serves_several_gens(scripted):
    client = scripted([" Ada\nBirthday: 1815\nJob: counting\nMore"], info=TEXT)
    state = character.run(backend=client)
    assert (state["name"], state["birthday"], state["job"]) == (" Ada", " 1815", " counting")
    assert state.text() == "A character.\nName: Ada\nBirthday: 1815\nJob: counting\n"
    [request] = client.requests
    assert (request.sampling.max_tokens, request.sampling.stop) == (64, ())
    assert state.get_meta_info("job")["finish_reason"] == {"type": "stop", "matched": "\n"}


def test_what_does_not_agree_is_asked_for_anew(scripted):
    client = scripted([" Ada\nBorn: 1815\n", " 1815\nJob: none\n"], info=TEXT)
    state = character.run(backend=client)
    assert (state["birthday"], state["job"]) == (" 1815", " none")
    assert len(client.requests) == 2


def test_a_gen_without_stops_asks_as_ever(scripted):
    @sw.function(num_api_spec_tokens=64)
    def program(s):
        s += "q" + sw.gen("a", max_tokens=3) + sw.gen("b", stop="!")

    client = scripted(["x", "y"], info=TEXT)
    state = program.run(backend=client)
    assert state.text() == "qxy"
    assert client.requests[0].sampling.max_tokens == 3


def test_branches_do_not_share_one_answer(scripted):
    @sw.function(num_api_spec_tokens=64)
    def program(s):
        s += "q" + sw.gen("a", stop="\n") + "\n"
        forks = s.fork(2)
        forks += sw.gen("b", stop="\n")
        forks.join()

    client = scripted(["one\nahead\n", "other\n"], info=TEXT)
    assert sorted(program.run(backend=client)["b"]) == ["ahead", "other"]


@sw.function(num_api_spec_tokens=64)
def chat(s):
    s += sw.user("Make one.")
    s += sw.assistant(
        "Name:" + sw.gen("name", stop="\n") + "\nJob:" + sw.gen("job", stop="\n") + "\nBye."
    )
    s += sw.user("More?") + sw.assistant(sw.gen("more"))


def test_one_call_makes_a_whole_message(scripted):
    client = scripted(["\nName: Ada\nJob: counting\nBye.", "No."], info=MESSAGES)
    state = chat.run(backend=client)
    assert (state["name"], state["job"], state["more"]) == (" Ada", " counting", "No.")
    assert state.messages()[1]["content"] == "Name: Ada\nJob: counting\nBye."
    first = client.requests[0]
    assert (first.sampling.max_tokens, first.sampling.stop) == (64, ())
    assert first.turns[-1].text == ""
    assert client.requests[1].turns[1].text == "Name: Ada\nJob: counting\nBye."


def test_an_answer_that_does_not_fit_is_asked_for_three_times(scripted):
    client = scripted(["What?", "Name: Ada\nHm", "Name: Bob\nJob: x\n", "ok"], info=MESSAGES)
    assert chat.run(backend=client)["name"] == " Bob"
    client = scripted(["What?"] * 3, info=MESSAGES)
    state = chat.run(backend=client)
    for name in ("name", "job", "more"):
        with pytest.raises(sw.ProgramError, match="after 3 tries .* 'What") as caught:
            state[name]
    assert "test_speculative.py" in str(caught.value)
    assert len(client.requests) == 3


def test_a_failing_back_end_fails_the_message(scripted):
    state = chat.run(backend=scripted([RuntimeError("boom")], info=MESSAGES))
    with pytest.raises(sw.ProgramError, match="boom"):
        state["job"]


def test_a_runtime_of_ours_answers_as_ever(scripted):
    client = scripted(["a", "b", "c"])
    assert character.run(backend=client)["job"] == "c"
    assert len(client.requests) == 3


@pytest.mark.parametrize(
    "body",
    [
        lambda s: s.fork(2),
        lambda s: s.var_scope("x").__enter__(),
        lambda s: s.__iadd__(sw.separate_reasoning(sw.gen("x"), "qwen3")),
        lambda s: s.__iadd__(sw.gen("x", temperature=0.5)),
        lambda s: s.__iadd__(sw.gen("x", n=2)),
    ],
)
def test_what_cannot_be_within_such_a_message_is_refused(scripted, body):
    @sw.function(num_api_spec_tokens=9)
    def program(s):
        s += sw.user("?")
        with s.assistant():
            s += sw.gen("a")
            body(s)

    with pytest.raises(sw.InvalidRequest) as caught:
        program.run(backend=scripted(["x"], info=MESSAGES))
    assert caught.value.field == "num_api_spec_tokens"


@pytest.mark.parametrize("value", [0, -1, True, "64", 1.5])
def test_a_number_of_tokens_is_checked(value):
    with pytest.raises(sw.InvalidRequest, match="num_api_spec_tokens"):
        sw.function(num_api_spec_tokens=value)(lambda s: None)


def test_it_does_not_stream(scripted):
    with pytest.raises(sw.InvalidRequest, match="stream"):
        chat.run(backend=scripted([], info=MESSAGES), stream=True)


@pytest.mark.parametrize(
    ("parts", "answer", "values"),
    [
        (["A:", ("\n",), "\nB:", ()], "A:1\nB:2\n", ["1", "2\n"]),
        (["A:", ("\n",), "\nB:", ()], "A:1", None),
        ([("\n", ";")], "x;y\n", ["x"]),
        ([("\n",), "end"], "x", ["x"]),
        (["A"], "A", []),
        (["A", ()], "B", None),
    ],
)
def test_forms(parts, answer, values):
    form = Form(tuple(p if isinstance(p, str) else Blank(Variable(None), p) for p in parts))
    assert form.fit(answer) == values


@pytest.mark.parametrize(
    "options", [{"regex": "a+"}, {"return_logprob": True}, {"min_tokens": 3}], ids=str
)
def test_what_a_text_that_is_there_cannot_keep_is_asked_as_ever(scripted, options):
    @sw.function(num_api_spec_tokens=64)
    def program(s):
        s += "q" + sw.gen("a", max_tokens=8, stop="!", **options)

    client = scripted(["aaa"], info=TEXT)
    program.run(backend=client).text()
    [request] = client.requests
    assert (request.sampling.max_tokens, request.sampling.stop) == (8, ("!",))


def test_the_shortest_time_limit_of_a_messages_gens_holds_for_the_message(scripted):
    @sw.function(num_api_spec_tokens=64)
    def program(s):
        s += sw.user("q")
        s += sw.assistant(sw.gen("a", stop="!", timeout=60) + "!" + sw.gen("b", timeout=0.05))

    client = scripted(lambda r: STALL, info=MESSAGES)
    state = program.run(backend=client)
    for name in ("a", "b"):
        with pytest.raises(sw.ProgramTimeout, match=r"within 0\.05 s"):
            state[name]
    assert len(client.aborted) == 1


def test_a_message_takes_no_healing(scripted):
    @sw.function(num_api_spec_tokens=64)
    def program(s):
        s += sw.user("q")
        s += sw.assistant(sw.gen("a", heal=True))

    with pytest.raises(sw.InvalidRequest, match="heal"):
        program.run(backend=scripted([], info=MESSAGES))
