"""The sampler of a device against the one of this memory: the same tokens. It runs through the
definitions of its kernels, and through Triton's interpreter."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

pytest.importorskip("triton")

from sapwood.kernels import implementation
from sapwood.runtime.batch import Penalties, Sampling
from sapwood.runtime.torch_path.device_sampler import DeviceSampler
from sapwood.runtime.torch_path.mask_table import MaskTable
from sapwood.runtime.torch_path.sampler import Sampler

VOCAB = 40


class FixedGrammar:
    def __init__(self, seed: int) -> None:
        self.words = np.random.default_rng(seed).integers(-(2**31), 2**31, 2).astype(np.int32)

    def fill_mask(self, row: NDArray[np.int32], budget: int | None = None) -> None:
        row[:] = self.words


def device_sampler(num_rows: int = 4) -> DeviceSampler:
    return DeviceSampler(VOCAB, MaskTable(num_rows, 2, torch.device("cpu")))


token = st.integers(0, VOCAB - 1)
tokens = st.lists(token, max_size=6).map(lambda ids: np.array(ids, np.int32))
samplings = st.builds(
    Sampling,
    temperature=st.sampled_from([0.0, 0.7, 1.0, 2.0]),
    top_k=st.sampled_from([-1, -1, 3, 10**12]),
    top_p=st.sampled_from([1.0, 1.0, 0.71]),
    min_p=st.sampled_from([0.0, 0.0, 0.113]),
    stream=st.integers(0, 2**64 - 1),
    position=st.integers(0, 2**40),
    logit_bias=st.lists(st.tuples(token, st.sampled_from([-100.0, 0.5, 3.0])), max_size=3).map(
        tuple
    ),
    banned=st.lists(token, max_size=2).map(tuple),
    penalties=st.none()
    | st.builds(
        Penalties,
        output=tokens,
        prompt=tokens,
        frequency=st.sampled_from([0.0, 0.25, -1.5]),
        presence=st.sampled_from([0.0, 0.5]),
        repetition=st.sampled_from([1.0, 1.25, 0.5]),
    ),
    grammar=st.none() | st.integers(0, 99).map(FixedGrammar),
)
batches = st.tuples(st.lists(samplings, max_size=6), st.integers(0, 999))


def compare(batch: tuple[list[Any], int], num_rows: int) -> None:
    rows, seed = batch
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(len(rows), VOCAB, generator=generator) * 3
    before = logits.clone()
    wanted = Sampler(VOCAB).draw(logits, rows).collect()
    assert device_sampler(num_rows).draw(logits, rows).collect() == wanted
    assert torch.equal(logits, before)


@settings(deadline=None, max_examples=60)
@given(batches, st.sampled_from([2, 9]))  # 2: more masks than the table has rows
def test_the_same_tokens(batch: tuple[list[Any], int], num_rows: int) -> None:
    compare(batch, num_rows)


@settings(deadline=None, max_examples=12)
@given(batches)
def test_the_same_tokens_in_triton(batch: tuple[list[Any], int]) -> None:
    rows, seed = batch
    logits = torch.randn(len(rows), VOCAB, generator=torch.Generator().manual_seed(seed)) * 3
    wanted = Sampler(VOCAB).draw(logits, rows).collect()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(implementation, "is_triton", lambda x: True)
        assert device_sampler().draw(logits, rows).collect() == wanted


def test_rows_with_the_same_bans_share_a_mask() -> None:
    table = MaskTable(4, 2, torch.device("cpu"))
    sampler = DeviceSampler(VOCAB, table)
    row = Sampling(0.0, -1, 1.0, 0.0, 1, 0, banned=(3,))
    for _ in range(5):
        sampler.draw(torch.randn(3, VOCAB), [row, row._replace(banned=(4,)), row])
    assert table.num_copied == 2
