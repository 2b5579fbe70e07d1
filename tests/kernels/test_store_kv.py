"""store_kv and rotate_and_store: the CPU paths and the Triton kernels against their definitions, in
every format of pages.

Slots that nothing is written to hold NaN before, and still the same bits after.
"""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sapwood.kernels.kv_pages import QUANTIZED, KVPages
from sapwood.kernels.rotary import RotaryAngles
from sapwood.kernels.rotate_store import HeadNorms, rotate_and_store
from sapwood.kernels.rotate_store.reference import rotate_and_store_reference
from sapwood.kernels.store_kv import quantize_heads, store_kv
from sapwood.kernels.store_kv.reference import store_kv_reference

pytestmark = pytest.mark.usefixtures("poisoned_memory")

FP32, FP16, BF16 = torch.float32, torch.float16, torch.bfloat16
INT8, FP8 = torch.int8, torch.float8_e4m3fn
TOLERANCE = {FP32: 1e-5, FP16: 2e-3, BF16: 1e-2}
formats = pytest.mark.parametrize("page_dtype", [FP32, FP16, BF16, INT8, FP8], ids=str)


@dataclass(frozen=True)
class Shape:
    tokens: int
    heads: int
    kv_heads: int
    head_dim: int
    page_size: int

    def __str__(self) -> str:
        return f"{self.tokens}x{self.heads}:{self.kv_heads}x{self.head_dim}p{self.page_size}"


SHAPES = [
    Shape(tokens, heads, kv_heads, head_dim, page_size)
    for tokens, heads, kv_heads, head_dim, page_size in [
        (0, 2, 1, 8, 4),
        (1, 1, 1, 2, 1),
        (1, 1, 1, 8, 1),
        (1, 9, 3, 64, 16),
        (1, 32, 8, 128, 16),
        (2, 3, 3, 6, 2),
        (2, 7, 1, 80, 32),
        (3, 12, 1, 10, 4),
        (3, 14, 2, 64, 16),
        (3, 16, 8, 128, 1),
        (4, 5, 5, 96, 8),
        (4, 6, 2, 12, 4),
        (5, 9, 3, 64, 16),
        (5, 8, 4, 256, 4),
        (6, 10, 10, 34, 2),
        (7, 15, 5, 64, 64),
        (7, 20, 4, 40, 16),
        (8, 4, 1, 100, 8),
        (3, 11, 11, 18, 16),
        (2, 2, 2, 30, 32),
        (13, 6, 2, 8, 4),
        (13, 3, 1, 96, 16),
        (12, 8, 2, 16, 16),
        (14, 4, 4, 20, 1),
        (9, 9, 3, 24, 4),
        (8, 5, 1, 4, 64),
        (15, 2, 1, 32, 8),
        (6, 7, 7, 14, 2),
        (5, 12, 2, 6, 16),
        (33, 3, 3, 8, 4),
    ]
]
shapes = pytest.mark.parametrize("shape", SHAPES, ids=str)


def poisoned_pages(shape: Shape, dtype: torch.dtype, device: str) -> KVPages:
    num_pages = shape.tokens // shape.page_size + 3
    place = (num_pages, shape.page_size, shape.kv_heads)

    def numbers() -> torch.Tensor:
        pages = torch.empty((*place, shape.head_dim), dtype=dtype, device=device)
        pages.view(torch.uint8).fill_(0x7F)  # NaN in float8; 127 in int8
        return pages if dtype in QUANTIZED else pages.fill_(torch.nan)

    if dtype not in QUANTIZED:
        return KVPages(numbers(), numbers())
    scales = [torch.full(place, torch.nan, device=device) for _ in range(2)]
    return KVPages(numbers(), numbers(), *scales)


def copied(pages: KVPages) -> KVPages:
    return KVPages(*(tensor.clone() for tensor in pages.tensors()))


