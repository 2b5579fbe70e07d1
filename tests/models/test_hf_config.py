"""config.json: what each key means, checked against transformers' reading where it has one."""

import json
from pathlib import Path
from typing import Any

import pytest
import transformers
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from sapwood.runtime.models.config import RopeConfig
from sapwood.runtime.models.errors import (
    DamagedModel,
    ModelError,
    ModelNotFound,
    UnsupportedModel,
)
from sapwood.runtime.models.hf_config import read_config

BASE: dict[str, Any] = {
    "vocab_size": 48,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}


def write(folder: Path, values: dict[str, Any], architecture: str = "Llama") -> Path:
    content = {"architectures": [f"{architecture}ForCausalLM"], **BASE, **values}
    (folder / "config.json").write_text(json.dumps(content))
    return folder


def test_defaults_of_keys_left_out(tmp_path: Path) -> None:
    config = read_config(write(tmp_path, {}))
    assert config.head_dim == 8
    assert config.rms_eps == transformers.LlamaConfig().rms_norm_eps
    assert config.rope == RopeConfig(theta=10_000.0)
    assert not (config.tie_embeddings or config.qkv_bias or config.output_bias or config.mlp_bias)
    assert config.sliding_window is None
    assert read_config(write(tmp_path, {"num_key_value_heads": None})).num_kv_heads == 4
    assert read_config(write(tmp_path, {"head_dim": None})).head_dim == 8
    assert read_config(write(tmp_path, {}, "Qwen3")).head_dim == transformers.Qwen3Config().head_dim


def test_model_type_stands_in_for_the_architecture(tmp_path: Path) -> None:
    config = read_config(write(tmp_path, {"architectures": None, "model_type": "qwen3"}))
    assert config.architecture == "Qwen3ForCausalLM"
    assert config.qk_norm


LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
ROPES: list[tuple[dict[str, Any], RopeConfig]] = [
    ({"rope_theta": 5e5}, RopeConfig(theta=5e5)),
    ({"rope_parameters": {"rope_theta": 5e5, "rope_type": "default"}}, RopeConfig(theta=5e5)),
    (
        {"rope_theta": 5e5, "rope_scaling": LLAMA3},
        RopeConfig(5e5, "llama3", 8.0, 1.0, 4.0, original_context=16),
    ),
    (
        {"rope_parameters": {"rope_theta": 5e5, **LLAMA3}},
        RopeConfig(5e5, "llama3", 8.0, 1.0, 4.0, original_context=16),
    ),
    ({"rope_scaling": {"type": "linear", "factor": 2.0}}, RopeConfig(kind="linear", factor=2.0)),
    ({"rope_scaling": None}, RopeConfig()),
]


@pytest.mark.parametrize(("values", "expected"), ROPES)
def test_rope(values: dict[str, Any], expected: RopeConfig, tmp_path: Path) -> None:
    assert read_config(write(tmp_path, values)).rope == expected


@pytest.mark.parametrize(
    "table",
    [
        {"factor": 4.0, "original_max_position_embeddings": 16},
        {"factor": 4.0},
        {"factor": 0.5},
        {"factor": 4.0, "attention_factor": 1.5},
        {"factor": 4.0, "mscale": 0.7, "mscale_all_dim": 1.3},
        {"factor": 4.0, "mscale": 0.7},
    ],
)
def test_yarn_attention_factor_is_that_of_transformers(
    table: dict[str, float], tmp_path: Path
) -> None:
    scaling = {"rope_type": "yarn", "rope_theta": 10_000.0, **table}
    rope = read_config(write(tmp_path, {"rope_parameters": scaling})).rope
    peer = transformers.LlamaConfig(**BASE, rope_parameters=dict(scaling))
    _, attention_factor = ROPE_INIT_FUNCTIONS["yarn"](peer, "cpu")
    assert rope.attention_factor == pytest.approx(attention_factor)
    assert (rope.kind, rope.factor) == ("yarn", table["factor"])
    assert rope.original_context == table.get("original_max_position_embeddings", 64)


