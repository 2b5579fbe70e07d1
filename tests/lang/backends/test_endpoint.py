"""`RuntimeEndpoint` to a server of ours: as exact as an engine in this process."""

import asyncio
import threading

import pytest

import sapwood as sw
from sapwood.lang.backends import RuntimeEndpoint
from sapwood.lang.backends import remote as remote_client
from sapwood.runtime.aio import AsyncBridge
from sapwood.runtime.errors import (
    Cancelled,
    EngineDied,
    EngineError,
    InvalidRequest,
    Overloaded,
    Unreachable,
)
from sapwood.runtime.protocol import (
    GenerateRequest,
    Ids,
    LogprobOptions,
    SamplingParams,
    ScoreRequest,
    Text,
    as_prompt,
)
from sapwood.runtime.scripted_replies import STALL, Reply
from sapwood.runtime.toy_tokens import TOY_INFO
from sapwood.server.app import create_app
from sapwood.server.options import ServerOptions

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
def remote(serve, scripted):
    """`remote(script)`: (the scripted client behind the server, an endpoint to it)."""
    made = []

    def make(*args, key=None, **kwargs):
        client = scripted(*args, **kwargs)
        url = serve(create_app(AsyncBridge(client), ServerOptions(api_key=key)))
        made.append(RuntimeEndpoint(url, api_key=key))
        return client, made[-1]

    yield make
    for endpoint in made:
        endpoint.close()


def ask(prompt="ab", **sampling):
    return GenerateRequest(as_prompt(prompt), SamplingParams(**sampling))


def test_a_program_runs_as_it_does_in_process(remote, scripted):
    @sw.function
    def program(s, word):
        s += sw.system("Be brief.") + sw.user("Say " + word)
        with s.assistant():
            s += sw.gen("a", regex="[a-z]+", seed=5) + ", " + sw.select("b", ["x", "yy"])
        forks = s.fork(2)
        forks += lambda i: f"{i}: " + sw.gen("c", json_schema={"type": "integer"}, n=2)
        forks.join()

    def script(request):
        return Reply("hell", tail="o", chunk_size=2)

    local, (there, endpoint) = scripted(script), remote(script)
    expected = program.run(word="<|im_end|>é\u2028", backend=local)
    state = program.run(word="<|im_end|>é\u2028", backend=endpoint)
    assert state.text() == expected.text()
    assert state["c"] == expected["c"]
    assert state.messages() == expected.messages()

    def asked(client):
        return sorted(str([r.prompt, r.sampling, r.random_path]) for r in client.requests)

    assert asked(there) == asked(local)
    assert [s.prompt for s in there.scored] == [s.prompt for s in local.scored]


def test_chunks_are_the_same_records(remote, scripted):
    request = GenerateRequest(
        (Ids((97,)), Text("b<|im_end|>", special=True), Text("c")),
        SamplingParams(n=2, stop=("x",), logit_bias=((5, -1.5),)),
        LogprobOptions(start=0, top=1, text=True),
    )
    script = [[Reply("hé\u2028!", chunk_size=1, cached_tokens=3), "two"]]
    _, endpoint = remote(list(script))
    assert list(endpoint.client.generate(request)) == list(scripted(script).generate(request))


def test_scores_and_info_are_the_same_records(remote, scripted):
    request = ScoreRequest(as_prompt("ab"), ("c", "de"), unconditional=True)
    client, endpoint = remote(lambda r: "x")
    assert endpoint.client.score(request).result(20) == scripted().score(request).result(20)
    early = ScoreRequest(as_prompt("ab"), ("c", "defg"), bound="columns")
    assert endpoint.client.score(early).result(20) == scripted().score(early).result(20)
    assert client.scored[-1].bound == "columns"
    assert endpoint.client.info() == client.info()
    assert endpoint.get_model_name() == "scripted"
    assert endpoint.get_server_info()["model_path"] == "scripted"
    endpoint.flush_cache()
    assert "flush_cache" in client.controls
    endpoint.cache_prefix("long prefix")
    assert client.requests[-1].sampling.max_tokens == 0
    assert sw.get_server_info(endpoint)["model"] == "scripted"


