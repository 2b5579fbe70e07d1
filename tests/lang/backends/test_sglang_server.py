"""`RuntimeEndpoint` to a server that answers as SGLang documents it: text in, text out."""

import pytest
from starlette.responses import JSONResponse

import sapwood as sw
from sapwood.lang.backends import RuntimeEndpoint
from sapwood.runtime.errors import EngineError, InvalidRequest

pytestmark = pytest.mark.timeout(60)

MODEL = {"model_path": "lmsys/vicuna-7b-v1.5", "is_generation": True}


def event(text, finish=None, index=0, **meta):
    info = {
        "id": "r",
        "prompt_tokens": 5,
        "completion_tokens": len(text),
        "cached_tokens": 2,
        "finish_reason": finish,
        **meta,
    }
    return {"text": text, "meta_info": info, "index": index}


def said(*texts, finish=None):
    """The text repeated from its begin, as such servers stream."""
    shown = ["".join(texts[: i + 1]) for i in range(len(texts))]
    stop = finish or {"type": "stop", "matched": "\n"}
    return [*map(event, shown), event(shown[-1], stop), "data: [DONE]"]


@pytest.fixture
def endpoint(fake):
    made = []

    def make(*answers, **arguments):
        asked, url = fake(MODEL, *answers)
        made.append(RuntimeEndpoint(url, **arguments))
        return asked, made[-1]

    yield make
    for one in made:
        one.close()


def test_programs_run_in_text_with_the_template_of_the_models_name(endpoint):
    asked, backend = endpoint(said("Par", "is"), said("!"))

    @sw.function
    def program(s):
        s += sw.user("Capital?")
        s += sw.assistant("It is " + sw.gen("a", max_tokens=5, regex="[A-Z]+", stop="\n"))
        s += sw.user("Sure?") + sw.assistant(sw.gen("b"))

    state = program.run(backend=backend, temperature=0)
    assert state.text() == "USER:Capital? ASSISTANT:It is Paris</s>USER:Sure? ASSISTANT:!</s>"
    assert asked.asked[0][0] == "/get_model_info"
    path, body = asked.asked[1]
    assert path == "/generate"
    assert body["text"] == "USER:Capital? ASSISTANT:It is "
    assert body["stream"] is True
    sampling = body["sampling_params"]
    wanted = {"max_new_tokens": 5, "regex": "[A-Z]+", "stop": ["\n"], "temperature": 0}
    assert {name: sampling[name] for name in wanted} == wanted
    assert (
        asked.asked[2][1]["text"] == "USER:Capital? ASSISTANT:It is Paris</s>USER:Sure? ASSISTANT:"
    )
    meta = state.get_meta_info("a")
    assert (meta["prompt_tokens"], meta["completion_tokens"], meta["cached_tokens"]) == (5, 5, 2)
    assert meta["finish_reason"] == {"type": "stop", "matched": "\n"}


def test_a_named_template_goes_first(endpoint):
    asked, backend = endpoint(said("x"), chat_template_name="llama-3-instruct")

    @sw.function
    def program(s):
        s += sw.user("U") + sw.assistant(sw.gen("a"))

    program.run(backend=backend).sync()
    body = asked.asked[1][1]
    assert body["text"].startswith("<|start_header_id|>user<|end_header_id|>\n\nU<|eot_id|>")
    assert body["sampling_params"]["stop"] == ["<|eot_id|>"]


def test_several_samples_and_their_log_probabilities(endpoint):
    def one(text, index, finish=None):
        logprobs = [[-0.5, 65 + i, char] for i, char in enumerate(text)]
        tops = [[[-0.5, 65, "A"], [-1.0, 66, "B"]] for _ in text]
        return event(text, finish, index, output_token_logprobs=logprobs, output_top_logprobs=tops)

    stop = {"type": "length", "length": 2}
    answer = [one("a", 0), one("x", 1), one("xy", 1, stop), one("ab", 0, stop), "data: [DONE]"]
    asked, backend = endpoint(answer)

    @sw.function
    def program(s):
        s += "q" + sw.gen("a", n=2, return_logprob=True, top_logprobs_num=2)

    state = program.run(backend=backend)
    assert state["a"] == ["ab", "xy"]
    metas = state.get_meta_info("a")
    assert [m["output_token_logprobs_length"] for m in metas] == [2, 2]
    assert metas[0]["output_top_logprobs"][0][1][:2] == [-1.0, 66]
    assert asked.asked[1][1]["top_logprobs_num"] == 2