@pytest.mark.parametrize(
    ("architecture", "values", "window"),
    [
        ("Llama", {"sliding_window": 8}, None),  # Llama has none, whatever the file says
        ("Mistral", {"sliding_window": 8}, 8),
        ("Mistral", {"sliding_window": None}, None),
        ("Mistral", {"sliding_window": 64}, None),  # never shorter than the context
        ("Mistral", {"max_position_embeddings": 32768}, 4096),
        ("Qwen2", {"sliding_window": 8}, None),
        ("Qwen2", {"sliding_window": 8, "use_sliding_window": True, "max_window_layers": 0}, 8),
        ("Qwen2", {"sliding_window": 8, "use_sliding_window": True, "max_window_layers": 3}, None),
        (
            "Qwen3",
            {
                "sliding_window": 8,
                "use_sliding_window": True,
                "layer_types": ["sliding_attention"] * 3,
            },
            8,
        ),
    ],
)
def test_sliding_window(
    architecture: str, values: dict[str, Any], window: int | None, tmp_path: Path
) -> None:
    assert read_config(write(tmp_path, values, architecture)).sliding_window == window


@pytest.mark.parametrize(
    ("values", "kind", "message"),
    [
        ({"architectures": ["MambaForCausalLM"]}, UnsupportedModel, "'MambaForCausalLM'"),
        ({"architectures": None, "model_type": "mamba"}, UnsupportedModel, "'mamba'"),
        ({"hidden_act": "gelu"}, UnsupportedModel, "hidden_act 'gelu'"),
        ({"quantization_config": {"quant_method": "awq"}}, UnsupportedModel, "quant_method 'awq'"),
        ({"rope_scaling": {"type": "dynamic", "factor": 2.0}}, UnsupportedModel, "'dynamic'"),
        ({"rope_scaling": {"rope_type": "longrope"}}, UnsupportedModel, "rope_type 'longrope'"),
        ({"partial_rotary_factor": 0.5}, UnsupportedModel, "partial_rotary_factor 0.5"),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 2, "truncate": False}},
         UnsupportedModel, "truncate"),
        ({"rope_scaling": {"type": "linear"}}, DamagedModel, "factor is missing"),
        ({"hidden_size": None}, DamagedModel, "hidden_size is missing"),
        ({"hidden_size": "32"}, DamagedModel, "hidden_size is '32', not a positive integer"),
        ({"num_hidden_layers": 0}, DamagedModel, "num_hidden_layers is 0"),
        ({"rms_norm_eps": "1"}, DamagedModel, "rms_norm_eps is '1', not a number"),
        ({"tie_word_embeddings": 1}, DamagedModel, "tie_word_embeddings is 1, not true or false"),
        ({"rope_parameters": [1]}, DamagedModel, "rope_parameters is [1], not an object"),
    ],
)  # fmt: skip
def test_config_at_fault(
    values: dict[str, Any], kind: type[ModelError], message: str, tmp_path: Path
) -> None:
    with pytest.raises(kind) as caught:
        read_config(write(tmp_path, values))
    assert message in str(caught.value)
    assert str(tmp_path / "config.json") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_mixed_layers_are_refused(tmp_path: Path) -> None:
    values = {"sliding_window": 8, "use_sliding_window": True, "max_window_layers": 1}
    with pytest.raises(UnsupportedModel, match="a mixture of layer_types"):
        read_config(write(tmp_path, values, "Qwen2"))


@pytest.mark.parametrize("content", ["", "{", "[]"])
def test_file_at_fault(content: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(DamagedModel, match="not JSON|not a JSON object"):
        read_config(tmp_path)
    (tmp_path / "config.json").unlink()
    with pytest.raises(ModelNotFound):
        read_config(tmp_path)
