"""Random programs, cancelled or failing at random moments by other threads: every read ends."""

import random
import threading

import pytest

import sapwood as sw
from sapwood.runtime.scripted import ScriptedClient
from sapwood.runtime.scripted_replies import STALL, Reply

pytestmark = pytest.mark.timeout(120)


def grow(s, rng, depth):
    """Adds random steps and reads; returns the branches it made and did not join."""
    kept = [s]
    for _ in range(rng.randint(1, 5)):
        kind = rng.choice(["text", "gen", "gen", "select", "fork", "read", "drop", "scope"])
        if kind == "text":
            s += "t"
        elif kind == "gen":
            s += sw.gen("a", n=rng.choice([1, 1, 3]))
        elif kind == "select":
            s += sw.select("b", ["x", "y"])
        elif kind == "read" and "a" in s:
            assert s["a"] is not None
        elif kind == "scope":
            with s.var_scope("v"):
                s += "u"
        elif kind == "drop":
            s.fork(2)[0].__iadd__(sw.gen("c"))
        elif kind == "fork" and depth:
            forks = s.fork(rng.randint(1, 3))
            for fork in forks:
                kept += grow(fork, rng, depth - 1)
            if rng.random() < 0.5:
                forks.join(errors=rng.choice(["keep", "none"]))
    return kept


def script(rng):
    def answer(request):
        kind = rng.choice(["text"] * 12 + ["stall", "fail", "refuse"])
        if kind == "refuse":
            raise sw.InvalidRequest("refused")
        if kind == "fail":
            return Reply("ab", chunk_size=1, error=sw.EngineError("failed"))
        return STALL if kind == "stall" else Reply("abc", chunk_size=rng.choice([1, 3]))

    return answer


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("seed", range(60))
def test_every_read_ends(seed, stream):
    rng = random.Random(seed)
    client = ScriptedClient(script(rng), scores=lambda r: rng.choice([None, [-1.0, -2.0]]))
    program = sw.function(lambda s: grow(s, rng, 2))
    delay = rng.choice([0, 0.001, 0.01])
    stop = threading.Timer(delay, client.die)  # whatever stalls is woken by this
    stop.start()
    try:
        state = program.run(backend=client, stream=stream)
        if rng.random() < 0.5:
            threading.Timer(delay / 2, state.cancel).start()
        for read in (lambda: list(state.text_iter()), state.text, lambda: state.ret_value):
            try:
                read()
            except sw.SapwoodError:
                continue
        branches = [] if state.error() else state.ret_value
        for branch in branches:
            branch.error()
            assert branch._branch.executor.idle
            for variable in branch._branch.variables.values():
                assert variable.settled
    except sw.SapwoodError:
        pass  # the body itself read what failed
    finally:
        stop.join()
        client.close()
