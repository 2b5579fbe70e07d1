"""A GGUF file's metadata, read into the architecture's own record.

Owns: the metadata keys that describe the architecture, and what of them is refused.
"""

import math
from dataclasses import replace
from typing import Final

import numpy as np

from .config import LlamaConfig, RopeConfig
from .errors import DamagedModel, UnsupportedModel
from .gguf_file import GgufFile

ARCHITECTURES: Final = ("llama", "qwen2", "qwen3")  # Mistral's files call themselves llama
ROPE_FACTORS: Final = "rope_freqs.weight"


def read_config(file: GgufFile) -> LlamaConfig:
    """The architecture of `file`.

    Raises DamagedModel (a key or the embedding missing) and UnsupportedModel (architecture, mixture
    of experts, rope scaling, heads that differ by layer).
    """
    architecture = file.get("general.architecture", str)
    if architecture not in ARCHITECTURES:
        raise UnsupportedModel(
            f"{file.path}: the architecture {architecture!r} is not supported; "
            f"supported are {', '.join(ARCHITECTURES)}"
        )
    if "token_embd.weight" not in file.tensors:
        raise DamagedModel(f"{file.path}: tensor token_embd.weight is missing")
    hidden_size = file.get(f"{architecture}.embedding_length", int)
    num_heads = _heads(file, f"{architecture}.attention.head_count", None)
    head_dim = file.get(f"{architecture}.attention.key_length", int, hidden_size // num_heads)
    context_length = file.get(f"{architecture}.context_length", int)
    window = file.get(f"{architecture}.attention.sliding_window", int, 0)
    for key, value, built in (
        ("expert_count", file.get(f"{architecture}.expert_count", int, 0), 0),
        ("attention.value_length", _value_length(file, architecture, head_dim), head_dim),
        ("rope.dimension_count", _rope_length(file, architecture, head_dim), head_dim),
    ):
        if value != built:
            raise UnsupportedModel(
                f"{file.path}: {architecture}.{key} {value} is not supported, only {built}"
            )
    return LlamaConfig(
        architecture=architecture,
        vocab_size=file.tensors["token_embd.weight"].shape[0],
        hidden_size=hidden_size,
        intermediate_size=file.get(f"{architecture}.feed_forward_length", int),
        num_layers=file.get(f"{architecture}.block_count", int),
        num_heads=num_heads,
        num_kv_heads=_heads(file, f"{architecture}.attention.head_count_kv", num_heads),
        head_dim=head_dim,
        context_length=context_length,
        rms_eps=file.get(f"{architecture}.attention.layer_norm_rms_epsilon", float),
        rope=_rope(file, architecture, head_dim, context_length),
        tie_embeddings="output.weight" not in file.tensors,
        qkv_bias="blk.0.attn_q.bias" in file.tensors,
        output_bias="blk.0.attn_output.bias" in file.tensors,
        mlp_bias="blk.0.ffn_down.bias" in file.tensors,
        qk_norm="blk.0.attn_q_norm.weight" in file.tensors,
        sliding_window=window if 0 < window < context_length else None,
    )


def _value_length(file: GgufFile, architecture: str, head_dim: int) -> int:
    return file.get(f"{architecture}.attention.value_length", int, head_dim)


def _rope_length(file: GgufFile, architecture: str, head_dim: int) -> int:
    return file.get(f"{architecture}.rope.dimension_count", int, head_dim)


def _heads(file: GgufFile, key: str, default: int | None) -> int:
    """A number of heads: one for all layers, or an array of which all must be the same."""
    value = file.metadata.get(key)
    if isinstance(value, list):
        if len(set(value)) != 1:
            raise UnsupportedModel(f"{file.path}: {key} differs by layer: {value!r:.80}")
        return int(value[0])
    return file.get(key, int, default)


def _rope(file: GgufFile, architecture: str, head_dim: int, context_length: int) -> RopeConfig:
    prefix = f"{architecture}.rope"
    rope = RopeConfig(theta=file.get(f"{prefix}.freq_base", float, 10_000.0))
    factor = file.get(f"{prefix}.scaling.factor", float, 0.0) or file.get(
        f"{prefix}.scale_linear", float, 1.0
    )
    # Where only a factor is given, positions are divided by it.
    kind = file.get(f"{prefix}.scaling.type", str, "linear" if factor != 1.0 else "none")
    if kind == "linear":
        rope = replace(rope, kind="linear", factor=factor)
    elif kind == "yarn":
        attention_factor = 0.1 * math.log(factor) + 1.0 if factor > 1 else 1.0
        attention_factor *= file.get(f"{prefix}.scaling.attn_factor", float, 1.0)
        original = file.get(f"{prefix}.scaling.original_context_length", int, context_length)
        rope = replace(
            rope,
            kind="yarn",
            factor=factor,
            original_context=original,
            beta_fast=file.get(f"{prefix}.scaling.yarn_beta_fast", float, 32.0),
            beta_slow=file.get(f"{prefix}.scaling.yarn_beta_slow", float, 1.0),
            attention_factor=attention_factor,
        )
    elif kind != "none":
        raise UnsupportedModel(f"{file.path}: {prefix}.scaling.type {kind!r} is not supported")
    return replace(rope, freq_factors=_factors(file, head_dim))


def _factors(file: GgufFile, head_dim: int) -> tuple[float, ...] | None:
    place = file.tensors.get(ROPE_FACTORS)
    if place is None:
        return None
    if place.type_name != "F32" or place.shape != (head_dim // 2,):
        raise DamagedModel(
            f"{file.path}: {ROPE_FACTORS} is {place.type_name} {place.shape}, "
            f"not F32 {(head_dim // 2,)}"
        )
    return tuple(file.raw(ROPE_FACTORS).view(np.float32).reshape(-1).tolist())
