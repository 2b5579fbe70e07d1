"""One seed, one thread: the kernels' tests are small. And what tests of an op's two paths share."""

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(autouse=True)
def quiet_torch() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)


@pytest.fixture(params=["torch", "triton"])
def device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Where the tensors of a test are to be, once for the op's CPU path and once for its Triton
    path: on a GPU, or without one in Triton's interpreter."""
    if request.param == "torch":
        return "cpu"
    pytest.importorskip("triton")
    if torch.cuda.is_available():
        return "cuda"
    monkeypatch.setattr("sapwood.kernels.implementation.is_triton", lambda x: True)
    return "cpu"


@pytest.fixture
def poisoned_memory() -> Iterator[None]:
    """Fresh tensors hold NaN, or the largest integer."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)  # which fills what `torch.empty` returns
    yield
    torch.use_deterministic_algorithms(before)
