"""Compiling off the caller's thread: caching, sharing, limits, worker processes."""

import gc
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future

import pytest

from sapwood.constrained import (
    Choice,
    CompiledGrammar,
    CompileLimits,
    GrammarCompiler,
    GrammarError,
    JsonSchema,
    LimitExceeded,
    Regex,
    Unsupported,
    Vocabulary,
)
from sapwood.constrained import compiler as compiler_module

BYTES = Vocabulary([*(bytes([i]) for i in range(256)), None], [256])
LARGE = Regex(r"\w{1,60}")  # past the small limits, yet it compiles
ENDLESS = Regex(r"(\w{1,60}x?){1,60}")  # within the time of a test, this never ends
NO_STATE_LIMIT = 10**9

Make = Callable[..., GrammarCompiler]


@pytest.fixture
def make() -> Iterator[Make]:
    made: list[GrammarCompiler] = []

    def make(vocabulary: Vocabulary = BYTES, **options: object) -> GrammarCompiler:
        made.append(GrammarCompiler(vocabulary, **options))
        return made[-1]

    yield make
    for one in made:
        one.close()


def workers(compiler: GrammarCompiler) -> list[int]:
    return compiler._workers.process_ids


def is_running(process_id: int) -> bool:
    try:
        os.kill(process_id, 0)
    except ProcessLookupError:
        return False
    with open(f"/proc/{process_id}/stat") as stat:
        return stat.read().rpartition(")")[2].split()[0] != "Z"


def wait_until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_small_constraints_need_no_worker(make):
    compiler = make()
    for spec in (Regex("a+"), Choice(("a", "b")), JsonSchema.of({"type": "null"})):
        compiler.compile(spec)
    assert not workers(compiler)


@pytest.mark.parametrize("spec", [Regex("a+"), Choice(("a", "b")), JsonSchema.of(True)], ids=str)
def test_equal_specs_share_one_grammar(spec, make):
    compiler = make()
    grammar = compiler.compile(spec)
    assert grammar.spec == spec
    twin = type(spec)(next(iter(vars(spec).values())))
    assert compiler.compile(twin) is grammar


def test_the_cache_keeps_the_latest(make):
    compiler = make(cache_size=2)
    first, second = compiler.compile(Regex("a")), compiler.compile(Regex("b"))
    assert compiler.compile(Regex("a")) is first
    compiler.compile(Regex("c"))
    assert compiler.compile(Regex("a")) is first
    assert compiler.compile(Regex("b")) is not second
    with pytest.raises(GrammarError, match="cache_size is at least 1"):
        make(cache_size=0)


def test_one_spec_in_flight_is_compiled_once(make, monkeypatch):
    compiler = make()
    go, calls = threading.Event(), []

    def slowly(spec, limits):
        calls.append(spec)
        assert go.wait(60)
        return lower(spec, limits)

    lower = compiler_module.lower
    monkeypatch.setattr(compiler_module, "lower", slowly)
    futures = [compiler.submit(Regex("ab")) for _ in range(5)]
    assert not futures[0].done()
    assert not futures[0].cancel()  # it is shared
    go.set()
    assert len({id(future.result(60)) for future in futures}) == 1
    assert calls == [Regex("ab")]


@pytest.mark.parametrize(
    ("spec", "error", "message"),
    [
        (Regex("a("), GrammarError, r"regex 'a\(': it is not a valid regex: .*position 1"),
        (Regex(r"(a)\1"), Unsupported, "backreference"),
        (JsonSchema.of({"not": {}}), Unsupported, "JSON schema .*#/not"),
        (JsonSchema("{"), GrammarError, "not JSON"),
        (Choice(("\udc00",)), GrammarError, "choice of 1 options: .*surrogate"),
        ("a+", GrammarError, "'a\\+' is not a constraint"),
        (Regex("(a|b)*a.{30}"), LimitExceeded, r"'\(a\|b\)\*a\.\{30\}': .*exponentially"),
    ],
)
def test_errors_reach_the_caller_and_the_next_spec_compiles(spec, error, message, make):
    compiler = make()
    for _ in range(2):
        with pytest.raises(error, match=message):
            compiler.compile(spec)
    assert compiler.compile(Regex("a")).shortest == 1


