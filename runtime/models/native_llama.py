"""From a checkpoint to the native step's weights.

Owns: which format each matrix is kept in, and the names of the parts. Knows no torch, no request.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from ...kernels.llama_step import (
    KvFormat,
    LlamaStep,
    MatrixKind,
    Source,
    StepShape,
    VectorKind,
    WeightFormat,
    load_library,
)
from ..config import ComputeDtype
from .config import LlamaConfig
from .rope import rope_frequencies
from .weights import Checkpoint, read_float32

_FORMATS: Final = {
    "float32": WeightFormat.FLOAT32,
    "bfloat16": WeightFormat.BFLOAT16,
    "int8": WeightFormat.INT8,
    "q4": WeightFormat.INT4,
}
_STORED: Final = {
    "Q8_0": WeightFormat.INT8,
    "Q4_0": WeightFormat.INT4,
    "Q4_1": WeightFormat.INT4,
    "F32": WeightFormat.FLOAT32,
}
_GROUP: Final = 32
_HEAD_DIM_STEP: Final = 16


@dataclass(frozen=True)
class _Part:
    """Rows of a fused matrix: a tensor of the checkpoint and where its first output stands."""

    name: str
    kind: MatrixKind
    first: int


def native_obstacle(config: LlamaConfig) -> str | None:
    """Why the native step cannot run this architecture; None where it can."""
    if config.head_dim % _HEAD_DIM_STEP:
        return f"head_dim {config.head_dim} is no multiple of {_HEAD_DIM_STEP}"
    return None


def step_shape(
    config: LlamaConfig, *, page_size: int, num_pages: int, kv_format: KvFormat, threads: int
) -> StepShape:
    return StepShape(
        layers=config.num_layers,
        hidden=config.hidden_size,
        heads=config.num_heads,
        kv_heads=config.num_kv_heads,
        head_dim=config.head_dim,
        inner=config.intermediate_size,
        vocab=config.vocab_size,
        page_size=page_size,
        num_pages=num_pages,
        window=config.sliding_window or 0,
        kv_format=kv_format,
        threads=threads,
        eps=config.rms_eps,
        rope_scale=rope_frequencies(config.head_dim, config.rope)[1],
    )


def load_native(
    checkpoint: Checkpoint,
    dtype: ComputeDtype,
    shape: StepShape,
    say: Callable[[str], None] | None = None,
) -> LlamaStep:
    """A model with the checkpoint's weights, ready to step.

    dtype: the format of all matrices; "stored" keeps Q8_0, Q4_0 and Q4_1 as the file has them and
    everything else as bfloat16 (float32 stays). A quantised format falls back to bfloat16 where the
    inputs do not fill whole groups. Raises NativeUnavailable.
    """
    config = checkpoint.config
    step = LlamaStep(load_library(say), shape)
    queries, keys = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
    hidden, inner = config.hidden_size, config.intermediate_size
    loader = _Loader(checkpoint, dtype, step)
    for layer in range(config.num_layers):
        attention, mlp = f"model.layers.{layer}.self_attn", f"model.layers.{layer}.mlp"
        loader.matrix(
            layer,
            [
                _Part(f"{attention}.q_proj", MatrixKind.QKV, 0),
                _Part(f"{attention}.k_proj", MatrixKind.QKV, queries),
                _Part(f"{attention}.v_proj", MatrixKind.QKV, queries + keys),
            ],
            outputs=queries + 2 * keys,
            inputs=hidden,
        )
        loader.matrix(
            layer,
            [_Part(f"{attention}.o_proj", MatrixKind.OUTPUT, 0)],
            outputs=hidden,
            inputs=queries,
        )
        loader.matrix(
            layer,
            [
                _Part(f"{mlp}.gate_proj", MatrixKind.GATE, 0),
                _Part(f"{mlp}.up_proj", MatrixKind.UP, 0),
            ],
            outputs=inner,
            inputs=hidden,
        )
        loader.matrix(
            layer, [_Part(f"{mlp}.down_proj", MatrixKind.DOWN, 0)], outputs=hidden, inputs=inner
        )
        prefix = f"model.layers.{layer}"
        loader.vector(layer, VectorKind.INPUT_NORM, f"{prefix}.input_layernorm.weight")
        loader.vector(layer, VectorKind.MLP_NORM, f"{prefix}.post_attention_layernorm.weight")
        if config.qk_norm:
            loader.vector(layer, VectorKind.Q_NORM, f"{attention}.q_norm.weight")
            loader.vector(layer, VectorKind.K_NORM, f"{attention}.k_norm.weight")
    embedding = _Part("model.embed_tokens", MatrixKind.EMBEDDING, 0)
    loader.matrix(-1, [embedding], outputs=config.vocab_size, inputs=hidden)
    if not config.tie_embeddings:
        head = _Part("lm_head", MatrixKind.HEAD, 0)
        loader.matrix(-1, [head], outputs=config.vocab_size, inputs=hidden)
    loader.vector(-1, VectorKind.FINAL_NORM, "model.norm.weight")
    step.vector(-1, VectorKind.FREQUENCIES, rope_frequencies(config.head_dim, config.rope)[0])
    return step


class _Loader:
    def __init__(self, checkpoint: Checkpoint, dtype: ComputeDtype, step: LlamaStep) -> None:
        self._checkpoint = checkpoint
        self._dtype = dtype
        self._step = step
        self._names = frozenset(checkpoint.names())

    def matrix(self, layer: int, parts: Sequence[_Part], *, outputs: int, inputs: int) -> None:
        storages = {self._checkpoint.storage(f"{part.name}.weight") for part in parts}
        self._step.define(layer, parts[0].kind, outputs, inputs, self._format(storages, inputs))
        for part in parts:
            self._pack(layer, part)
            if f"{part.name}.bias" in self._names:
                bias = read_float32(self._checkpoint, f"{part.name}.bias")
                self._step.bias(layer, part.kind, part.first, bias)

    def vector(self, layer: int, kind: VectorKind, name: str) -> None:
        self._step.vector(layer, kind, read_float32(self._checkpoint, name))

    def _format(self, storages: set[str], inputs: int) -> WeightFormat:
        if self._dtype == "stored":
            formats = {_STORED.get(storage, WeightFormat.BFLOAT16) for storage in storages}
            return formats.pop() if len(formats) == 1 else WeightFormat.BFLOAT16
        chosen = _FORMATS[self._dtype]
        quantized = chosen in (WeightFormat.INT8, WeightFormat.INT4)
        return WeightFormat.BFLOAT16 if quantized and inputs % _GROUP else chosen

    def _pack(self, layer: int, part: _Part) -> None:
        name = f"{part.name}.weight"
        storage = self._checkpoint.storage(name)
        if storage in Source.__members__:
            rows = self._checkpoint.raw(name)
            rows = rows.reshape(self._checkpoint.shape(name)[0], -1)
            self._step.pack(layer, part.kind, part.first, Source[storage], rows)
            return
        values = np.ascontiguousarray(read_float32(self._checkpoint, name))
        rows = values.view(np.uint8).reshape(len(values), -1)
        self._step.pack(layer, part.kind, part.first, Source.F32, rows)
