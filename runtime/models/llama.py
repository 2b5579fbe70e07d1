"""The Llama family as one forward pass over the kernels: Llama, SmolLM2, Qwen2, Qwen3, Mistral.

Owns: the weights on the device and the order of the ops. Knows no request, no page table and no
file format; keys and values go where the inputs say.
"""

from dataclasses import dataclass
from typing import Protocol, Self

import torch
import torch.nn.functional as F

from ...kernels.kv_pages import KVPages
from ...kernels.paged_attention import paged_attention
from ...kernels.rms_norm import rms_norm
from ...kernels.rotary import RotaryAngles, rotary, rotate
from ...kernels.silu_mul import silu_mul
from ...kernels.store_kv import store_kv
from ..forward import ForwardInputs
from ..kv_cache import KVCache
from .config import LlamaConfig
from .layers import Head, Linear, fuse
from .rope import rope_frequencies
from .weights import expected_shapes

# A tied embedding serves look-ups and, reordered, the head: up to this size it is kept twice.
_MAX_SECOND_EMBEDDING = 256 << 20  # bytes


class TensorSource(Protocol):
    """What loading needs of a checkpoint."""

    config: LlamaConfig

    def tensor(self, name: str, dtype: torch.dtype) -> torch.Tensor: ...


@dataclass(frozen=True)
class _Layer:
    input_norm: torch.Tensor
    qkv: Linear
    q_norm: torch.Tensor | None
    k_norm: torch.Tensor | None
    output: Linear
    mlp_norm: torch.Tensor
    gate_up: Linear
    down: Linear


