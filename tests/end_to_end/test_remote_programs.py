"""Programs on the real weights behind a server: as exact as in process."""

import pytest

import sapwood as sw
from sapwood.lang.backends import RuntimeEndpoint

pytestmark = pytest.mark.timeout(120)


def test_a_remote_program_computes_no_position_twice(server) -> None:  # type: ignore[no-untyped-def]
    @sw.function
    def program(s):  # type: ignore[no-untyped-def]
        s += sw.user("Name a colour.")
        s += sw.assistant(sw.gen("a", max_tokens=8, ignore_eos=True))
        s += sw.user("Another one?")
        with s.assistant():
            s += sw.select("b", choices=["red", "blue", "dark green"])
            s += sw.gen("c", max_tokens=4, regex="[a-z ]+")

    with RuntimeEndpoint(server.url) as endpoint:
        state = program.run(backend=endpoint, temperature=0)
        state.sync()  # what is still being computed is in nobody's cache
        again = program.run(backend=endpoint, temperature=0)
        assert state.text() == again.text()
        assert state["b"] in ("red", "blue", "dark green")
        first, last = state.get_meta_info("a"), state.get_meta_info("c")
        assert last["cached_tokens"] >= first["prompt_tokens"] + 7
        assert again.get_meta_info("a")["cached_tokens"] >= first["prompt_tokens"] - 16


def test_a_runtime_starts_a_server_and_ends_it() -> None:
    import asyncio
    import json
    import os

    with sw.Runtime(max_total_tokens=4096, context_length=2048) as runtime:
        os.kill(runtime.pid, 0)

        @sw.function
        def program(s):  # type: ignore[no-untyped-def]
            s += "The capital of France is" + sw.gen("a", max_tokens=3)

        state = program.run(backend=runtime, temperature=0)
        assert "Paris" in state["a"]
        runtime.cache_prefix("The capital of Italy is")
        sampling = {"temperature": 0, "max_new_tokens": 3}
        answer = json.loads(runtime.generate("The capital of France is", sampling))
        assert answer["text"] == state["a"]
        with pytest.raises(sw.InvalidRequest, match="embeddings"):
            runtime.encode("x")
        with pytest.raises(sw.InvalidRequest, match="lora_path: 'x'"):
            runtime.generate("x", lora_path="x")

        async def stream() -> list[str]:
            return [
                text async for text in runtime.add_request("The capital of France is", sampling)
            ]

        assert "".join(asyncio.run(stream())) == state["a"]
        assert asyncio.run(runtime.get_server_info())["model_path"]
        tokenizer = runtime.get_tokenizer()
        assert tokenizer.decode(tokenizer.encode("Hello there")) == "Hello there"
    with pytest.raises(ProcessLookupError):
        os.kill(runtime.pid, 0)
    runtime.shutdown()


def test_a_server_that_cannot_start_is_told() -> None:
    with pytest.raises(sw.EngineError, match="nowhere"):
        sw.Runtime(model_path="/nowhere/model")
    with pytest.raises(sw.InvalidRequest, match="pp_size: 2: our server has no such option"):
        sw.Runtime(pp_size=2)
