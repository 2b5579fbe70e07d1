"""Log-probabilities: the CPU path and the Triton kernels against the definition."""

import math

import numpy as np
import pytest
import torch

pytest.importorskip("triton")

from sapwood.kernels.logprobs import token_logprobs, triton_kernel
from sapwood.kernels.logprobs.reference import token_logprobs_reference
from sapwood.kernels.logprobs.triton_kernel import token_logprobs_triton

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"

# Vocabulary, how many of the likeliest, tokens of a chunk, steps of the logits (0: none).
SHAPES = [
    (1, 1, 16, 0), (2, 0, 16, 0), (2, 2, 16, 4), (3, 1, 2, 0), (5, 5, 4, 2), (16, 3, 16, 0),
    (17, 2, 16, 0), (31, 0, 32, 0), (32, 5, 32, 2), (33, 5, 32, 2), (40, 40, 32, 0),
    (63, 4, 64, 0), (64, 1, 64, 0), (65, 7, 64, 1), (77, 20, 64, 1), (100, 0, 64, 0),
    (127, 6, 64, 0), (128, 6, 64, 2), (129, 6, 64, 2), (130, 128, 128, 1), (200, 3, 256, 0),
    (255, 3, 128, 0), (257, 10, 128, 1), (300, 2, 128, 0), (511, 1, 256, 0), (600, 5, 256, 1),
    (777, 0, 256, 0), (1_000, 20, 512, 1), (1_025, 2, 1_024, 0), (2_049, 5, 2_048, 2),
    (4_097, 2, 2_048, 0), (6_000, 5, 2_048, 1),
]  # fmt: skip


@pytest.mark.parametrize(("vocab", "top", "chunk", "steps"), SHAPES)
def test_shapes(
    vocab: int, top: int, chunk: int, steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(triton_kernel, "_CHUNK", chunk)
    wide = torch.full((3, vocab + 3), 99.0, device=DEVICE)
    logits = wide[:, :vocab]  # rows that lie apart
    logits.copy_(torch.randn(3, vocab, device=DEVICE) * 4)
    if steps:
        logits.copy_((logits * steps).round() / steps)
    rows = torch.tensor([2, 0, 2, 1], device=DEVICE)
    tokens = torch.randint(vocab, (4,), device=DEVICE)
    wanted = token_logprobs_reference(logits, rows, tokens, top)
    got = token_logprobs_triton(logits, rows, tokens, top)
    assert torch.allclose(got[0], wanted[0], rtol=0, atol=1e-5)
    assert torch.equal(got[1], wanted[1])
    assert torch.allclose(got[2], wanted[2], rtol=0, atol=1e-5)
    on_cpu = token_logprobs(logits.cpu(), rows.cpu(), tokens.cpu(), top)
    assert torch.allclose(on_cpu.of_tokens, wanted[0].cpu(), rtol=0, atol=1e-5)
    assert torch.allclose(on_cpu.top_values, wanted[2].cpu(), rtol=0, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("vocab", [50_257, 128_256, 262_144])
def test_large_vocabularies(vocab: int) -> None:
    logits = torch.randn(2, vocab, device=DEVICE) * 3
    rows, tokens = torch.tensor([1, 0], device=DEVICE), torch.tensor([7, vocab - 1], device=DEVICE)
    wanted = token_logprobs_reference(logits, rows, tokens, 20)
    got = token_logprobs_triton(logits, rows, tokens, 20)
    assert torch.allclose(got[0], wanted[0], rtol=0, atol=1e-5)
    assert torch.equal(got[1], wanted[1])


def test_forbidden_tokens_and_zeros_of_either_sign(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triton_kernel, "_CHUNK", 4)
    logits = torch.full((2, 9), -math.inf, device=DEVICE)
    logits[0, [2, 5, 7]] = torch.tensor([-0.0, 0.0, 1.0], device=DEVICE)
    logits[1, 8] = 3e38
    rows, tokens = torch.tensor([0, 1, 0], device=DEVICE), torch.tensor([2, 8, 1], device=DEVICE)
    with np.errstate(over="ignore"):
        found = token_logprobs_triton(logits, rows, tokens, 4)
    norm = math.log(2 + math.e)
    assert found[0].tolist() == [pytest.approx(-norm), 0.0, -math.inf]
    assert found[1][0].tolist() == [7, 2, 5, 0]
    assert found[1][1].tolist() == [8, 0, 1, 2]
    assert found[2][0].tolist() == [pytest.approx(1 - norm), *[pytest.approx(-norm)] * 2, -math.inf]


def test_entries_in_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triton_kernel, "_MOST_LIKELIEST", 4)
    logits = torch.randn(3, 20, device=DEVICE)
    rows, tokens = (torch.tensor(ids, device=DEVICE) for ids in ([0, 1, 2, 1, 0], [5, 6, 7, 8, 9]))
    got = token_logprobs_triton(logits, rows, tokens, 2)
    wanted = token_logprobs_reference(logits, rows, tokens, 2)
    assert torch.allclose(got[0], wanted[0], rtol=0, atol=1e-5)
    assert torch.equal(got[1], wanted[1])


def test_nothing_asked() -> None:
    none = torch.empty(0, dtype=torch.int64, device=DEVICE)
    for compute in (token_logprobs, token_logprobs_triton):
        found = compute(torch.zeros(2, 5, device=DEVICE), none, none, 3)
        assert [tuple(one.shape) for one in found] == [(0,), (0, 3), (0, 3)]


def test_wrong_shapes_are_refused() -> None:
    tokens = torch.zeros(2, dtype=torch.int64)
    with pytest.raises(TypeError, match="must be float32"):
        token_logprobs(torch.zeros(2, 5).half(), tokens, tokens, 1)
    with pytest.raises(ValueError, match=r"rows are \(1,\) for tokens \(2,\)"):
        token_logprobs(torch.zeros(2, 5), tokens[:1], tokens, 1)