def random_slots(shape: Shape, device: str) -> torch.Tensor:
    """Any order; one in five tokens is padding."""
    num_slots = (shape.tokens // shape.page_size + 3) * shape.page_size
    slots = torch.randperm(num_slots)[: shape.tokens]
    return torch.where(torch.rand(shape.tokens) < 0.2, -1, slots).to(device)


def assert_same_pages(got: KVPages, wanted: KVPages, tolerance: float) -> None:
    for ours, theirs in zip(_values(got), _values(wanted), strict=True):
        size = max(1.0, theirs.nan_to_num().abs().max().item())
        allowed = tolerance * size
        if got.k_scales is not None:  # a rounding before may decide between two numbers
            allowed += theirs.abs() / 8 if got.k.dtype is FP8 else size / 127
        assert torch.equal(ours.isnan(), theirs.isnan())
        assert not ((ours - theirs).abs() > allowed).any()


def _values(pages: KVPages) -> list[torch.Tensor]:
    if pages.k_scales is None or pages.v_scales is None:
        return [pages.k.float(), pages.v.float()]
    return [
        pages.k.float() * pages.k_scales.unsqueeze(-1),
        pages.v.float() * pages.v_scales.unsqueeze(-1),
    ]


@formats
@shapes
def test_store_kv(shape: Shape, page_dtype: torch.dtype, device: str) -> None:
    dtype = FP16 if page_dtype in QUANTIZED else page_dtype
    heads = shape.heads + 2 * shape.kv_heads
    fused = torch.randn(shape.tokens, heads, shape.head_dim, device=device).to(dtype)
    k, v = fused[:, shape.heads :].chunk(2, dim=1)  # not contiguous
    slots = random_slots(shape, device)
    got = poisoned_pages(shape, page_dtype, device)
    wanted = copied(got)
    store_kv(k, v, got, slots)
    store_kv_reference(k, v, wanted, slots)
    for ours, theirs in zip(got.tensors(), wanted.tensors(), strict=True):
        assert torch.equal(ours.float().nan_to_num(9.0), theirs.float().nan_to_num(9.0))


@formats
@shapes
def test_rotate_and_store(shape: Shape, page_dtype: torch.dtype, device: str) -> None:
    dtype = FP16 if page_dtype in QUANTIZED else page_dtype
    heads = shape.heads + 2 * shape.kv_heads
    qkv = (torch.randn(shape.tokens, heads, shape.head_dim, device=device) * 2).to(dtype)
    frequencies = 1e4 ** -(np.arange(0, shape.head_dim, 2, dtype=np.float32) / shape.head_dim)
    positions = torch.randint(2**17, (shape.tokens,), device=device)
    cos, sin = RotaryAngles(frequencies, 1.25, device).at(positions)
    norms = None
    if (shape.tokens + shape.head_dim // 2) % 2:
        weights = torch.randn(2, shape.head_dim, device=device).to(dtype)
        norms = HeadNorms(*weights, 1e-6)
    slots = random_slots(shape, device)
    got = poisoned_pages(shape, page_dtype, device)
    wanted = copied(got)
    q = rotate_and_store(qkv, cos, sin, got, slots, norms)
    wanted_q = rotate_and_store_reference(qkv, cos, sin, wanted, slots, norms)
    assert q.shape == (shape.tokens, shape.heads, shape.head_dim) and q.dtype is dtype
    # The single ops of the CPU path round between them.
    tolerance = TOLERANCE[dtype] * (1 if device == "cuda" or dtype is FP32 else 2)
    size = max(1.0, wanted_q.abs().max().item()) if q.numel() else 1.0
    assert torch.allclose(q.float(), wanted_q.float(), rtol=0, atol=tolerance * size)
    assert_same_pages(got, wanted, max(tolerance, TOLERANCE.get(page_dtype, 0.0)))


def test_large_positions_are_those_of_transformers() -> None:
    from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

    q = torch.randn(3, 2, 64)
    positions = torch.tensor([131_071, 131_072, 1_048_575])
    frequencies = 5e5 ** -(np.arange(0, 64, 2, dtype=np.float32) / 64)
    angles = torch.outer(positions.float(), torch.from_numpy(frequencies))
    both = torch.cat((angles, angles), dim=-1)
    wanted, _ = apply_rotary_pos_emb(q, q, both.cos(), both.sin(), unsqueeze_dim=1)
    pages = KVPages(torch.zeros(1, 4, 1, 64), torch.zeros(1, 4, 1, 64))
    qkv = torch.cat((q, q[:, :1], q[:, :1]), dim=1)
    cos, sin = RotaryAngles(frequencies).at(positions)
    got = rotate_and_store(qkv, cos, sin, pages, torch.arange(3))
    assert (got - wanted).abs().max() <= 1e-6


@given(
    values=st.lists(st.floats(-(2.0**100), 2.0**100, width=32), min_size=2, max_size=12),
    dtype=st.sampled_from([INT8, FP8]),
)
def test_quantised_heads_come_near_their_values(values: list[float], dtype: torch.dtype) -> None:
    head = torch.tensor([values])
    numbers, scales = quantize_heads(head, dtype)
    back = numbers.float() * scales.unsqueeze(-1)
    top = head.abs().max()
    # Half a step: of int8 everywhere the same, of float8 beside the number, or its smallest.
    half = top / 254 if dtype is INT8 else torch.maximum(head.abs() / 16, top / 448 / 1_024)
    assert ((back - head).abs() <= half * 1.0001 + 1e-32).all()


def test_heads_of_zeros_and_of_one_number(device: str) -> None:
    heads = torch.zeros(2, 2, 8, device=device)
    heads[1, 0], heads[1, 1, 3] = 2.5, -1e-3
    for dtype, largest in ((INT8, 127), (FP8, 448)):
        pages = poisoned_pages(Shape(2, 2, 2, 8, 2), dtype, device)
        store_kv(heads, -heads, pages, torch.tensor([3, 0], device=device))
        assert pages.k_scales is not None
        assert (pages.k_scales[1, 1] > 0).all()
        assert pages.k[1, 1].float().abs().max() == 0.0
        assert pages.k_scales[0, 0].tolist() == pytest.approx([2.5 / largest, 1e-3 / largest])
        assert pages.k[0, 0, 0].float().tolist() == [largest] * 8
        assert pages.v[0, 0, 1].float().tolist() == [0, 0, 0, largest, 0, 0, 0, 0]


def test_misfits_are_refused() -> None:
    pages = KVPages(torch.zeros(2, 4, 3, 8), torch.zeros(2, 4, 3, 8))
    slot, table = torch.tensor([0]), torch.zeros(1, 8)
    with pytest.raises(ValueError, match="do not fit pages"):
        store_kv(torch.zeros(1, 2, 8), torch.zeros(1, 2, 8), pages, slot)
    with pytest.raises(ValueError, match=r"\(2,\) slots for 1 tokens"):
        store_kv(torch.zeros(1, 3, 8), torch.zeros(1, 3, 8), pages, torch.tensor([0, 1]))
    with pytest.raises(ValueError, match=r"qkv \(1, 6, 8\) does not fit pages"):
        rotate_and_store(torch.zeros(1, 6, 8), table, table, pages, slot)
    with pytest.raises(ValueError, match=r"cos \(1, 4\) and sin \(1, 4\) do not fit"):
        rotate_and_store(torch.zeros(1, 9, 8), table[:, :4], table[:, :4], pages, slot)
    with pytest.raises(ValueError, match=r"\(0,\) slots for 1 tokens"):
        rotate_and_store(torch.zeros(1, 9, 8), table, table, pages, slot[:0])
    with pytest.raises(ValueError, match=r"norms of \(4,\) and \(8,\)"):
        norms = HeadNorms(torch.zeros(4), torch.zeros(8), 1e-5)
        rotate_and_store(torch.zeros(1, 9, 8), table, table, pages, slot, norms)
    odd = KVPages(torch.zeros(1, 1, 1, 5), torch.zeros(1, 1, 1, 5))
    with pytest.raises(ValueError, match="heads of 5 elements have no halves"):
        store_kv(torch.zeros(1, 1, 5), torch.zeros(1, 1, 5), odd, slot)
