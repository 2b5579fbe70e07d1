"""A whole model through the Triton kernels, in the interpreter where there is no GPU, against the
CPU path: prefill, chunks and decodes over scattered pages, in every format of the KV cache.
"""

from dataclasses import dataclass, replace

import pytest
import torch

from sapwood.kernels.paged_attention import plan_attention
from sapwood.runtime.models.config import LlamaConfig, RopeConfig
from sapwood.runtime.models.llama import LlamaModel
from sapwood.runtime.models.weights import expected_shapes
from sapwood.runtime.torch_path.forward import ForwardInputs
from sapwood.runtime.torch_path.kv_cache import KVCache

pytest.importorskip("triton")

PAGE_SIZE = 4
LLAMA = LlamaConfig(
    architecture="LlamaForCausalLM",
    vocab_size=67,
    hidden_size=48,
    intermediate_size=56,
    num_layers=2,
    num_heads=6,
    num_kv_heads=2,
    head_dim=16,
    context_length=512,
    tie_embeddings=True,
)
MODELS = {
    "llama": LLAMA,
    "qwen2": replace(LLAMA, architecture="Qwen2ForCausalLM", qkv_bias=True, sliding_window=9),
    "qwen3": replace(
        LLAMA,
        architecture="Qwen3ForCausalLM",
        qk_norm=True,
        num_kv_heads=6,
        rope=RopeConfig(kind="linear", factor=3.0),
    ),
}
TEXTS = torch.randint(67, (3, 40), generator=torch.Generator().manual_seed(1))
# Of each step, the spans: row, first position, end.
STEPS = [
    [(0, 0, 7), (1, 0, 5)],
    [(0, 7, 8), (1, 5, 6), (2, 0, 6)],
    [(0, 8, 9), (1, 6, 7), (2, 6, 10)],
    [(0, 9, 10), (1, 7, 8), (2, 10, 11)],
    [(0, 10, 11), (2, 11, 12)],
]


@dataclass(frozen=True)
class Weights:
    """The same on every device."""

    config: LlamaConfig

    def tensor(self, name: str, dtype: torch.dtype) -> torch.Tensor:
        shape = expected_shapes(self.config)[name]
        generator = torch.Generator().manual_seed(len(name) + 7 * sum(map(ord, name)))
        values = torch.randn(shape, generator=generator)
        if len(shape) == 1:
            return (values * 0.1 + float("norm" in name)).to(dtype)
        return (values * shape[1] ** -0.5).to(dtype)


def inputs_of(
    spans: list[tuple[int, int, int]], table: torch.Tensor, config: LlamaConfig, device: str
) -> ForwardInputs:
    rows = [row for row, _, _ in spans]
    positions = torch.cat([torch.arange(start, end) for _, start, end in spans])
    owners = torch.cat([torch.full((end - start,), row) for row, start, end in spans])
    slots = table[owners, positions // PAGE_SIZE].long() * PAGE_SIZE + positions % PAGE_SIZE
    return ForwardInputs(
        token_ids=TEXTS[owners, positions].to(device),
        positions=positions.to(device),
        slots=slots.to(device),
        attention=plan_attention(
            [end - start for _, start, end in spans],
            [end for _, _, end in spans],
            table[rows].to(device),
            PAGE_SIZE,
            group=config.num_heads // config.num_kv_heads,
            window=config.sliding_window,
            dtype=torch.float32,
            device=device,
        ),
        logit_rows=torch.arange(0, len(positions), 2).to(device),
    )


def logits_of(config: LlamaConfig, kv_dtype: torch.dtype, device: str) -> list[torch.Tensor]:
    model = LlamaModel.load(Weights(config), torch.float32, device)
    table = torch.randperm(30, generator=torch.Generator().manual_seed(3)).view(3, 10).int()
    kv = KVCache(2, 30, PAGE_SIZE, config.num_kv_heads, config.head_dim, kv_dtype, device)
    for tensor in (tensor for layer in kv.layers for tensor in layer.tensors()):
        tensor.view(torch.uint8).fill_(0xFF if tensor.dtype is torch.float32 else 0x7F)  # NaN
    steps = []
    for number, spans in enumerate(STEPS):
        if number == 3:  # row 1 goes on in a copy of its second page
            source, target = table[1, 1:2].long(), table[0, 9:].long()
            kv.copy(source.to(device), target.to(device))
            table[1, 1] = target
        steps.append(model.forward(inputs_of(spans, table, config, device), kv).cpu())
    return steps


@pytest.mark.parametrize("kv_dtype", [torch.float32, torch.int8, torch.float8_e4m3fn], ids=str)
@pytest.mark.parametrize("config", MODELS.values(), ids=MODELS.keys())
def test_the_kernels_compute_what_the_cpu_computes(
    config: LlamaConfig, kv_dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = logits_of(config, kv_dtype, "cpu")
    exact = logits_of(config, torch.float32, "cpu")
    if torch.cuda.is_available():
        computed = logits_of(config, kv_dtype, "cuda")
    else:
        monkeypatch.setattr("sapwood.kernels.implementation.is_triton", lambda x: True)
        computed = logits_of(config, kv_dtype, "cpu")
    for ours, theirs, unrounded in zip(computed, expected, exact, strict=True):
        assert (ours - theirs).abs().max() <= 1e-4
        assert (ours - unrounded).abs().max() <= 0.3  # far less than the logits' own size
        assert theirs.std() > 0.3
