"""Compiling off the caller's thread: caching, sharing, lanes, limits."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from sapwood.constrained import (
    Choice,
    CompileLimits,
    GrammarCompiler,
    GrammarError,
    JsonSchema,
    LimitExceeded,
    Regex,
    Unsupported,
    Vocabulary,
)
from sapwood.constrained import cache as cache_module
from sapwood.constrained import compiled as compiled_module
from sapwood.constrained import compiler as compiler_module

BYTES = Vocabulary([*(bytes([i]) for i in range(256)), None], [256])

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


def wait_until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize("spec", [Regex("a+"), Choice(("a", "b")), JsonSchema.of(True)], ids=str)
def test_equal_specs_share_one_grammar(spec, make):
    compiler = make()
    grammar = compiler.compile(spec)
    assert grammar.spec == spec
    twin = type(spec)(*vars(spec).values())
    assert compiler.compile(twin) is grammar


def test_the_cache_keeps_the_latest(make):
    compiler = make(cache_size=2)
    first, second = compiler.compile(Regex("a")), compiler.compile(Regex("b"))
    assert compiler.compile(Regex("a")) is first
    compiler.compile(Regex("c"))
    assert compiler.compile(Regex("a")) is first
    assert compiler.compile(Regex("b")) is not second
    for name in ("cache_size", "cache_bytes"):
        with pytest.raises(GrammarError, match=f"{name} is at least 1"):
            make(**{name: 0})


def grow(state, letters: str) -> None:
    """Let the machine of a state meet a text."""
    row = np.empty(BYTES.num_words, np.int32)
    for letter in letters.encode():
        state.fill_mask(row)
        assert state.accept(letter)


def test_the_cache_keeps_to_its_bytes_and_never_drops_what_is_used(make):
    specs = [Regex(f"[{letter}a-f]{{0,3000}}") for letter in "uvwxyz"]
    one = make().compile(specs[0])
    grow(one.start(), "abc" * 900)
    assert one.num_bytes > 200_000
    compiler = make(cache_bytes=3 * one.num_bytes)
    states = []
    for number, spec in enumerate(specs):
        state = compiler.compile(spec).start()
        grow(state, "abc" * 900)
        if number < 2:
            states.append(state)
    compiler._cache.trim()
    kept = [spec for spec in specs if compiler._cache.find(spec) is not None]
    assert kept[:2] == specs[:2] and kept[-1] == specs[-1] and len(kept) <= 3
    assert compiler._cache.num_bytes <= 3.5 * one.num_bytes
    del state, states
    compiler.compile(Regex("a"))
    compiler._cache.trim()
    assert compiler._cache.num_bytes <= 3 * one.num_bytes


def test_the_cache_is_trimmed_while_grammars_grow_in_use(make):
    first, second = Regex("[a-f]{0,3000}"), Regex("[a-g]{0,3000}")
    compiler = make(cache_bytes=300_000)
    for spec in (first, second):
        compiler.compile(spec)
        grow(compiler.compile(spec).start(), "abc" * 900)
    for _ in range(compiler_module._HITS_BETWEEN_TRIMS):
        compiler.compile(second)
    wait_until(lambda: first not in compiler._cache._grammars)  # to find it would be to use it
    assert compiler.compile(second).shortest == 0


def test_the_texts_of_refusals_are_within_the_bytes(make):
    compiler = make(cache_bytes=1_000_000, limits=CompileLimits(states=10))
    specs = [Regex("a" * 20_000 + str(n)) for n in range(5)]
    for spec in specs:
        with pytest.raises(LimitExceeded):
            compiler.compile(spec)
    assert compiler._cache.refusal(specs[0]) is None
    assert compiler._cache.refusal(specs[-1]) is not None


def test_a_large_machine_is_renewed_off_the_callers_thread(make, monkeypatch):
    monkeypatch.setattr(compiled_module, "_MANY_BYTES", 200_000)
    threads, plain = [], compiled_module.token_machine

    def token_machine(*arguments):
        threads.append(threading.current_thread())
        return plain(*arguments)

    monkeypatch.setattr(compiled_module, "token_machine", token_machine)
    grammar = make().compile(Regex("[a-f]{0,3000}"))
    before, state = grammar.machine, grammar.start()
    grow(state, "abc" * 900)
    for _ in range(5):
        assert grammar.start().accept(ord("a"))
    wait_until(lambda: grammar.machine is not before)
    assert grammar.num_bytes < 200_000
    grow(state, "abc")  # it goes on where it began
    assert grammar.matches(b"abc" * 901) and grammar.start().accept(ord("a"))
    assert threads[1:] and threading.current_thread() not in threads[1:]


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
        (JsonSchema.of({"minProperties": 3}), Unsupported, "JSON schema .*#/minProperties"),
        (JsonSchema.of({"not": {}}), GrammarError, "accepts no text at all"),
        (JsonSchema("{"), GrammarError, "not JSON"),
        (Choice(("\udc00",)), GrammarError, "choice of 1 options: .*surrogate"),
        ("a+", GrammarError, "'a\\+' is not a constraint"),
        (Choice(tuple("x" * n for n in range(1, 2000))), LimitExceeded, "more than 1500 states"),
    ],
)
def test_errors_reach_the_caller_and_the_next_spec_compiles(spec, error, message, make):
    compiler = make(limits=CompileLimits(states=1500))
    for _ in range(2):
        with pytest.raises(error, match=message):
            compiler.compile(spec)
    assert compiler.compile(Regex("a")).shortest == 1


def test_limits_are_checked():
    for limits in ({"seconds": 0}, {"states": -1}):
        with pytest.raises(GrammarError, match="must be positive"):
            CompileLimits(**limits)


def test_what_takes_longer_than_a_moment_does_not_hold_up_others(make, monkeypatch):
    compiler = make()
    go, begun = threading.Event(), []

    def lower(spec, limits):
        if "slow" not in spec.pattern:
            return plain(spec, limits)
        if limits.seconds < compiler._limits.seconds:
            raise LimitExceeded("it took longer")
        begun.append(spec)
        assert go.wait(60)
        return plain(spec, limits)

    plain = compiler_module.lower
    monkeypatch.setattr(compiler_module, "lower", lower)
    slow = [compiler.submit(Regex(f"slow{i}")) for i in range(8)]
    wait_until(lambda: len(begun) == 2)
    assert compiler.compile(Regex("ab")).shortest == 2
    assert not any(future.done() for future in slow)
    go.set()
    assert all(future.result(60).shortest == 5 for future in slow)


def test_what_passed_the_limits_is_refused_at_once_for_a_while(make, monkeypatch):
    compiler = make()
    calls = []

    def refuse(spec, limits):
        calls.append(spec)
        raise LimitExceeded("it took longer")

    monkeypatch.setattr(compiler_module, "lower", refuse)
    spec = Regex("b")
    errors = []
    for _ in range(3):
        with pytest.raises(LimitExceeded, match="it took longer") as caught:
            compiler.compile(spec)
        errors.append(caught.value)
    assert calls == [spec] * 2  # once in each lane
    assert len(set(map(id, errors))) == 3  # one exception raised often would gather tracebacks
    monkeypatch.setattr(cache_module, "_REFUSAL_SECONDS", -1.0)
    other = Regex("c")
    for _ in range(2):
        with pytest.raises(LimitExceeded):
            compiler.compile(other)
    assert calls == [spec] * 2 + [other] * 4


def test_so_many_refusals_are_kept_as_grammars(make):
    compiler = make(cache_size=1, limits=CompileLimits(states=10))
    first, second = Regex("a" * 20), Regex("b" * 20)
    for spec in (first, second):
        with pytest.raises(LimitExceeded):
            compiler.compile(spec)
    assert compiler._cache.refusal(first) is None
    assert "more than 10 states" in str(compiler._cache.refusal(second))


PATHOLOGICAL = {
    "nested counts": Regex("((a{1,1000}){1,1000}){1,1000}"),
    "nested stars": Regex("(((a*)*)*)*b"),
    "many groups": Regex("(" * 5000 + "a" + ")" * 5000),
    "exponential if determinised": Regex("(a|b)*a.{30}"),
    "long pattern": Regex("ab?" * 60_000),
    "wide choice": Choice(tuple(f"option {i}" for i in range(100_000))),
    "NUL": JsonSchema.of({"const": "a\0b", "pattern": "\0"}),
    "deep schema": JsonSchema("[" * 100_000),
    "nested schema": JsonSchema('{"items":' * 900 + "{}" + "}" * 900),
    "reference loop": JsonSchema.of({"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/a"}}}),
    "large schema": JsonSchema.of(
        {"properties": {f"p{i}": {"type": "string", "maxLength": i} for i in range(20_000)}}
    ),
    "many alternatives": JsonSchema.of(
        {"allOf": [{"anyOf": [{"minLength": i}, {"pattern": f"^{i}"}]} for i in range(30)]}
    ),
    "backtracking pattern": JsonSchema.of(
        {"patternProperties": {"(a+)+$": {}}, "properties": {"a" * 40 + "!": {}}}
    ),
}


@pytest.mark.parametrize("spec", PATHOLOGICAL.values(), ids=PATHOLOGICAL)
def test_what_is_pathological_is_served_or_refused(spec, make):
    compiler = make()
    try:
        grammar = compiler.submit(spec).result(60)
    except GrammarError as error:
        assert str(error)
    else:
        assert grammar.shortest >= 0
    assert compiler.compile(Regex("a")).shortest == 1


def test_close_fails_what_has_not_begun(make, monkeypatch):
    compiler = make()
    go = threading.Event()

    def slowly(spec, limits):
        assert go.wait(60)
        return plain(spec, limits)

    plain = compiler_module.lower
    monkeypatch.setattr(compiler_module, "lower", slowly)
    futures = [compiler.submit(Regex("a" * i)) for i in range(1, 7)]
    closing = threading.Thread(target=compiler.close)
    closing.start()
    wait_until(lambda: compiler._closed)
    go.set()
    closing.join(60)
    for future in futures[2:]:
        with pytest.raises(GrammarError, match="closed"):
            future.result(60)
    with pytest.raises(RuntimeError, match="closed"):
        compiler.submit(Regex("a"))
    compiler.close()


def test_who_waits_compiles_in_his_own_thread(make, monkeypatch):
    compiler, threads = make(), []

    def noting(spec, limits):
        threads.append(threading.current_thread())
        return plain(spec, limits)

    plain = compiler_module.lower
    monkeypatch.setattr(compiler_module, "lower", noting)
    assert compiler.compile(Regex("a")).shortest == 1
    assert compiler.submit(Regex("b")).result(60).shortest == 1
    assert threads[0] is threading.current_thread()
    assert threads[1] is not threads[0]


@pytest.mark.parametrize("passes_limit", [False, True])
def test_what_is_compiled_while_the_compiler_closes_ends(make, monkeypatch, passes_limit):
    compiler = make()
    begun, go = threading.Event(), threading.Event()

    def slowly(spec, limits):
        begun.set()
        assert go.wait(60)
        if passes_limit:
            raise LimitExceeded("it took longer")
        return plain(spec, limits)

    plain = compiler_module.lower
    monkeypatch.setattr(compiler_module, "lower", slowly)
    with ThreadPoolExecutor(1) as threads:
        found = threads.submit(compiler.compile, Regex("a"))
        assert begun.wait(60)
        compiler.close()
        go.set()
        with pytest.raises(GrammarError, match="closed"):
            found.result(60)