def test_limits_are_checked():
    for limits in ({"seconds": 0}, {"states": -1}, {"memory_mb": 0}):
        with pytest.raises(GrammarError, match="must be positive"):
            CompileLimits(**limits)


def test_a_large_constraint_is_compiled_by_a_worker_that_is_kept(make, monkeypatch):
    monkeypatch.setattr(compiler_module, "_SMALL", CompileLimits(seconds=9, states=1000))
    compiler = make()
    grammar = compiler.compile(LARGE)
    assert grammar.matches("é".encode() * 60) and not grammar.matches(b"a" * 61)
    kept = workers(compiler)
    assert len(kept) == 1
    compiler.compile(Regex(r"\w{1,61}"))
    assert workers(compiler) == kept
    with pytest.raises(Unsupported, match="lookbehind"):
        compiler.compile(Regex("a" * 5000 + "(?<=a)"))  # errors cross the pipe as they are
    compiler.close()
    assert not is_running(kept[0])


def test_small_constraints_overtake_what_waits_for_workers(make, monkeypatch):
    compiler = make()
    go, begun = threading.Event(), []

    def blocked(spec):
        begun.append(spec)
        assert go.wait(60)
        return compiler_module.lower(Regex("z"), CompileLimits())

    monkeypatch.setattr(compiler._workers, "lower", blocked)
    large = [compiler.submit(Regex(f"a{i}" + "b" * 5000)) for i in range(8)]
    wait_until(lambda: len(begun) == 4)
    small = [compiler.submit(Regex(f"a{{{i}}}")) for i in range(1, 4)]
    assert [future.result(60).shortest for future in small] == [1, 2, 3]
    assert not any(future.done() for future in large)
    go.set()
    assert all(future.result(60).shortest == 1 for future in large)


def test_tiny_constraints_overtake_those_that_turn_out_larger(make, monkeypatch):
    compiler = make()
    go, begun = threading.Event(), []

    def lower(spec, limits):
        if limits.states > compiler_module._TINY.states:
            begun.append(spec)
            assert go.wait(60)
        return plain(spec, limits)

    plain = compiler_module.lower
    monkeypatch.setattr(compiler_module, "lower", lower)
    larger = [compiler.submit(Regex(f"a{i}[a-z]{{1,2000}}")) for i in range(8)]
    wait_until(lambda: len(begun) == 2)
    assert compiler.compile(Regex("ab")).shortest == 2
    assert not any(future.done() for future in larger)
    go.set()
    assert all(future.result(60).num_states > 2000 for future in larger)
    assert not workers(compiler)


def test_what_passed_the_limits_is_refused_at_once_for_a_while(make, monkeypatch):
    compiler = make()
    calls = []

    def refuse(spec):
        calls.append(spec)
        raise LimitExceeded("it took longer")

    monkeypatch.setattr(compiler._workers, "lower", refuse)
    spec = Regex("b" * 5000)
    errors = []
    for _ in range(3):
        with pytest.raises(LimitExceeded, match="it took longer") as caught:
            compiler.compile(spec)
        errors.append(caught.value)
    assert calls == [spec]
    assert len(set(map(id, errors))) == 3  # one exception raised often would gather tracebacks
    monkeypatch.setattr(compiler_module, "_REFUSAL_SECONDS", -1.0)
    other = Regex("c" * 5000)
    for _ in range(2):
        with pytest.raises(LimitExceeded):
            compiler.compile(other)
    assert calls == [spec, other, other]


def test_so_many_refusals_are_kept_as_grammars(make, monkeypatch):
    compiler = make(cache_size=1)
    first, second = Regex("(a|b)*a.{30}"), Regex("(a|b)*b.{30}")
    for spec in (first, second):
        with pytest.raises(LimitExceeded):
            compiler.compile(spec)
    assert list(compiler._refusals) == [second]


def test_a_timeout_kills_one_compilation_and_not_its_neighbours(make):
    compiler = make(limits=CompileLimits(seconds=2.0, states=NO_STATE_LIMIT))
    endless = compiler.submit(ENDLESS)
    small = [compiler.submit(Regex(f"a{{{i}}}")) for i in range(1, 6)]
    assert [future.result(60).shortest for future in small] == [1, 2, 3, 4, 5]
    with pytest.raises(LimitExceeded, match="longer than 2 s"):
        endless.result(60)
    assert not workers(compiler)
    assert compiler.compile(Regex("b" * 5000)).num_states == 5001  # a fresh worker


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="RLIMIT_AS is Linux's")
def test_a_worker_that_wants_too_much_memory_fails_alone(make):
    limits = CompileLimits(seconds=100, states=NO_STATE_LIMIT, memory_mb=100)
    compiler = make(limits=limits)
    with pytest.raises(LimitExceeded, match="more than 100 MiB of memory"):
        compiler.compile(Regex(r"\w{1,2000}"))
    assert compiler.compile(Regex("b" * 5000)).num_states == 5001


