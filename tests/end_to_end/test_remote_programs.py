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
        again = program.run(backend=endpoint, temperature=0)
        assert state.text() == again.text()
        assert state["b"] in ("red", "blue", "dark green")
        first, last = state.get_meta_info("a"), state.get_meta_info("c")
        assert last["cached_tokens"] >= first["prompt_tokens"] + 7
        assert again.get_meta_info("a")["cached_tokens"] >= first["prompt_tokens"] - 16
