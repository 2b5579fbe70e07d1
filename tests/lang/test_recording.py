"""Recordings of programs: what they hold, and what becomes of a program that is replayed."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import sapwood as sw
from sapwood.runtime.protocol import (
    Chunk,
    FinishKind,
    FinishReason,
    GenerateRequest,
    Ids,
    JsonSchema,
    SamplingParams,
    Text,
    TokenLogprob,
    Usage,
)
from sapwood.runtime.recording.encoding import decode, encode
from sapwood.runtime.recording.recording import Recording
from sapwood.runtime.recording.rerun import rerun
from sapwood.runtime.recording.runs import described, missing
from sapwood.runtime.scripted import ScriptedClient
from sapwood.runtime.scripted_replies import STALL, Reply

pytestmark = pytest.mark.timeout(30)


@sw.function
def tree(s, topic, size=2):
    s.user(f"Tell me of {topic}.")
    s += "Kind: " + sw.select("kind", ["long", "short"])
    forks = s.fork(size)
    forks += lambda i: f" {i}:" + sw.gen("tip", max_tokens=8, return_logprob=True)
    forks.join()
    s += sw.gen("end", n=2, stop=".") + "!"
    return [s["kind"], *s["tip"]]


def answer(request: GenerateRequest) -> Any:
    text = f"{'-'.join(map(str, request.random_path))} said"
    return [text, "other"] if request.sampling.n == 2 else Reply(text, tail="…", chunk_size=3)


def recorded(path: Path, client: ScriptedClient, **options: Any) -> sw.ProgramState:
    with sw.record(path):
        state = tree.run("trees", backend=client, **options)
        state.sync()
    return state


def test_a_replay_is_the_recorded_run_with_no_engine(tmp_path: Path, scripted) -> None:
    path = tmp_path / "run.jsonl"
    client = scripted(answer)
    before = recorded(path, client, temperature=0.5)
    asked = len(client.requests)
    with sw.replay(path) as replayed:
        after = tree.run("trees", temperature=0.5)
        assert after.text() == before.text()
        assert after.messages() == before.messages()
        assert after.ret_value == before.ret_value
        for name in before.variables:
            assert after[name] == before[name]
        left = replayed.unused()
    assert left == []
    assert len(client.requests) == asked


def test_the_pieces_of_a_stream_are_the_recorded_ones(tmp_path: Path, scripted) -> None:
    @sw.function
    def talk(s):
        s += "Q" + sw.gen("a")

    path = tmp_path / "run.jsonl"
    with sw.record(path):
        before = list(
            talk.run(backend=scripted([Reply("abcdef", chunk_size=2)]), stream=True).text_iter("a")
        )
    with sw.replay(path):
        assert "".join(talk.run(stream=True).text_iter("a")) == "".join(before)
    (run,) = Recording.read(path).runs
    assert [event.text for event in run.asks[0].events] == ["ab", "cd", "ef"]


@pytest.mark.parametrize(
    "change, words",
    [
        ({"topic": "birds"}, "was not recorded with the arguments"),
        ({"temperature": 0.1}, "temperature was 1.0 and is 0.1"),
        ({"size": 3}, "was not recorded with the arguments"),
    ],
)
def test_what_differs_is_said(tmp_path: Path, scripted, change, words) -> None:
    path = tmp_path / "run.jsonl"
    recorded(path, scripted(answer))
    with sw.replay(path), pytest.raises(sw.SapwoodError, match=words):
        tree.run(**{"topic": "trees", **change}).sync()


def test_a_changed_prompt_is_shown_where_it_changed(tmp_path: Path, scripted) -> None:
    words = ["The sky is", "The sky was"]

    @sw.function
    def say(s):
        s += words[0] + sw.gen("a")

    path = tmp_path / "run.jsonl"
    with sw.record(path):
        say.run(backend=scripted(["blue"])).sync()
    words.reverse()
    with sw.replay(path), pytest.raises(sw.ProgramError) as caught:
        say.run().sync()
    assert isinstance(caught.value.__cause__, sw.Diverged)
    assert "after 'The sky ' the text was 'is' and is 'was'" in str(caught.value)


def test_failures_are_part_of_a_recording(tmp_path: Path, scripted) -> None:
    @sw.function
    def twice(s):
        s += "a" + sw.gen("a")
        s += sw.gen("b")

    path = tmp_path / "run.jsonl"
    client = scripted([Reply("x"), Reply("y", error=sw.Overloaded("too many"))])
    with sw.record(path):
        assert isinstance(twice.run(backend=client).error(), sw.ProgramError)
    with sw.replay(path):
        state = twice.run()
        assert state["a"] == "x"
        with pytest.raises(sw.ProgramError, match="too many") as caught:
            state["b"]
        assert isinstance(caught.value.__cause__, sw.Overloaded)


def test_a_request_cut_off_by_the_end_of_the_recording_does_not_hang(tmp_path, scripted) -> None:
    @sw.function
    def one(s):
        s += sw.gen("a")

    path = tmp_path / "run.jsonl"
    client = scripted([STALL])
    with sw.record(path):
        state = one.run(backend=client)
    state.cancel()
    with sw.replay(path), pytest.raises(sw.ProgramError, match="the recording ends"):
        one.run()["a"]


def test_batches_and_programs_within_programs(tmp_path: Path, scripted) -> None:
    @sw.function
    def inner(s, x):
        s += f"inner {x}" + sw.gen("v")
        return s["v"]

    @sw.function
    def outer(s, x):
        s += inner.run(x, **({"backend": client} if client else {})).ret_value + sw.gen("w")
        return s["w"]

    items = [{"x": i % 3} for i in range(9)]
    client = scripted(lambda request: f"<{request.prompt[-1].text}>")
    path = tmp_path / "run.jsonl"
    with sw.record(path):
        before = [state.ret_value for state in outer.run_batch(items, backend=client)]
    recording = Recording.read(path)
    assert sorted(run.info.nested for run in recording.runs) == [False] * 9 + [True] * 9
    client = None
    with sw.replay(path) as replayed:
        states = outer.run_batch(items, num_threads=4)
        assert [state.ret_value for state in states] == before
        assert replayed.unused() == []


def test_an_open_seed_is_drawn_and_kept(tmp_path: Path, scripted) -> None:
    client = scripted(answer)
    path = tmp_path / "run.jsonl"
    recorded(path, client)
    seeds = {request.sampling.seed for request in client.requests}
    assert None not in seeds
    assert len(seeds) > 1
    asks = [ask for run in Recording.read(path).runs for ask in run.asks]
    kept = [ask.request for ask in asks if isinstance(ask.request, GenerateRequest)]
    assert sorted(kept, key=_path) == sorted(client.requests, key=_path)


def _path(request: GenerateRequest) -> tuple[int, ...]:
    return request.random_path


def test_asking_again_finds_the_first_other_token(tmp_path: Path, scripted) -> None:
    @sw.function
    def say(s):
        s += "Q" + sw.gen("a") + sw.gen("b")

    path = tmp_path / "run.jsonl"
    with sw.record(path):
        say.run(backend=scripted(["same", "abcdef"])).sync()
    recording = Recording.read(path)
    assert [one.difference for one in rerun(recording, scripted(["same", "abcdef"]))] == [None] * 2
    first, second = rerun(recording, scripted(["same", "abcxef"]))
    assert first.difference is None
    assert second.difference == (
        f"token 3 was {ord('d')} and is {ord('x')}; after 'abc' the text was 'def' and is 'xef'"
    )
    (_, shorter) = rerun(recording, scripted(["same", "abc"]))
    assert "token 3 was 100 and is the end" in str(shorter.difference)
    (failed, _) = rerun(recording, scripted([sw.Overloaded("no"), "abcdef"]))
    assert failed.difference == "it fails now: no"


@pytest.mark.parametrize(
    "text, words",
    [
        ("", "empty"),
        ("{}\n", "line 1"),
        ('{"sapwood":"1","format":99}\n', "its format is 99"),
        ('{"sapwood":"1","format":1}\n[]\n{}\n', "line 2"),
        ('{"sapwood":"1","format":1}\n{"ask":1,"run":7,"request":{"is":"Nothing"}}\n\n', "line 2"),
    ],
)
def test_what_is_no_recording_is_refused(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text(text)
    with pytest.raises(sw.InvalidRequest, match=words), sw.replay(path):
        pass


def test_a_line_cut_off_at_the_end_is_left_out(tmp_path: Path, scripted) -> None:
    path = tmp_path / "run.jsonl"
    recorded(path, scripted(answer))
    whole = Recording.read(path)
    text = path.read_text()
    path.write_text(text[: len(text) - 10])
    cut = Recording.read(path)
    assert len(cut.runs) == len(whole.runs)
    assert cut.runs[0].asks[-1].events != whole.runs[0].asks[-1].events


def test_only_one_is_open_at_a_time(tmp_path: Path) -> None:
    with sw.record(tmp_path / "a"):
        with pytest.raises(sw.InvalidRequest, match="open already"), sw.record(tmp_path / "b"):
            pass
    with sw.record(tmp_path / "c"):
        pass


def test_lines_are_json(tmp_path: Path, scripted) -> None:
    path = tmp_path / "run.jsonl"
    recorded(path, scripted(answer))
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert lines[0]["format"] == 1
    (run,) = [line for line in lines if "program" in line]
    assert run["arguments"] == {"topic": "trees"}
    assert run["file"] == __file__


def test_an_answer_that_was_closed_early_is_known_as_such(tmp_path: Path, scripted) -> None:
    @sw.function
    def one(s):
        s += "One" + sw.gen("a", max_tokens=8)

    path = tmp_path / "run.jsonl"
    client = scripted([Reply(" two three", chunk_size=4, hold_after=1)])
    with sw.record(path):
        state = one.run(backend=client, stream=True)
        next(iter(state.text_iter("a")))
        state.cancel()
    (ask,) = Recording.read(path).runs[0].asks
    assert [type(event) for event in ask.events[-1:]] == [sw.Cancelled]
    with sw.replay(path):
        error = one.run().error()
    assert error is not None and isinstance(error.__cause__, sw.Cancelled)
    (again,) = rerun(Recording.read(path), scripted([" two three four"]))
    assert again.difference is None


class _FullDisk:
    """A file that takes so many lines, and then no more."""

    closed = False

    def __init__(self, room: int) -> None:
        self.room = room

    def write(self, text: str) -> None:
        self.room -= 1
        if self.room < 0:
            raise OSError(28, "No space left on device")

    def close(self) -> None:
        self.closed = True


@pytest.mark.parametrize("room", range(1, 12))
def test_a_full_disk_disturbs_no_run_and_is_told_at_the_end(
    room: int, tmp_path: Path, scripted, monkeypatch
) -> None:
    states = []
    with pytest.raises(OSError, match="No space left"), sw.record(tmp_path / "run.jsonl"):
        recorder = sw.lang.recording._tape.recorder
        recorder._file.close()
        recorder._file = _FullDisk(room)
        states.append(tree.run("trees", backend=scripted(answer), temperature=0.5))
        assert states[0].text().endswith("!")
    assert states[0].error() is None


def test_what_a_block_raises_is_not_hidden_by_a_full_disk(tmp_path: Path) -> None:
    with pytest.raises(KeyError), sw.record(tmp_path / "run.jsonl"):
        sw.lang.recording._tape.recorder.failure = OSError("full")
        raise KeyError("mine")


class _NoRepr:
    def __repr__(self) -> str:
        raise RuntimeError("no repr")


def _in_itself() -> list[Any]:
    within: list[Any] = []
    within.append(within)
    return within


@pytest.mark.parametrize(
    "value",
    ["\ud800", float("nan"), _NoRepr(), [_NoRepr()], _in_itself(), 10**5000, {"is": "Chunk"}, b"x"],
    ids=lambda value: type(value).__name__,
)
def test_any_argument_may_be_recorded(value: Any, tmp_path: Path, scripted) -> None:
    @sw.function
    def one(s, given):
        s += "One" + sw.gen("a")

    path = tmp_path / "run.jsonl"
    with sw.record(path):
        one.run(value, backend=scripted(["said"])).sync()
    with sw.replay(path) as client:
        assert one.run(value)["a"] == "said"
        assert client.unused() == []


@pytest.mark.parametrize(
    "value, lost",
    [
        ([1, {"a": None}], None),
        (float("nan"), None),
        ((1, 2), "(1, 2)"),
        ({"a": [b"x"]}, "b'x'"),
        ({"b", "a"}, "{'a', 'b'}"),
    ],
)
def test_what_a_recording_cannot_give_again_is_known(value: Any, lost: str | None) -> None:
    assert missing(described(value)) == lost


def test_bytes_are_no_recording(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_bytes(b"\xff\xd8")
    with pytest.raises(sw.InvalidRequest, match=r"x\.jsonl: no recording"):
        Recording.read(path)


def test_an_engine_that_refuses_now_is_a_difference(tmp_path: Path, scripted) -> None:
    path = tmp_path / "run.jsonl"
    recorded(path, scripted(answer))

    def refuses(request: GenerateRequest) -> Any:
        raise sw.InvalidRequest("not today")

    def fails(request: Any) -> BaseException:
        return sw.InvalidRequest("nor this")

    found = [one.difference for one in rerun(Recording.read(path), scripted(refuses, scores=fails))]
    assert found == ["it fails now: nor this", *["it fails now: not today"] * 3]


_ids = st.lists(st.integers(0, 2**31), max_size=4).map(tuple)
_texts = st.text(st.characters(codec="utf-8"), max_size=6)
_floats = st.floats(allow_nan=False)
_records: list[st.SearchStrategy[Any]] = [
    st.builds(
        GenerateRequest,
        prompt=st.lists(st.builds(Ids, _ids) | st.builds(Text, _texts, st.booleans())).map(tuple),
        sampling=st.builds(
            SamplingParams,
            temperature=st.floats(0, 10),
            stop=st.lists(_texts.filter(bool), max_size=2).map(tuple),
            logit_bias=st.lists(st.tuples(st.integers(0, 9), st.floats(-5, 5))).map(tuple),
            constraint=st.none() | st.just(JsonSchema.of({"type": "object"})),
        ),
        random_path=_ids,
    ),
    st.builds(
        Chunk,
        index=st.integers(0, 3),
        text=_texts,
        token_ids=_ids,
        usage=st.builds(Usage, *[st.integers(0, 9)] * 4),
        logprobs=st.lists(
            st.builds(
                TokenLogprob,
                st.integers(0, 9),
                st.none() | _floats,
                st.lists(st.tuples(st.integers(0, 9), _floats)).map(tuple),
                st.none() | st.binary(max_size=3),
            )
        ).map(tuple),
        finish=st.none()
        | st.builds(
            FinishReason, st.sampled_from(FinishKind), st.none() | _texts | st.integers(0, 9)
        ),
    ),
]


@given(st.one_of(_records))
def test_records_come_back_equal_through_json(record: object) -> None:
    assert decode(json.loads(json.dumps(encode(record)))) == record
