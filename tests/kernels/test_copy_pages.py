"""copy_pages: the CPU path and the Triton kernel against the definition."""

import pytest
import torch

from sapwood.kernels.copy_pages import copy_pages
from sapwood.kernels.copy_pages.reference import copy_pages_reference

DTYPES = [torch.float32, torch.float16, torch.bfloat16, torch.int8, torch.float8_e4m3fn]
# Layers, pages, and what a page has: up to an odd number of bytes, and more than one program's.
SHAPES = [
    (1, 8, 1, 1, 8),
    (2, 9, 4, 3, 5),
    (3, 8, 16, 2, 7),
    (2, 8, 16, 5, 80),
    (1, 8, 64, 3, 64),
    (4, 8, 1, 3),
    (2, 11, 16, 8),
]
PAIRS = {
    "none": ([], []),
    "one": ([3], [0]),
    "several": ([4, 0, 4], [1, 5, 2]),
    "padded": ([4, 0, 0, 3], [-1, 6, -1, 2]),
    "all padding": ([0, 0], [-1, -1]),
}


def random_bytes(shape: tuple[int, ...], dtype: torch.dtype, device: str) -> torch.Tensor:
    """Any bits at all, NaN among them."""
    size = torch.Size(shape).numel() * dtype.itemsize
    return torch.randint(256, (size,), dtype=torch.uint8, device=device).view(dtype).view(shape)


@pytest.mark.parametrize("pairs", PAIRS.values(), ids=PAIRS.keys())
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_copy_pages(
    shape: tuple[int, ...], pairs: tuple[list[int], list[int]], device: str
) -> None:
    sources, targets = (torch.tensor(p, dtype=torch.int64, device=device) for p in pairs)
    for dtype in DTYPES:
        stack = random_bytes(shape, dtype, device)
        wanted = stack.clone()
        copy_pages(stack, sources, targets)
        copy_pages_reference(wanted.view(torch.uint8), sources, targets)
        assert torch.equal(stack.view(torch.uint8), wanted.view(torch.uint8))


def test_misfits_are_refused() -> None:
    stack = torch.zeros(2, 4, 3)
    with pytest.raises(ValueError, match="sources for"):
        copy_pages(stack, torch.tensor([0]), torch.tensor([0, 1]))
    with pytest.raises(ValueError, match="are no stack"):
        copy_pages(stack.transpose(0, 1), torch.tensor([0]), torch.tensor([1]))
