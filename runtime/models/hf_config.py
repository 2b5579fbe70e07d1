"""A Hugging Face `config.json`, read into the architecture's own record.

Owns: that file's keys, their defaults where they are left out, and what of them is refused.
"""

import json
import math
from pathlib import Path
from typing import Any, Final

from .config import LlamaConfig, RopeConfig
from .errors import DamagedModel, ModelNotFound, UnsupportedModel

ARCHITECTURES: Final = {  # by the older field `model_type`, for files that name no architecture
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
}


def read_config(folder: Path) -> LlamaConfig:
    """The architecture of the checkpoint in `folder`.

    Raises ModelNotFound (no config.json), DamagedModel (a key missing or of the wrong type),
    UnsupportedModel (architecture, rope type, activation, quantization, mixed sliding windows).
    """
    keys = _Keys(folder / "config.json")
    architecture = _architecture(keys)
    if quantization := keys.table("quantization_config"):
        raise keys.unsupported("quant_method", quantization.get("quant_method"))
    if (activation := keys.values.get("hidden_act", "silu")) != "silu":
        raise keys.unsupported("hidden_act", activation)
    is_llama, is_qwen2 = architecture == "LlamaForCausalLM", architecture == "Qwen2ForCausalLM"
    is_qwen3 = architecture == "Qwen3ForCausalLM"
    attention_bias = (is_llama or is_qwen3) and keys.flag("attention_bias", False)
    hidden_size, num_heads = keys.integer("hidden_size"), keys.integer("num_attention_heads")
    return LlamaConfig(
        architecture=architecture,
        vocab_size=keys.integer("vocab_size"),
        hidden_size=hidden_size,
        intermediate_size=keys.integer("intermediate_size"),
        num_layers=keys.integer("num_hidden_layers"),
        num_heads=num_heads,
        num_kv_heads=keys.integer("num_key_value_heads", num_heads if is_llama else None),
        head_dim=keys.integer("head_dim", 128 if is_qwen3 else hidden_size // num_heads),
        context_length=keys.integer("max_position_embeddings"),
        rms_eps=keys.number("rms_norm_eps", 1e-6),
        rope=_rope(keys),
        tie_embeddings=keys.flag("tie_word_embeddings", False),
        qkv_bias=is_qwen2 or attention_bias,
        output_bias=attention_bias,
        mlp_bias=is_llama and keys.flag("mlp_bias", False),
        qk_norm=is_qwen3,
        sliding_window=None if is_llama else _sliding_window(keys, architecture),
    )


class _Keys:
    """The file's keys, typed; every complaint names the file, the key and the value.

    A key that is null counts as left out, as it does for those who write these files.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self.values: dict[str, Any] = json.loads(path.read_text("utf-8"))
        except FileNotFoundError as error:
            raise ModelNotFound(f"{path}: no such file") from error
        except ValueError as error:
            raise DamagedModel(f"{path}: not JSON: {error}") from error
        if not isinstance(self.values, dict):
            raise DamagedModel(f"{path}: not a JSON object")

    def unsupported(self, key: str, value: object) -> UnsupportedModel:
        return UnsupportedModel(f"{self.path}: {key} {value!r} is not supported")

    def integer(self, key: str, default: int | None = None) -> int:
        value = self._present(key, default)
        if type(value) is not int or value <= 0:
            raise DamagedModel(f"{self.path}: {key} is {value!r}, not a positive integer")
        return value

    def number(self, key: str, default: float | None = None) -> float:
        value = self._present(key, default)
        if type(value) not in (int, float):
            raise DamagedModel(f"{self.path}: {key} is {value!r}, not a number")
        return float(value)

    def flag(self, key: str, default: bool) -> bool:
        value = self._present(key, default)
        if type(value) is not bool:
            raise DamagedModel(f"{self.path}: {key} is {value!r}, not true or false")
        return value

    def table(self, key: str) -> dict[str, Any]:
        value = self._present(key, {})
        if not isinstance(value, dict):
            raise DamagedModel(f"{self.path}: {key} is {value!r}, not an object")
        return value

    def _present(self, key: str, default: Any) -> Any:
        value = self.values.get(key)
        value = default if value is None else value
        if value is None:
            raise DamagedModel(f"{self.path}: {key} is missing")
        return value

    def within(self, table: dict[str, Any]) -> "_Keys":
        """The keys of an inner table, with complaints that still name this file."""
        inner = object.__new__(_Keys)
        inner.path, inner.values = self.path, table
        return inner


def _architecture(keys: _Keys) -> str:
    named = keys.values.get("architectures")
    name = named[0] if isinstance(named, list) and named else None
    if name is None:
        name = ARCHITECTURES.get(keys.values.get("model_type", ""))
    if name not in ARCHITECTURES.values():
        shown = name or keys.values.get("model_type")
        known = ", ".join(ARCHITECTURES.values())
        raise UnsupportedModel(
            f"{keys.path}: the architecture {shown!r} is not supported; supported are {known}"
        )
    return str(name)


def _rope(keys: _Keys) -> RopeConfig:
    """From `rope_parameters` (transformers 5) or `rope_theta` and `rope_scaling` (before it)."""
    table = {
        "rope_theta": keys.number("rope_theta", 10_000.0),
        **keys.table("rope_scaling"),
        **keys.table("rope_parameters"),
    }
    rope = keys.within(table)
    partial = rope.number("partial_rotary_factor", keys.number("partial_rotary_factor", 1.0))
    if partial != 1.0:
        raise keys.unsupported("partial_rotary_factor", partial)
    theta = rope.number("rope_theta")
    kind = table.get("rope_type") or table.get("type") or "default"
    if kind == "default":
        return RopeConfig(theta=theta)
    if kind == "linear":
        return RopeConfig(theta=theta, kind="linear", factor=rope.number("factor"))
    if kind == "llama3":
        return RopeConfig(
            theta=theta,
            kind="llama3",
            factor=rope.number("factor"),
            low_freq_factor=rope.number("low_freq_factor"),
            high_freq_factor=rope.number("high_freq_factor"),
            original_context=_original_context(keys, rope),
        )
    if kind == "yarn":
        return _yarn(keys, rope, theta)
    raise keys.unsupported("rope_type", kind)


def _yarn(keys: _Keys, rope: _Keys, theta: float) -> RopeConfig:
    if not rope.flag("truncate", True):
        raise keys.unsupported("yarn with truncate", False)
    original = _original_context(keys, rope)
    factor = rope.number("factor", keys.integer("max_position_embeddings") / original)
    attention_factor = 0.1 * math.log(factor) + 1.0 if factor > 1 else 1.0
    scale, scale_all = rope.number("mscale", 0.0), rope.number("mscale_all_dim", 0.0)
    if scale and scale_all and factor > 1:
        logarithm = 0.1 * math.log(factor)
        attention_factor = (scale * logarithm + 1.0) / (scale_all * logarithm + 1.0)
    return RopeConfig(
        theta=theta,
        kind="yarn",
        factor=factor,
        original_context=original,
        beta_fast=rope.number("beta_fast", 32.0),
        beta_slow=rope.number("beta_slow", 1.0),
        attention_factor=rope.number("attention_factor", attention_factor),
    )


def _original_context(keys: _Keys, rope: _Keys) -> int:
    """Positions before the stretching: in the rope table, beside it, or the context length."""
    key = "original_max_position_embeddings"
    outer = keys.integer(key, keys.integer("max_position_embeddings"))
    return rope.integer(key, outer)


def _sliding_window(keys: _Keys, architecture: str) -> int | None:
    """The window if it holds in every layer and is shorter than the context, else None."""
    if architecture == "MistralForCausalLM":
        if keys.values.get("sliding_window", 4096) is None:  # null, unlike absence, means none
            return None
        window, num_full = keys.integer("sliding_window", 4096), 0
    else:
        if not keys.flag("use_sliding_window", False):
            return None
        window = keys.integer("sliding_window", 4096)
        num_full = keys.values.get("max_window_layers", 28)
    num_layers = keys.integer("num_hidden_layers")
    kinds = keys.values.get("layer_types") or [
        "full_attention" if layer < num_full else "sliding_attention" for layer in range(num_layers)
    ]
    if window >= keys.integer("max_position_embeddings") or set(kinds) == {"full_attention"}:
        return None
    if set(kinds) != {"sliding_attention"}:
        raise keys.unsupported("a mixture of layer_types", sorted(set(kinds)))
    return window
