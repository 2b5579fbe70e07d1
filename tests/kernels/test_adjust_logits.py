"""Penalties and biases: the definition against plain loops, the Triton kernels against the
definition."""

import numpy as np
import pytest
import torch

pytest.importorskip("triton")

from sapwood.kernels.adjust_logits import Adjustments, adjust_logits
from sapwood.kernels.adjust_logits.triton_kernel import adjust_logits_triton

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def random_case(seed: int) -> tuple[torch.Tensor, Adjustments]:
    random = np.random.default_rng(seed)
    rows, vocab = int(random.integers(1, 5)), int(random.choice([1, 7, 64, 333, 2_050]))
    penalized = random.permutation(rows)[: random.integers(0, rows + 1)]
    which = np.full(rows, -1, np.int32)
    which[penalized] = np.arange(len(penalized))
    count = int(random.integers(0, 600)) if len(penalized) else 0
    pairs = {(int(random.integers(rows)), int(random.integers(vocab))) for _ in range(seed % 7)}
    biases = np.array(sorted(pairs), np.int32).reshape(-1, 2)

    def column(values: object, dtype: torch.dtype) -> torch.Tensor:
        return torch.tensor(np.asarray(values), dtype=dtype, device=DEVICE)

    logits = torch.randn(rows, vocab, device=DEVICE) * 4
    if seed % 3 == 0:
        logits[0, 0] = -torch.inf
    return logits, Adjustments(
        which=column(which, torch.int32),
        owners=column(random.integers(0, max(len(penalized), 1), count), torch.int32),
        tokens=column(random.integers(0, min(vocab, 40), count), torch.int32),
        num_prompt=int(random.integers(0, count + 1)),
        repetition=column(random.choice([1.0, 1.3, 0.7], len(penalized)), torch.float32),
        frequency=column(random.choice([0.0, 0.3, -1.5], len(penalized)), torch.float32),
        presence=column(random.choice([0.0, 0.7, -0.2], len(penalized)), torch.float32),
        bias_rows=column(biases[:, 0], torch.int32),
        bias_tokens=column(biases[:, 1], torch.int32),
        bias_values=column(random.normal(size=len(biases)), torch.float32),
    )


def by_loops(logits: torch.Tensor, a: Adjustments) -> torch.Tensor:
    wanted = logits.double().clone()
    owners, tokens = a.owners.tolist(), a.tokens.tolist()
    for row, number in enumerate(a.which.tolist()):
        if number < 0:
            continue
        mine = [
            (token, at >= a.num_prompt)
            for at, (owner, token) in enumerate(zip(owners, tokens, strict=True))
            if owner == number
        ]
        for token in {token for token, _ in mine}:
            x, factor = float(wanted[row, token]), float(a.repetition[number])
            x = x / factor if x > 0 else x * factor
            output = sum(is_output for one, is_output in mine if one == token)
            if output:
                x -= output * float(a.frequency[number]) + float(a.presence[number])
            wanted[row, token] = x
    for row, token, value in zip(
        a.bias_rows.tolist(), a.bias_tokens.tolist(), a.bias_values.tolist(), strict=True
    ):
        wanted[row, token] += value
    return wanted


@pytest.mark.parametrize("seed", range(32))
def test_random_cases(seed: int) -> None:
    torch.manual_seed(seed)
    logits, adjustments = random_case(seed)
    before = logits.clone()
    defined = adjust_logits(logits, adjustments)
    assert torch.allclose(defined.double(), by_loops(logits, adjustments), rtol=1e-5, atol=1e-5)
    assert torch.equal(adjust_logits_triton(logits, adjustments), defined)
    assert torch.equal(logits, before)


def test_wrong_shapes_are_refused() -> None:
    logits, adjustments = random_case(3)
    with pytest.raises(ValueError, match="which is"):
        adjust_logits(torch.zeros(9, logits.shape[1]), adjustments)
    with pytest.raises(TypeError, match="must be float32"):
        adjust_logits(logits.double(), adjustments)