class LlamaModel:
    """Weights on one device in one dtype; `forward` changes nothing but the KV cache."""

    def __init__(
        self,
        config: LlamaConfig,
        embedding: torch.Tensor,
        layers: tuple[_Layer, ...],
        norm: torch.Tensor,
        head: Head,
    ) -> None:
        self.config = config
        self.dtype = embedding.dtype
        self.device = embedding.device
        self._embedding = embedding
        self._layers = layers
        self._norm = norm
        self._head = head
        frequencies, scale = rope_frequencies(config.head_dim, config.rope)
        self._angles = RotaryAngles(frequencies, scale, self.device)

    @classmethod
    def load(
        cls, checkpoint: TensorSource, dtype: torch.dtype, device: torch.device | str = "cpu"
    ) -> Self:
        """Read every tensor once, in `dtype`. The checkpoint's own errors pass through."""
        config = checkpoint.config

        def read(name: str) -> torch.Tensor:
            return checkpoint.tensor(name, dtype).to(device)

        def linear(prefix: str, names: tuple[str, ...], has_bias: bool) -> Linear:
            return Linear(
                fuse([read(f"{prefix}.{name}.weight") for name in names]),
                fuse([read(f"{prefix}.{name}.bias") for name in names]) if has_bias else None,
            )

        def layer(number: int) -> _Layer:
            prefix = f"model.layers.{number}"
            attention, mlp = f"{prefix}.self_attn", f"{prefix}.mlp"
            return _Layer(
                input_norm=read(f"{prefix}.input_layernorm.weight"),
                qkv=linear(attention, ("q_proj", "k_proj", "v_proj"), config.qkv_bias),
                q_norm=read(f"{attention}.q_norm.weight") if config.qk_norm else None,
                k_norm=read(f"{attention}.k_norm.weight") if config.qk_norm else None,
                output=linear(attention, ("o_proj",), config.output_bias),
                mlp_norm=read(f"{prefix}.post_attention_layernorm.weight"),
                gate_up=linear(mlp, ("gate_proj", "up_proj"), config.mlp_bias),
                down=linear(mlp, ("down_proj",), config.mlp_bias),
            )

        embedding = read("model.embed_tokens.weight")
        layers = tuple(layer(number) for number in range(config.num_layers))
        norm = read("model.norm.weight")
        if config.tie_embeddings:
            head = Head(embedding, pack=embedding.nbytes <= _MAX_SECOND_EMBEDDING)
        else:
            head = Head(read("lm_head.weight"))
        return cls(config, embedding, layers, norm, head)

    @classmethod
    def random(
        cls, config: LlamaConfig, dtype: torch.dtype, seed: int, device: torch.device | str = "cpu"
    ) -> Self:
        """A model with reproducible random weights, for tests and benchmarks. Those of a GPU are
        drawn there, in `dtype`, and are others than the CPU's."""
        return cls.load(_RandomTensors(config, seed, torch.device(device)), dtype, device)

    @property
    def num_parameters(self) -> int:
        shapes = expected_shapes(self.config).values()
        return sum(torch.Size(shape).numel() for shape in shapes)

    @property
    def weight_bytes(self) -> int:
        """Bytes of weights in memory; a tied embedding may be there twice."""
        second = self.config.tie_embeddings and self._head.is_copy
        again = self._embedding.nbytes if second else 0
        return self.num_parameters * self.dtype.itemsize + again

    @torch.inference_mode()
    def forward(self, inputs: ForwardInputs, kv: KVCache) -> torch.Tensor:
        """Logits fp32 [R, vocab_size] of `inputs.logit_rows`; writes the new tokens' KV into `kv`.

        `kv` has this model's layers, KV heads, head size and dtype; `inputs.attention` was planned
        with this config's group and `sliding_window`.
        """
        # The sum over the layers stays in fp32: in bf16 it alone would double the logits' error.
        x = F.embedding(inputs.token_ids, self._embedding).float()
        angles = self._angles.at(inputs.positions)
        last = self.config.num_layers - 1
        for number, layer in enumerate(self._layers):
            attended = self._attend(layer, x, angles, inputs, kv.layers[number])
            if number == last:  # what follows concerns only the rows that give logits
                x, attended = x[inputs.logit_rows], attended[inputs.logit_rows]
                if not len(inputs.logit_rows):
                    return x.new_empty((0, self.config.vocab_size), dtype=torch.float32)
            x.add_(layer.output(attended))
            hidden = rms_norm(x, layer.mlp_norm, self.config.rms_eps)
            x.add_(layer.down(silu_mul(layer.gate_up(hidden))))
        return self._head(rms_norm(x, self._norm, self.config.rms_eps))

    def _attend(
        self,
        layer: _Layer,
        x: torch.Tensor,
        angles: tuple[torch.Tensor, torch.Tensor],
        inputs: ForwardInputs,
        pages: KVPages,
    ) -> torch.Tensor:
        """[T, num_heads * head_dim]: one layer's attention before its output projection."""
        config = self.config
        num_heads, num_kv_heads = config.num_heads, config.num_kv_heads
        rotated = num_heads + num_kv_heads
        qkv = layer.qkv(rms_norm(x, layer.input_norm, config.rms_eps))
        qkv = qkv.view(len(x), rotated + num_kv_heads, config.head_dim)
        if layer.q_norm is not None and layer.k_norm is not None:
            q, k = qkv[:, :num_heads], qkv[:, num_heads:rotated]
            q = rms_norm(q, layer.q_norm, config.rms_eps)
            k = rms_norm(k, layer.k_norm, config.rms_eps)
            q, k = rotary(q, k, *angles)
        else:  # q and k lie side by side: one rotation for both
            qk = rotate(qkv[:, :rotated], *angles)
            q, k = qk[:, :num_heads], qk[:, num_heads:]
        store_kv(k, qkv[:, rotated:], pages, inputs.slots)
        scale = config.head_dim**-0.5
        return paged_attention(q, pages, inputs.attention, scale=scale).flatten(1)


class _RandomTensors:
    """Weights of a plausible scale, drawn by name, so that no order of reading matters."""

    def __init__(self, config: LlamaConfig, seed: int, device: torch.device) -> None:
        self.config = config
        self._seed = seed
        self._device = device
        self._shapes = expected_shapes(config)
        self._index = {name: index for index, name in enumerate(self._shapes)}

    def tensor(self, name: str, dtype: torch.dtype) -> torch.Tensor:
        shape = self._shapes[name]
        seed = self._seed * 1_000_003 + self._index[name]
        generator = torch.Generator(self._device).manual_seed(seed)
        drawn = torch.float32 if self._device.type == "cpu" else dtype
        values = torch.randn(shape, generator=generator, dtype=drawn, device=self._device)
        if len(shape) == 1:
            values.mul_(0.1).add_(1.0 if "norm" in name else 0.0)
        else:
            values.mul_(shape[1] ** -0.5)
        return values.to(dtype)
