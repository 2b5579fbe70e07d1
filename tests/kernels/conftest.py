"""One seed, one thread: the kernels' tests are small."""

import pytest
import torch


@pytest.fixture(autouse=True)
def quiet_torch() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
