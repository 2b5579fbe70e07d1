"""No text is sent twice: what the engine returned is sent back as ids, for random programs."""

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

import sapwood as sw
from sapwood.runtime.protocol import Ids
from sapwood.runtime.scripted import ScriptedClient
from sapwood.runtime.scripted_replies import Reply
from sapwood.runtime.toy_tokens import encode_prompt

pytestmark = pytest.mark.timeout(120)

short = st.text("ab é<|", max_size=4)
actions = st.recursive(
    st.one_of(
        st.tuples(st.just("text"), short),
        st.tuples(st.just("gen"), short, short),
        st.tuples(st.just("select"), st.integers(0, 2)),
        st.tuples(st.just("user"), short),
    ),
    lambda inner: st.tuples(st.just("fork"), st.lists(st.lists(inner, max_size=4), max_size=3)),
    max_leaves=12,
)


def play(s, program, replies, branches):
    branches.append(s)
    for kind, *values in program:
        if kind == "text":
            s += values[0]
        elif kind == "gen":
            replies.append(Reply(values[0], tail=values[1], chunk_size=1))
            s += sw.gen(stop=[f"#{len(replies) - 1}"])
        elif kind == "select":
            s += sw.select(choices=["x", "yy", "é"][: values[0] + 1])
        elif kind == "user":
            s.user(values[0])
        elif values[0]:
            forks = s.fork(len(values[0]))
            for fork, inner in zip(forks, values[0], strict=True):
                play(fork, inner, replies, branches)


@settings(deadline=None, max_examples=60)
@given(st.lists(actions, max_size=8))
def test_every_prompt_goes_on_from_the_ids_of_an_earlier_answer(program):
    replies = []
    client = ScriptedClient(lambda request: replies[int(request.sampling.stop[0][1:])])
    branches = []
    try:
        state = sw.function(lambda s: play(s, program, replies, branches)).run(backend=client)
        texts = [branch.text() for branch in branches]
    finally:
        client.close()
    assert state.text() == texts[0]

    answered = {()}  # what the engine has confirmed, by any request
    for request in client.requests + client.scored:
        prompt = encode_prompt(request.prompt)
        if hasattr(request, "sampling"):
            reply = replies[int(request.sampling.stop[0][1:])]
            answered.add(prompt + tuple(reply.text.encode()))
        else:
            answered |= {prompt + tuple(option.encode()) for option in request.options}
    for request in client.requests + client.scored:
        head = (
            request.prompt[0].ids if request.prompt and isinstance(request.prompt[0], Ids) else ()
        )
        assert head in answered
        assert all(not isinstance(part, Ids) for part in request.prompt[1:])
        kinds = [part.special for part in request.prompt[1 if head else 0 :]]
        assert all(a != b for a, b in zip(kinds, kinds[1:], strict=False)), "texts merge"
    # Decoded, every prompt is exactly a prefix of some branch's text: nothing is lost or doubled.
    shown = {text.encode() for text in texts}
    for request in client.requests + client.scored:
        spelled = b"".join(
            {256: b"<|im_start|>", 257: b"<|im_end|>"}.get(i) or bytes([i])
            for i in encode_prompt(request.prompt)
        )
        assert any(text.startswith(spelled) for text in shown)
