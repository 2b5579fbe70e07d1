"""How long the prefix cache takes for what a scheduler asks of it: `python benchmarks/radix.py`.

Targets: a match of 32,768 tokens below 1 ms, the eviction of one leaf among 100,000 nodes below
50 us. Prints one line per case: median, worst of the runs.
"""

import platform
import statistics
import sys
from array import array
from collections.abc import Callable
from functools import partial
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from sapwood.radix_cache import PrefixCache, PrefixMatch

PAGE = 16
NUM_TOKENS = 32_768
NUM_PAGES = NUM_TOKENS // PAGE
NUM_SIBLINGS = 100_000

Ids = NDArray[np.int32]


def measure(name: str, run: Callable[[], object], runs: int, undo: Callable[[], object]) -> None:
    """Time `run` alone; `undo` brings the cache back between the runs."""
    seconds = []
    for _ in range(runs):
        begin = perf_counter()
        run()
        seconds.append(perf_counter() - begin)
        undo()
    median, worst = statistics.median(seconds) * 1e6, max(seconds) * 1e6
    print(f"{name:<58} {median:>9.1f} us  (worst of {runs}: {worst:.1f})")


def nothing() -> None:
    """Where a run needs no undoing."""


def fill(cache: PrefixCache, tokens: Ids) -> None:
    lease = cache.acquire(tokens)
    pages = cache.allocate(-(-len(tokens) // PAGE) - len(lease.pages))
    cache.finish(lease, tokens, [*lease.pages, *pages])


def match(kind: str, cache: PrefixCache, prompt: Ids) -> None:
    assert cache.peek(prompt) == NUM_TOKENS
    forms = {
        "int32 array": prompt,
        "array('i')": array("i", prompt.tolist()),
        "list": prompt.tolist(),
    }
    for form, tokens in forms.items():
        measure(f"peek 32k tokens, {kind}, {form}", partial(cache.peek, tokens), 51, nothing)
    leases: list[PrefixMatch] = []
    name = f"acquire 32k tokens, {kind}, int32 array"
    measure(
        name,
        lambda: leases.append(cache.acquire(prompt)),
        51,
        lambda: cache.release(leases.pop()),
    )
    leases.append(cache.acquire(prompt))
    measure(
        f"release the same, {kind}",
        lambda: cache.release(leases.pop()),
        51,
        lambda: leases.append(cache.acquire(prompt)),
    )


def long_prompts() -> None:
    prompt = np.random.default_rng(0).integers(0, 50_000, NUM_TOKENS, dtype=np.int32)
    cache = PrefixCache(NUM_PAGES, PAGE)
    fill(cache, prompt)
    match("one edge", cache, prompt)

    cache = PrefixCache(NUM_PAGES, PAGE)
    fill(cache, prompt)
    for end in range(PAGE, NUM_TOKENS, PAGE):  # a match that ends here splits the edge here
        cache.release(cache.acquire(prompt[:end]))
    match("2,048 nodes", cache, prompt)


def commits() -> None:
    prompt = np.random.default_rng(1).integers(0, 50_000, NUM_TOKENS, dtype=np.int32)
    cache = PrefixCache(2 * NUM_PAGES, PAGE)
    state: list[tuple[PrefixMatch, list[int]]] = []

    def begin() -> None:
        cache.evict_all()
        state.append((cache.acquire(prompt), cache.allocate(NUM_PAGES)))

    def end() -> None:
        cache.release(state.pop()[0])
        begin()

    def commit() -> None:
        lease, pages = state.pop()
        state.append(cache.commit(lease, prompt, pages))

    begin()
    measure("commit 32k new tokens", commit, 51, end)
    commit()

    tokens = prompt

    def generate() -> None:
        nonlocal tokens
        lease, pages = state.pop()
        tokens = np.concatenate([tokens, prompt[:PAGE]])
        state.append(cache.commit(lease, tokens, pages + cache.allocate(1)))

    measure("commit one page after 32k tokens (and its allocation)", generate, 51, nothing)


def siblings() -> None:
    """100,000 leaves below the root that share their first 12 tokens."""
    rng = np.random.default_rng(2)
    header = rng.integers(0, 50_000, 12, dtype=np.int32)
    tails = rng.integers(0, 50_000, (NUM_SIBLINGS, PAGE - 12), dtype=np.int32)
    cache = PrefixCache(NUM_SIBLINGS, PAGE)
    for tail in tails:
        fill(cache, np.concatenate([header, tail]))
    assert cache.num_evictable == cache.num_pages
    probes = iter(rng.permutation(tails))

    def peek() -> None:
        probe = next(probes).copy()
        probe[-1] += 50_000  # held by nobody: diverges in the last token
        assert cache.peek(np.concatenate([header, probe])) == PAGE - 1

    measure("peek among 100k siblings, match inside their first page", peek, 1001, nothing)
    measure(
        "allocate(1): evict one leaf of 100k siblings", lambda: cache.allocate(1), 1001, nothing
    )


def chains() -> None:
    """100,000 nodes in 10,000 branching paths of 10."""
    rng = np.random.default_rng(3)
    cache = PrefixCache(NUM_SIBLINGS, PAGE)
    for tokens in rng.integers(0, 50_000, (10_000, 10 * PAGE), dtype=np.int32):
        fill(cache, tokens)
        for end in range(PAGE, 10 * PAGE, PAGE):
            cache.release(cache.acquire(tokens[:end]))
    measure(
        "allocate(1): evict one leaf of 10k paths of 10 nodes",
        lambda: cache.allocate(1),
        1001,
        nothing,
    )


def processor() -> str:
    try:
        with open("/proc/cpuinfo") as info:
            return next(
                line.split(":")[1].strip() for line in info if line.startswith("model name")
            )
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


if __name__ == "__main__":
    print(f"{processor()}; Python {sys.version.split()[0]}; NumPy {np.__version__}; page of {PAGE}")
    long_prompts()
    commits()
    siblings()
    chains()
