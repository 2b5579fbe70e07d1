"""The table of masks against the plain path, on this machine's memory: the same tokens, fewer
copies."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sapwood._native import NativeUnavailable
from sapwood.constrained import CompiledGrammar, CompileLimits, JsonSchema, Regex, Vocabulary
from sapwood.constrained.lower import lower
from sapwood.constrained.pushdown.native import library
from sapwood.runtime.batch import Sampling
from sapwood.runtime.torch_path.device_sampler import DeviceSampler
from sapwood.runtime.torch_path.mask_table import MaskTable
from sapwood.runtime.torch_path.sampler import Sampler

EOS = 256
BYTES = Vocabulary([*(bytes([i]) for i in range(256)), None], [EOS])
WORDS = BYTES.num_words
SPECS = [
    Regex("[a-f]{2,12}"),
    Regex("(ab|ba)*c"),
    Regex("[a-f]+"),
    JsonSchema.of({"type": "object", "properties": {"a": {"type": "integer"}}}),
]


def grammars() -> list[CompiledGrammar]:
    return [CompiledGrammar(spec, lower(spec, CompileLimits()), BYTES, 60.0) for spec in SPECS]


def row(grammar: object, budget: int, banned: tuple[int, ...], position: int) -> Sampling:
    return Sampling(
        *(1.0, -1, 1.0, 0.0, position, position), banned=banned, grammar=grammar, budget=budget
    )  # type: ignore[arg-type]


def table(num_rows: int) -> MaskTable:
    return MaskTable(num_rows, WORDS, torch.device("cpu"))


@settings(max_examples=30, deadline=None)
@given(
    st.integers(2, 9),
    st.lists(
        st.lists(
            st.tuples(st.integers(-1, 3), st.sampled_from([3, 9, 500]), st.booleans()), max_size=5
        ),
        min_size=1,
        max_size=12,
    ),
)
def test_the_table_changes_no_token(
    num_rows: int, steps: list[list[tuple[int, int, bool]]]
) -> None:
    """Each step: rows of (grammar or none, budget, whether tokens are banned)."""
    compiled = grammars()
    states = [grammar.start() for grammar in compiled]
    plain, tabled = Sampler(257), DeviceSampler(257, table(num_rows))
    generator = torch.Generator().manual_seed(len(steps))
    for number, step in enumerate(steps):
        rows = [
            row(states[which] if which >= 0 else None, budget, (EOS, 97) if bans else (), number)
            for which, budget, bans in step
        ]
        logits = torch.randn(len(rows), 257, generator=generator)
        expected = plain.draw(logits, rows).collect()
        assert tabled.draw(logits, rows).collect() == expected
        for (which, _, _), token in zip(step, expected, strict=True):
            if which >= 0 and not states[which].accept(token):
                states[which] = compiled[which].start()


def test_warm_rows_are_not_copied() -> None:
    try:
        library()
    except NativeUnavailable as unavailable:
        pytest.skip(str(unavailable))
    state = grammars()[2].start()
    kept = table(4)
    sampler = DeviceSampler(257, kept)
    for _ in range(10):
        rows = [row(state, 500, (), 0)._replace(temperature=0.0)] * 3
        token = sampler.draw(torch.zeros(3, 257), rows).collect()[0]
        assert state.accept(token)
    assert kept.num_copied == 2  # with and without the end


def test_the_least_recently_used_row_gives_way() -> None:
    kept = table(2)
    masks = np.arange(3 * WORDS, dtype=np.int32).reshape(3, WORDS)
    first, second = kept.put(["a", "b"], masks[:2])
    assert kept.find("a") == first
    assert kept.put(["c"], masks[2:]) == [second]
    assert kept.find("b") is None and kept.find("a") == first
    assert (kept.rows[second].numpy() == masks[2]).all()