@pytest.mark.parametrize(
    "error",
    [
        InvalidRequest("stop: bad", field="stop"),
        Overloaded("full"),
        EngineDied("gone"),
        EngineError("broke"),
    ],
)
@pytest.mark.parametrize("text", ["", "midway"])
def test_errors_arrive_as_what_they_are(remote, error, text):
    _, endpoint = remote([Reply(text, error=error)])
    with pytest.raises(type(error), match=str(error)) as caught:
        list(endpoint.client.generate(ask()))
    assert getattr(caught.value, "field", None) == getattr(error, "field", None)


def test_closing_aborts_at_the_server(remote, eventually):
    client, endpoint = remote(lambda r: Reply("ab", chunk_size=1, hold_after=1))
    stream = endpoint.client.generate(ask())
    chunks = iter(stream)
    assert next(chunks).text == "a"
    stream.close()
    stream.close()
    with pytest.raises(Cancelled):
        list(chunks)
    eventually(lambda: len(client.aborted) == 1)
    future = endpoint.client.score(ScoreRequest(as_prompt("a"), ("b",)))
    future.cancel()


def test_closing_at_once_wakes_the_reader(remote):
    _, endpoint = remote(lambda r: STALL)
    for _ in range(50):
        stream = endpoint.client.generate(ask())
        stream.close()
        with pytest.raises(Cancelled):
            list(stream)


def test_a_cancelled_score_is_aborted(remote, eventually):
    client, endpoint = remote(scores=lambda r: None)
    future = endpoint.client.score(ScoreRequest(as_prompt("a"), ("b",)))
    eventually(lambda: client.scored)
    assert future.cancel()
    eventually(lambda: client.aborted)


def test_a_dropped_program_aborts_at_the_server(remote, eventually):
    client, endpoint = remote(lambda r: STALL)

    @sw.function
    def program(s):
        s += "q" + sw.gen("a")

    state = program.run(backend=endpoint)
    eventually(lambda: client.requests)
    del state
    eventually(lambda: client.aborted)


def test_closing_the_endpoint_wakes_everyone(remote):
    _, endpoint = remote(lambda r: STALL)
    stream = endpoint.client.generate(ask())
    threading.Timer(0.05, endpoint.close).start()
    with pytest.raises(EngineDied, match="closed"):
        list(stream)
    with pytest.raises(EngineDied, match="closed"):
        endpoint.client.generate(ask())
    endpoint.close()


def test_a_server_that_goes_away_wakes_everyone(remote):
    client, endpoint = remote(lambda r: STALL)
    stream = endpoint.client.generate(ask())
    threading.Timer(0.05, client.die).start()
    with pytest.raises(EngineDied):
        list(stream)


def test_two_hundred_at_once_end_once_each(remote):
    _, endpoint = remote(lambda r: Reply("abcdef", chunk_size=2))
    streams = [endpoint.client.generate(ask(f"p{i}")) for i in range(200)]
    for stream in streams:
        chunks = list(stream)
        assert [chunk.text for chunk in chunks] == ["ab", "cd", "ef"]
        assert [chunk.finish is not None for chunk in chunks] == [False, False, True]


def test_an_id_is_refused_while_its_request_runs(remote):
    _, endpoint = remote(lambda r: STALL)
    stream = endpoint.client.generate(ask())
    with pytest.raises(InvalidRequest, match=stream.request_id):
        again = GenerateRequest(as_prompt("x"), request_id=stream.request_id)
        endpoint.client.generate(again)
    stream.close()


def test_the_key_is_sent_and_a_wrong_one_told(remote, serve, scripted):
    _, endpoint = remote(["x"], key="secret")
    assert "".join(c.text for c in endpoint.client.generate(ask())) == "x"
    with pytest.raises(EngineError, match="API key"):
        RuntimeEndpoint(endpoint.url, api_key="wrong")