def test_a_worker_that_dies_is_replaced(make, monkeypatch):
    monkeypatch.setattr(compiler_module, "_looks_small", lambda spec: False)
    compiler = make(limits=CompileLimits(seconds=100, states=NO_STATE_LIMIT))
    compiler.compile(Regex("a"))
    (idle,) = workers(compiler)
    os.kill(idle, signal.SIGKILL)
    wait_until(lambda: not compiler._workers._idle[0].is_alive)
    assert compiler.compile(Regex("b")).shortest == 1
    future = compiler.submit(ENDLESS)
    wait_until(lambda: bool(compiler._workers._busy))
    (busy,) = workers(compiler)
    os.kill(busy, signal.SIGKILL)
    with pytest.raises(LimitExceeded, match="ended with status -9"):
        future.result(60)


def test_close_ends_everything_and_fails_what_was_under_way(make):
    compiler = make(limits=CompileLimits(seconds=100, states=NO_STATE_LIMIT))
    futures: list[Future[CompiledGrammar]] = [
        compiler.submit(Regex(ENDLESS.pattern + "y" * i)) for i in range(6)
    ]
    wait_until(lambda: len(workers(compiler)) == 4)
    running = workers(compiler)
    compiler.close()
    for future in futures:
        with pytest.raises(GrammarError, match="closed"):
            future.result(60)
    assert not any(map(is_running, running))
    with pytest.raises(RuntimeError, match="closed"):
        compiler.submit(Regex("a"))
    compiler.close()


def test_a_forgotten_compiler_leaves_no_process(monkeypatch):
    monkeypatch.setattr(compiler_module, "_looks_small", lambda spec: False)

    def use_and_forget() -> int:
        compiler = GrammarCompiler(BYTES)
        compiler.compile(Regex("a"))
        (process,) = workers(compiler)
        return process

    def is_gone() -> bool:
        gc.collect()
        return not is_running(process)

    process = use_and_forget()
    wait_until(is_gone)


SCRIPT = textwrap.dedent(
    """
    from sapwood.constrained import CompileLimits, GrammarCompiler, Regex, Vocabulary
    print("started", flush=True)  # a second time, were the script run again by a child
    vocabulary = Vocabulary([*(bytes([i]) for i in range(256)), None], [256])
    compiler = GrammarCompiler(vocabulary, CompileLimits(seconds=300, states=10**9))
    compiler.compile(Regex("b" * 5000))
    print(*compiler._workers.process_ids, flush=True)
    """
)


def run_script(tmp_path, more: str) -> "subprocess.Popen[str]":
    script = tmp_path / "script.py"
    script.write_text(SCRIPT + textwrap.dedent(more))
    # A module of this name beside the script would break a child that searched here.
    (tmp_path / "pickle.py").write_text("raise SystemExit('wrong pickle')")
    return subprocess.Popen(
        [sys.executable, "-P", str(script)], stdout=subprocess.PIPE, text=True, cwd=tmp_path
    )


def test_a_script_without_a_main_guard_compiles_and_leaves_no_process(tmp_path):
    with run_script(tmp_path, "") as script:
        out, _ = script.communicate(timeout=120)
    assert script.returncode == 0
    started, process = out.split()
    assert started == "started"
    assert not is_running(int(process))


def test_a_parent_that_is_killed_leaves_no_orphan(tmp_path):
    busy = f"compiler.compile(Regex({ENDLESS.pattern!r}))"
    with run_script(tmp_path, busy) as script:
        assert script.stdout is not None
        assert script.stdout.readline() == "started\n"
        process = int(script.stdout.readline())
        time.sleep(1.0)  # so that it is in the midst of the endless one
        assert is_running(process)
        script.kill()
        script.wait()
    wait_until(lambda: not is_running(process))
