"""gated_activation: the CPU path and the Triton kernel against the definition."""

import math
from typing import get_args

import pytest
import torch

from sapwood.kernels.gated_activation import Activation, gated_activation
from sapwood.kernels.gated_activation.reference import gated_activation_reference

pytestmark = [
    pytest.mark.usefixtures("poisoned_memory"),
    # The interpreter's numpy warns where an exponential becomes infinite; its inverse is right.
    pytest.mark.filterwarnings("ignore:overflow encountered in exp:RuntimeWarning"),
]

TOLERANCE = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1.5e-2}
WIDTHS = [1, 2, 3, 8, 15, 16, 17, 63, 100, 128, 576, 1_023, 1_024, 1_025, 1_536, 3_000]
SHAPES = [*[(rows, width) for width in WIDTHS for rows in (1, 3)], (0, 4), (5, 0), (65, 40)]
activations = pytest.mark.parametrize("activation", get_args(Activation))


@activations
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_gated_activation(shape: tuple[int, int], activation: Activation, device: str) -> None:
    for dtype, tolerance in TOLERANCE.items():
        gate_up = (torch.randn(shape[0], 2 * shape[1], device=device) * 3).to(dtype)
        got = gated_activation(gate_up, activation)
        wanted = gated_activation_reference(gate_up, activation)
        assert got.shape == shape and got.dtype is dtype
        size = max(1.0, wanted.double().abs().max().item()) if got.numel() else 1.0
        assert torch.allclose(got.double(), wanted.double(), rtol=0, atol=tolerance * size)


def test_silu_by_hand(device: str) -> None:
    gates_and_ups = torch.tensor([[0.0, 1.0, 5.0, 2.0]], device=device)
    got = gated_activation(gates_and_ups, "silu")
    assert got.tolist() == [pytest.approx([0.0, 2 / (1 + math.exp(-1))])]


@activations
def test_far_from_zero(activation: Activation, device: str) -> None:
    gate_up = torch.tensor([[-3e4, -200.0, 200.0, 3e4, 1.0, 1.0, 1.0, 2.0]], device=device)
    assert gated_activation(gate_up, activation).tolist() == [[0.0, 0.0, 200.0, 6e4]]


@activations
def test_the_activation_is_that_of_transformers(activation: Activation) -> None:
    from transformers.activations import ACT2FN

    theirs = {"silu": "silu", "gelu": "gelu", "gelu_tanh": "gelu_pytorch_tanh"}[activation]
    gate, up = torch.randn(4, 33), torch.randn(4, 33)
    wanted = ACT2FN[theirs](gate) * up
    got = gated_activation_reference(torch.cat((gate, up), dim=1), activation)
    assert torch.allclose(got, wanted, atol=1e-6)


def test_misfits_are_refused() -> None:
    with pytest.raises(ValueError, match=r"even width, got \(2, 5\)"):
        gated_activation(torch.zeros(2, 5))
    with pytest.raises(ValueError, match="no activation 'relu'"):
        gated_activation(torch.zeros(2, 4), "relu")  # type: ignore[arg-type]