def scored(ids, start, given):
    """What a server says of a text: the first log-probability of an answer is always null."""
    rows = [[given.get((i, id), -9.0), id, None] for i, id in enumerate(ids)][start:]
    rows[0][0] = None
    return {
        "text": "",
        "meta_info": {"prompt_tokens": len(ids), "input_token_logprobs": rows},
    }


@pytest.mark.parametrize(
    "method",
    [
        sw.token_length_normalized,
        sw.greedy_token_selection,
        sw.unconditional_likelihood_normalized,
    ],
)
def test_select_scores_the_tokens_of_the_options_alone(endpoint, method):
    prompt = list(range(20))
    options = {"red": [*prompt[:-1], 77, 30], "blue": [*prompt, 31]}  # "red" merges with the end
    given = {(19, 77): -1.0, (20, 30): -0.5, (19, 19): -3.0, (20, 31): -0.1}

    def answer(body):
        start = body.get("logprob_start_len", 0)
        if "input_ids" in body:
            return JSONResponse([scored(body["input_ids"][0], 0, {})])
        rows = [prompt, *(options[text.removeprefix("Pick: ")] for text in body["text"][1:])]
        return JSONResponse([scored(row, start, given) for row in rows])

    asked, backend = endpoint(*[answer] * 6)

    @sw.function
    def program(s):
        s += "Pick: " + sw.select("a", ["red", "blue"], choices_method=method) + "."

    state = program.run(backend=backend)
    meta = state.get_meta_info("a")
    assert meta["normalized_prompt_logprobs"] == pytest.approx([-0.75, -1.55])
    assert state["a"] == "red" or method is sw.unconditional_likelihood_normalized
    assert state.text() == f"Pick: {state['a']}."
    assert asked.asked[2][1]["logprob_start_len"] == 12


@pytest.mark.parametrize(
    ("answer", "kind", "message"),
    [
        (JSONResponse({"error": {"message": "bad regex"}}, status_code=400), InvalidRequest, "bad"),
        (JSONResponse({"detail": "x"}, status_code=500), EngineError, "500"),
        ([event("a"), {"error": {"message": "too long", "code": 400}}], InvalidRequest, "too long"),
        (said("a", finish={"type": "abort", "message": "full"}), EngineError, "full"),
        ([event("abc"), event("x")], EngineError, "took back"),
        ([event("abc")], EngineError, "before the end"),
    ],
)
def test_errors_are_told(endpoint, answer, kind, message):
    _, backend = endpoint(answer)

    @sw.function
    def program(s):
        s += "q" + sw.gen("a")

    with pytest.raises(sw.ProgramError, match=message) as caught:
        program.run(backend=backend)["a"]
    assert isinstance(caught.value.__cause__, kind)


def test_what_it_has_no_name_for_is_refused(endpoint):
    asked, backend = endpoint()

    @sw.function
    def program(s):
        s += "q" + sw.gen("a", constraint=sw.Choice(("x", "y")))

    with pytest.raises(InvalidRequest, match="Choice"):
        program.run(backend=backend)
    assert len(asked.asked) == 1


def test_the_cache_is_flushed_and_info_told(endpoint):
    asked, backend = endpoint(JSONResponse({}), {"version": "x"}, said(""))
    assert sw.flush_cache(backend) is True
    assert backend.get_server_info() == {"version": "x"}
    assert backend.get_model_name() == "lmsys/vicuna-7b-v1.5"
    backend.cache_prefix("long")
    assert asked.asked[-1][1]["sampling_params"]["max_new_tokens"] == 0


def test_what_is_no_server_of_this_kind_is_told(fake):
    _, url = fake({"hello": 1})
    with pytest.raises(EngineError, match="no server of ours or SGLang's"):
        RuntimeEndpoint(url)
