"""Open a checkpoint of either format behind one interface, and check that it is whole.

Owns: which tensors an architecture needs and their shapes. Knows no file format and no torch.
"""

from pathlib import Path
from types import TracebackType
from typing import Final, Protocol, Self

import numpy as np
import numpy.typing as npt

from .config import LlamaConfig
from .dequantize import dequantize
from .errors import DamagedModel, ModelError, ModelNotFound, UnsupportedModel
from .gguf_checkpoint import GgufCheckpoint
from .safetensors_checkpoint import SafetensorsCheckpoint

__all__ = [
    "Checkpoint",
    "expected_shapes",
    "is_kept_quantized",
    "open_checkpoint",
    "read_float32",
]

_KEPT: Final = frozenset({"Q8_0", "Q4_0", "Q4_1"})  # what products can be computed from


class Checkpoint(Protocol):
    """Read-only tensors by their Hugging Face names, such as
    "model.layers.0.self_attn.q_proj.weight", in that layout (a matrix is [outputs, inputs]).

    Using one changes nothing. An unknown name raises DamagedModel.
    """

    path: Path
    config: LlamaConfig

    def names(self) -> list[str]:
        """Every tensor it holds. Tied embeddings have no "lm_head.weight"."""
        ...

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape, without reading the tensor."""
        ...

    def storage(self, name: str) -> str:
        """What the file holds: "F32", "F16", "BF16", or a block format such as "Q4_1"."""
        ...

    def raw(self, name: str) -> npt.NDArray[np.uint8]:
        """The stored bytes, [rows, row_bytes], rows in Hugging Face order; a vector is one row.

        Contiguous; a view of the file where that has this order too: do not write.
        """
        ...

    def close(self) -> None:
        """Let go of the file; views that were handed out stay valid."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> None: ...


def open_checkpoint(path: Path) -> Checkpoint:
    """Open a `.gguf` file or a Hugging Face folder, and check every tensor's presence and shape.

    Raises ModelNotFound, DamagedModel (cut off, tensor or shard missing, shape wrong) or
    UnsupportedModel (architecture, quantization, tensors that the architecture has no use for).
    """
    if not path.exists():
        raise ModelNotFound(f"{path}: no such file or folder")
    checkpoint: Checkpoint
    checkpoint = SafetensorsCheckpoint(path) if path.is_dir() else GgufCheckpoint(path)
    try:
        _check_whole(checkpoint)
    except ModelError:
        checkpoint.close()
        raise
    return checkpoint


def read_float32(checkpoint: Checkpoint, name: str) -> npt.NDArray[np.float32]:
    """The values of a tensor, whatever the file stores them as; may be a view: do not write."""
    values = dequantize(checkpoint.raw(name), checkpoint.storage(name))
    return values.reshape(checkpoint.shape(name))


def is_kept_quantized(checkpoint: Checkpoint) -> bool:
    """Whether any matrix is stored in a block format that is computed with as it is."""
    return any(checkpoint.storage(name) in _KEPT for name in checkpoint.names())


def expected_shapes(config: LlamaConfig) -> dict[str, tuple[int, ...]]:
    """Every tensor that the architecture needs, by name."""
    hidden, inner = config.hidden_size, config.intermediate_size
    queries, keys = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
    layer: dict[str, tuple[int, ...]] = {
        "input_layernorm.weight": (hidden,),
        "post_attention_layernorm.weight": (hidden,),
    }
    linear = (
        ("self_attn.q_proj", queries, hidden, config.qkv_bias),
        ("self_attn.k_proj", keys, hidden, config.qkv_bias),
        ("self_attn.v_proj", keys, hidden, config.qkv_bias),
        ("self_attn.o_proj", hidden, queries, config.output_bias),
        ("mlp.gate_proj", inner, hidden, config.mlp_bias),
        ("mlp.up_proj", inner, hidden, config.mlp_bias),
        ("mlp.down_proj", hidden, inner, config.mlp_bias),
    )
    for name, outputs, inputs, has_bias in linear:
        layer[f"{name}.weight"] = (outputs, inputs)
        if has_bias:
            layer[f"{name}.bias"] = (outputs,)
    if config.qk_norm:
        layer["self_attn.q_norm.weight"] = (config.head_dim,)
        layer["self_attn.k_norm.weight"] = (config.head_dim,)
    shapes = {
        "model.embed_tokens.weight": (config.vocab_size, hidden),
        "model.norm.weight": (hidden,),
    }
    if not config.tie_embeddings:
        shapes["lm_head.weight"] = (config.vocab_size, hidden)
    for number in range(config.num_layers):
        shapes |= {f"model.layers.{number}.{name}": shape for name, shape in layer.items()}
    return shapes


def _check_whole(checkpoint: Checkpoint) -> None:
    expected = expected_shapes(checkpoint.config)
    for name, shape in expected.items():
        if (found := checkpoint.shape(name)) != shape:
            raise DamagedModel(f"{checkpoint.path}: tensor {name} is {found}, not {shape}")
    for name in checkpoint.names():
        # Only within the layers would a tensor left aside change the numbers. Old checkpoints also
        # store the rotation's frequencies, which the config determines.
        inside = name.startswith("model.layers.") and not name.endswith(".rotary_emb.inv_freq")
        if inside and name not in expected:
            raise UnsupportedModel(
                f"{checkpoint.path}: tensor {name} has no place in {checkpoint.config.architecture}"
            )
