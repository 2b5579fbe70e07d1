"""Steps of attention over pages, as the kernels' figures and checks need them.

Pages lie in a random order, and every slot that no row owns holds NaN (float8 and int8 pages:
scales of NaN), so that a single read of one would show.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from sapwood.kernels.kv_pages import KVPages
from sapwood.kernels.paged_attention import AttentionPlan, plan_attention
from sapwood.kernels.store_kv import store_kv


@dataclass(frozen=True)
class Heads:
    """Query heads, KV heads and their size."""

    queries: int
    kv: int
    size: int

    @property
    def group(self) -> int:
        return self.queries // self.kv


LLAMA_8B = Heads(32, 8, 128)
QWEN_7B = Heads(28, 4, 128)
SMOLLM2 = Heads(9, 3, 64)


@dataclass(frozen=True)
class Step:
    """rows: new tokens and context of each; table: int32 [B, max_pages]; q: [T, Hq, D]; `k`, `v`:
    what the pages hold of each row, [context, Hkv, D], before it was quantised."""

    rows: Sequence[tuple[int, int]]
    table: torch.Tensor
    q: torch.Tensor
    pages: KVPages
    plan: AttentionPlan
    k: list[torch.Tensor]
    v: list[torch.Tensor]

    @property
    def kv_bytes(self) -> int:
        """Bytes of keys, values and scales that the rows' contexts take, each row's counted."""
        per_slot = sum(tensor[0, 0].numel() * tensor.itemsize for tensor in self.pages.tensors())
        return per_slot * sum(context for _, context in self.rows)

    def flops(self, heads: Heads) -> float:
        """Of the two products, over the pairs of query and key that are not masked."""
        pairs = sum(new * context - new * (new - 1) // 2 for new, context in self.rows)
        return 4.0 * pairs * heads.queries * heads.size


def make_step(
    rows: Sequence[tuple[int, int]],
    heads: Heads,
    *,
    page_size: int,
    dtype: torch.dtype,
    device: torch.device,
    kv_dtype: torch.dtype | None = None,
    window: int | None = None,
    shared: int = 0,
    seed: int = 0,
) -> Step:
    """A step of rows (new tokens, context). `shared`: leading tokens, a multiple of the page size,
    that all rows hold in the same pages."""
    generator = torch.Generator(device).manual_seed(seed)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator, device=device).to(dtype)

    assert shared % page_size == 0 and all(shared <= context - new for new, context in rows)
    contexts = [context for _, context in rows]
    counts = [-(-(context - shared) // page_size) for context in contexts]
    num_shared = shared // page_size
    num_pages = num_shared + sum(counts) + 2
    order = torch.randperm(num_pages, generator=torch.Generator().manual_seed(seed)).int()
    table = torch.zeros((len(rows), num_shared + max(counts)), dtype=torch.int32)
    table[:, :num_shared] = order[:num_shared]
    first = num_shared
    for row, count in enumerate(counts):
        table[row, num_shared : num_shared + count] = order[first : first + count]
        first += count
    pages = _empty_pages((num_pages, page_size, heads.kv, heads.size), kv_dtype or dtype, device)
    common_k, common_v = random(shared, heads.kv, heads.size), random(shared, heads.kv, heads.size)
    k, v = [], []
    for row, context in enumerate(contexts):
        own = context - shared
        k.append(torch.cat((common_k, random(own, heads.kv, heads.size))))
        v.append(torch.cat((common_v, random(own, heads.kv, heads.size))))
        positions = torch.arange(shared if row else 0, context)
        slots = table[row, positions // page_size].long() * page_size + positions % page_size
        store_kv(k[-1][positions], v[-1][positions], pages, slots.to(device))
    plan = plan_attention(
        [new for new, _ in rows],
        contexts,
        table.to(device),
        page_size,
        group=heads.group,
        window=window,
        dtype=dtype,
        device=device,
    )
    q = random(sum(new for new, _ in rows), heads.queries, heads.size)
    return Step(rows, table.to(device), q, pages, plan, k, v)


def _empty_pages(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> KVPages:
    if dtype not in (torch.int8, torch.float8_e4m3fn):
        k, v = (torch.full(shape, float("nan"), dtype=dtype, device=device) for _ in range(2))
        return KVPages(k, v)
    k, v = (torch.zeros(shape, dtype=dtype, device=device) for _ in range(2))
    k_scales, v_scales = (torch.full(shape[:3], float("nan"), device=device) for _ in range(2))
    return KVPages(k, v, k_scales, v_scales)


def exact(step: Step, heads: Heads, *, scale: float, window: int | None = None) -> torch.Tensor:
    """The definition in float64, from what the pages hold: [T, Hq, D]."""
    out, token = [], 0
    for row, (new, context) in enumerate(step.rows):
        q = step.q[token : token + new].double()
        k, v = (x.repeat_interleave(heads.group, 1) for x in _stored(step, row, context))
        scores = torch.einsum("qhd,khd->hqk", q, k) * scale
        query = torch.arange(context - new, context, device=q.device)[:, None]
        key = torch.arange(context, device=q.device)[None]
        hidden = key > query
        if window is not None:
            hidden |= key <= query - window
        weights = torch.softmax(scores.masked_fill(hidden, float("-inf")), dim=-1)
        out.append(torch.einsum("hqk,khd->qhd", weights, v))
        token += new
    return torch.cat(out)


def _stored(step: Step, row: int, context: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The row's keys and values as they can be read back, float64 [context, Hkv, D]."""
    pages, size = step.pages, step.pages.page_size
    own = step.table[row, : -(-context // size)].long()

    def read(values: torch.Tensor, scales: torch.Tensor | None) -> torch.Tensor:
        # float8 cannot be indexed everywhere: its bytes can.
        raw = values.view(torch.uint8) if values.itemsize == 1 else values
        found = raw[own].view(values.dtype).flatten(0, 1)[:context].double()
        if scales is None:
            return found
        return found * scales[own].flatten(0, 1)[:context, :, None].double()

    return read(pages.k, pages.k_scales), read(pages.v, pages.v_scales)