def test_no_server_is_told_at_once():
    with pytest.raises(Unreachable, match="http://127.0.0.1:9"):
        RuntimeEndpoint("http://127.0.0.1:9")


def test_a_named_template_takes_the_place_of_the_models(remote):
    client, endpoint = remote(["ok"])
    with RuntimeEndpoint(endpoint.url, chat_template_name="vicuna_v1.1") as other:
        state = sw.function(chat).run(backend=other)
        assert state.text() == "USER:Hi ASSISTANT:ok</s>"
    with pytest.raises(InvalidRequest, match="chat_template_name: 'nope'"):
        RuntimeEndpoint(endpoint.url, chat_template_name="nope")


def chat(s):
    s += sw.user("Hi") + sw.assistant(sw.gen("a"))


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("generate", {}),
        ("generate", {"is": "GenerateRequest"}),
        ("generate", {"is": "GenerateRequest", "prompt": "abc"}),
        ("generate", {"is": "GenerateRequest", "prompt": [5]}),
        ("generate", {"is": "GenerateRequest", "prompt": [{"is": "Ids", "ids": ["a"]}]}),
        ("generate", {"is": "GenerateRequest", "prompt": [{"is": "Text", "text": 5}]}),
        ("generate", {"is": "GenerateRequest", "prompt": [], "sampling": 5}),
        ("generate", {"is": "GenerateRequest", "prompt": [], "unknown": 5}),
        ("generate", {"is": "Nothing"}),
        ("generate", {"is": "ScoreRequest", "prompt": [], "options": ["a"]}),
        (
            "generate",
            {
                "is": "GenerateRequest",
                "prompt": [{"is": "Text", "text": "a"}],
                "sampling": {"is": "SamplingParams", "stop": 5},
            },
        ),
        ("score", {"is": "ScoreRequest", "prompt": [], "options": [5]}),
        ("score", {"is": "ScoreRequest", "prompt": 7, "options": ["a"]}),
        ("score", {"is": "ScoreRequest", "prompt": [], "options": ["a"], "bound": "greedy"}),
        ("score", []),
        ("score", 5),
    ],
)
def test_bodies_that_are_no_request_are_refused(remote, path, body):
    import httpx

    _, endpoint = remote(["x"])
    answer = httpx.post(f"{endpoint.url}/exact/{path}", json=body)
    assert answer.status_code == 400
    assert answer.json()["error"]["message"]


def test_async_bridges_work_over_it(remote):
    import asyncio

    _, endpoint = remote([Reply("abcd", chunk_size=2)])

    async def main():
        async with await AsyncBridge(endpoint.client).generate(ask()) as stream:
            return [chunk.text async for chunk in stream]

    assert asyncio.run(main()) == ["ab", "cd"]


class Stuck:
    """A transport whose connections do not end."""

    async def open(self):
        return TOY_INFO

    async def close(self):
        await asyncio.Event().wait()


def test_closing_ends_where_a_connection_does_not(monkeypatch):
    monkeypatch.setattr(remote_client, "_GRACE", 0.1)
    client = remote_client.RemoteClient(Stuck())
    client.close()
    assert not client._thread.is_alive()


@pytest.mark.parametrize("url", ["localhost:30000", "", 5, None])
def test_an_address_that_is_none_is_refused_by_name(url):
    with pytest.raises(InvalidRequest, match=f"base_url: {url!r}"):
        RuntimeEndpoint(url)


@pytest.mark.parametrize("verify", ["/nowhere.pem", 5])
def test_a_ca_that_is_not_there_is_refused_by_name(verify):
    with pytest.raises(InvalidRequest, match=f"verify: {verify!r}"):
        RuntimeEndpoint("https://127.0.0.1:9", verify=verify)


@pytest.mark.parametrize(
    "options", [{"log_level": "loud"}, {"launch_timeout": "x"}, {"launch_timeout": 0}], ids=str
)
def test_a_launch_that_cannot_be_is_refused_before_it_begins(options):
    [(name, value)] = options.items()
    with pytest.raises(InvalidRequest, match=f"{name}: {value!r}"):
        sw.Runtime(**options)
