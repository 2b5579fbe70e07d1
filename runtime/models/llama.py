"""The Llama family as one forward pass over the kernels: Llama, SmolLM2, Qwen2, Qwen3, Mistral.

Owns: the weights on the device and the order of the ops. Knows no request, no page table and no
file format; keys and values go where the inputs say. Where several ranks compute a model together,
this is what one of them computes: its heads and inner columns, summed with the others' twice a
layer.
"""

from dataclasses import dataclass
from typing import Protocol, Self

import torch

from ...kernels.gated_activation import gated_activation
from ...kernels.kv_pages import KVPages
from ...kernels.paged_attention import paged_attention
from ...kernels.rms_norm import add_rms_norm, rms_norm
from ...kernels.rotary import RotaryAngles
from ...kernels.rotate_store import HeadNorms, rotate_and_store
from ..parallel.group import ALONE, Group
from ..torch_path.forward import ForwardInputs
from ..torch_path.kv_cache import KVCache
from .config import LlamaConfig
from .layers import Embedding, Head, Linear, fuse
from .matrices import FLOATS, Matrices, Matrix
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
    head_norms: HeadNorms | None
    output: Linear
    mlp_norm: torch.Tensor
    gate_up: Linear
    down: Linear


class LlamaModel:
    """Weights on one device in one dtype; `forward` changes nothing but the KV cache."""

    def __init__(
        self,
        config: LlamaConfig,
        embedding: Matrix,
        layers: tuple[_Layer, ...],
        norm: torch.Tensor,
        head: Head,
        group: Group = ALONE,
    ) -> None:
        self.config = config
        self.dtype = norm.dtype
        self.device = norm.device
        self._embedding = Embedding(embedding)
        self._layers = layers
        self._norm = norm
        self._head = head
        self._group = group
        frequencies, scale = rope_frequencies(config.head_dim, config.rope)
        self._angles = RotaryAngles(frequencies, scale, self.device)

    @classmethod
    def load(
        cls,
        checkpoint: TensorSource,
        dtype: torch.dtype,
        device: torch.device | str = "cpu",
        matrices: Matrices = FLOATS,
        group: Group = ALONE,
    ) -> Self:
        """Read every tensor once, in `dtype`, matrices in the form that `matrices` gives them. The
        checkpoint's own errors pass through. One of several ranks: a checkpoint with the slices of
        this one (see `parallel.checkpoint`)."""
        config = checkpoint.config

        def read(name: str) -> torch.Tensor:
            return checkpoint.tensor(name, dtype).to(device)

        def matrix(*names: str) -> Matrix:
            return matrices.read(checkpoint, names, dtype, device)

        def linear(prefix: str, names: tuple[str, ...], has_bias: bool) -> Linear:
            return Linear(
                matrix(*(f"{prefix}.{name}.weight" for name in names)),
                fuse([read(f"{prefix}.{name}.bias") for name in names]) if has_bias else None,
            )

        def layer(number: int) -> _Layer:
            prefix = f"model.layers.{number}"
            attention, mlp = f"{prefix}.self_attn", f"{prefix}.mlp"
            return _Layer(
                input_norm=read(f"{prefix}.input_layernorm.weight"),
                qkv=linear(attention, ("q_proj", "k_proj", "v_proj"), config.qkv_bias),
                head_norms=HeadNorms(
                    read(f"{attention}.q_norm.weight"),
                    read(f"{attention}.k_norm.weight"),
                    config.rms_eps,
                )
                if config.qk_norm
                else None,
                output=linear(attention, ("o_proj",), config.output_bias),
                mlp_norm=read(f"{prefix}.post_attention_layernorm.weight"),
                gate_up=linear(mlp, ("gate_proj", "up_proj"), config.mlp_bias),
                down=linear(mlp, ("down_proj",), config.mlp_bias),
            )

        embedding = matrix("model.embed_tokens.weight")
        layers = tuple(layer(number) for number in range(config.num_layers))
        norm = read("model.norm.weight")
        if config.tie_embeddings:
            head = Head(embedding, pack=embedding.nbytes <= _MAX_SECOND_EMBEDDING)
        else:
            head = Head(matrix("lm_head.weight"))
        return cls(config, embedding, layers, norm, head, group)

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
        shapes = expected_shapes(self.config).values()
        total = sum(shape[0] for shape in shapes if len(shape) == 1) * self.dtype.itemsize
        for layer in self._layers:
            maps = (layer.qkv, layer.output, layer.gate_up, layer.down)
            total += sum(linear.nbytes for linear in maps)
        shared = self.config.tie_embeddings and not self._head.is_copy
        return total + self._embedding.nbytes + (0 if shared else self._head.nbytes)

    @torch.inference_mode()
    def forward(self, inputs: ForwardInputs, kv: KVCache) -> torch.Tensor:
        """Logits fp32 [R, vocab_size] of `inputs.logit_rows`; writes the new tokens' KV into `kv`.

        `kv` has this model's layers, KV heads, head size and dtype; `inputs.attention` was planned
        with this config's group and `sliding_window`.
        """
        eps = self.config.rms_eps
        # Where steps overlap, rank 0 alone knows what was drawn last.
        self._group.broadcast(inputs.token_ids)
        # The sum over the layers stays in fp32: in bf16 it alone would double the logits' error.
        total = self._embedding(inputs.token_ids)
        angles = self._angles.at(inputs.positions)
        added: torch.Tensor | None = None  # what a layer gives, added where it is normalised next
        last = self.config.num_layers - 1
        for number, layer in enumerate(self._layers):
            hidden = _normed(added, total, layer.input_norm, eps)
            attended = self._attend(layer, hidden, angles, inputs, kv.layers[number])
            if number == last:  # what follows concerns only the rows that give logits
                total, attended = total[inputs.logit_rows], attended[inputs.logit_rows]
                if not len(inputs.logit_rows):
                    return total.new_empty((0, self.config.vocab_size))
            added = self._group.all_reduce(layer.output(attended))
            hidden = add_rms_norm(added, total, layer.mlp_norm, eps)
            added = self._group.all_reduce(layer.down(gated_activation(layer.gate_up(hidden))))
        logits = self._head(_normed(added, total, self._norm, eps))
        return self._group.all_gather(logits, self.config.vocab_size)

    def _attend(
        self,
        layer: _Layer,
        hidden: torch.Tensor,
        angles: tuple[torch.Tensor, torch.Tensor],
        inputs: ForwardInputs,
        pages: KVPages,
    ) -> torch.Tensor:
        """[T, num_heads * head_dim]: one layer's attention before its output projection."""
        config = self.config
        num_heads = config.num_heads + 2 * config.num_kv_heads
        qkv = layer.qkv(hidden).view(len(hidden), num_heads, config.head_dim)
        q = rotate_and_store(qkv, *angles, pages, inputs.slots, layer.head_norms)
        scale = config.head_dim**-0.5
        return paged_attention(q, pages, inputs.attention, scale=scale).flatten(1)


def _normed(
    added: torch.Tensor | None, total: torch.Tensor, weight: torch.Tensor, eps: float
) -> torch.Tensor:
    """total + added, normalised; the sum stays in `total`."""
    if added is None:
        return rms_norm(total, weight, eps)
    return add_rms_norm(added, total, weight, eps)


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
