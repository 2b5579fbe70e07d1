"""Checkpoints of both formats: values, shapes, and one clear line for each fault."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
import transformers
from gguf.constants import GGMLQuantizationType
from safetensors.torch import load_file, save_file

from sapwood.runtime.models.dequantize import dequantize
from sapwood.runtime.models.errors import (
    DamagedModel,
    ModelError,
    ModelNotFound,
    UnsupportedModel,
)
from sapwood.runtime.models.torch_tensors import TorchTensors
from sapwood.runtime.models.weights import (
    Checkpoint,
    expected_shapes,
    open_checkpoint,
    read_float32,
)

Maker = Callable[..., Path]
Parts = tuple[dict[str, Any], dict[str, Any]]

COMMON: dict[str, Any] = {
    "vocab_size": 48,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("Llama", {}),
    "llama tied, biased": (
        "Llama",
        {"tie_word_embeddings": True, "attention_bias": True, "mlp_bias": True},
    ),
    "llama with its own head_dim": ("Llama", {"head_dim": 16}),
    "mistral": ("Mistral", {"sliding_window": 8}),
    "qwen2": ("Qwen2", {}),
    "qwen3": ("Qwen3", {"head_dim": 16}),
}


def random_model(kind: str, options: dict[str, Any]) -> Any:
    torch.manual_seed(0)
    config = getattr(transformers, f"{kind}Config")(**{**COMMON, **options})
    model = getattr(transformers, f"{kind}ForCausalLM")(config)
    for parameter in model.parameters():  # also norms and biases, which start as ones and zeros
        torch.nn.init.normal_(parameter)
    return model


def read(checkpoint: Checkpoint, name: str, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return TorchTensors(checkpoint).tensor(name, dtype)


def assert_one_line(error: ModelError, path: Path) -> None:
    assert "\n" not in str(error)
    assert str(path) in str(error)


# --- safetensors ---


@pytest.mark.parametrize("sharded", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_what_transformers_saved(family: str, sharded: bool, tmp_path: Path) -> None:
    model = random_model(*FAMILIES[family])
    model.save_pretrained(tmp_path, max_shard_size="20KB" if sharded else "1GB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1 or not sharded
    with open_checkpoint(tmp_path) as checkpoint:
        expected = dict(model.named_parameters())
        assert set(checkpoint.names()) == set(expected) == set(expected_shapes(checkpoint.config))
        for name, value in expected.items():
            assert checkpoint.shape(name) == tuple(value.shape)
            assert checkpoint.storage(name) == "F32"
            assert torch.equal(read(checkpoint, name), value)
            assert torch.equal(read(checkpoint, name, torch.bfloat16), value.bfloat16())
            stored = checkpoint.raw(name).view(np.float32).reshape(value.shape)
            assert np.array_equal(stored, value.detach().numpy())


def save_llama(folder: Path, sharded: bool = False) -> None:
    random_model("Llama", {}).save_pretrained(folder, max_shard_size="20KB" if sharded else "1GB")


def edit_config(folder: Path, **changes: Any) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def test_missing_shard(tmp_path: Path) -> None:
    save_llama(tmp_path, sharded=True)
    shard = sorted(tmp_path.glob("*.safetensors"))[1]
    shard.unlink()
    with pytest.raises(DamagedModel, match="the shard is missing") as caught:
        open_checkpoint(tmp_path)
    assert_one_line(caught.value, shard)


def test_shard_without_a_tensor_that_the_index_names(tmp_path: Path) -> None:
    save_llama(tmp_path, sharded=True)
    index = tmp_path / "model.safetensors.index.json"
    content = json.loads(index.read_text())
    content["weight_map"]["made.up.weight"] = next(iter(content["weight_map"].values()))
    index.write_text(json.dumps(content))
    with pytest.raises(DamagedModel, match=r"tensor made\.up\.weight is missing"):
        open_checkpoint(tmp_path)


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"weight_map": 3}', '{"weight_map": {"a": 1}}']
)
def test_damaged_index(content: str, tmp_path: Path) -> None:
    save_llama(tmp_path, sharded=True)
    (tmp_path / "model.safetensors.index.json").write_text(content)
    with pytest.raises(DamagedModel, match="not an index of shards"):
        open_checkpoint(tmp_path)


def test_cut_off_file(tmp_path: Path) -> None:
    save_llama(tmp_path)
    file = tmp_path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(DamagedModel, match="not a whole safetensors file") as caught:
        open_checkpoint(tmp_path)
    assert_one_line(caught.value, file)


def test_no_safetensors(tmp_path: Path) -> None:
    save_llama(tmp_path)
    (tmp_path / "model.safetensors").rename(tmp_path / "pytorch_model.bin")
    with pytest.raises(ModelNotFound, match=r"holds neither model\.safetensors nor"):
        open_checkpoint(tmp_path)
    with pytest.raises(ModelNotFound, match="no such file or folder"):
        open_checkpoint(tmp_path / "elsewhere")


def change_tensors(folder: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    file = folder / "model.safetensors"
    tensors = {name: tensor.clone() for name, tensor in load_file(file).items()}
    change(tensors)
    save_file(tensors, file)


Q = "model.layers.1.self_attn.q_proj.weight"


def drop(tensors: dict[str, torch.Tensor]) -> None:
    del tensors[Q]


def cut(tensors: dict[str, torch.Tensor]) -> None:
    tensors[Q] = tensors[Q][:-1].contiguous()


def as_int8(tensors: dict[str, torch.Tensor]) -> None:
    tensors[Q] = tensors[Q].to(torch.int8)


def add_bias(tensors: dict[str, torch.Tensor]) -> None:
    tensors[Q.replace("weight", "bias")] = torch.ones(32)


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        (drop, DamagedModel, f"tensor {Q} is missing"),
        (cut, DamagedModel, f"tensor {Q} is (31, 32), not (32, 32)"),
        (as_int8, UnsupportedModel, f"tensor {Q} is stored as I8"),
        (add_bias, UnsupportedModel, "q_proj.bias has no place in LlamaForCausalLM"),
    ],
)
def test_tensor_at_fault(
    change: Callable[[dict[str, torch.Tensor]], None],
    kind: type[ModelError],
    message: str,
    tmp_path: Path,
) -> None:
    save_llama(tmp_path)
    change_tensors(tmp_path, change)
    with pytest.raises(kind) as caught:
        open_checkpoint(tmp_path)
    assert message in str(caught.value)
    assert_one_line(caught.value, tmp_path)


def test_stored_rotation_frequencies_are_left_aside(tmp_path: Path) -> None:
    save_llama(tmp_path)
    extra = {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4)}
    change_tensors(tmp_path, lambda tensors: tensors.update(extra))
    open_checkpoint(tmp_path).close()


def test_mixed_storage(tmp_path: Path) -> None:
    save_llama(tmp_path)

    def halve(tensors: dict[str, torch.Tensor]) -> None:
        tensors[Q] = tensors[Q].half()
        tensors["model.norm.weight"] = tensors["model.norm.weight"].bfloat16()

    change_tensors(tmp_path, halve)
    with open_checkpoint(tmp_path) as checkpoint:
        assert checkpoint.storage(Q) == "F16"
        assert checkpoint.storage("model.norm.weight") == "BF16"
        assert checkpoint.raw(Q).shape == (32, 64)
        assert read(checkpoint, Q).dtype == torch.float32
        for name in (Q, "model.norm.weight"):  # what was rounded once is exact in float32
            assert np.array_equal(read_float32(checkpoint, name), read(checkpoint, name).numpy())


def test_unknown_name(tmp_path: Path) -> None:
    save_llama(tmp_path)
    with open_checkpoint(tmp_path) as checkpoint, pytest.raises(DamagedModel, match="tensor x is"):
        read(checkpoint, "x")


# --- GGUF ---

GGUF_NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def as_gguf(model: Any, architecture: str) -> Parts:
    """What a converter writes for `model`: its names, and llama's rows of q and k interleaved."""
    config = model.config
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    tensors = {}
    for name, parameter in model.named_parameters():
        value = parameter.detach().numpy()
        stem, suffix = name.rsplit(".", 1)
        if architecture == "llama" and stem.endswith(("q_proj", "k_proj")):
            value = value.reshape(-1, 2, head_dim // 2, *value.shape[1:])
            value = value.swapaxes(1, 2).reshape(parameter.shape)
        prefix = ""
        if stem.startswith("model.layers."):
            _, _, number, stem = stem.split(".", 3)
            prefix = f"blk.{number}."
        tensors[f"{prefix}{GGUF_NAMES[stem]}.{suffix}"] = value
    metadata: dict[str, Any] = {
        "general.architecture": architecture,
        f"{architecture}.block_count": config.num_hidden_layers,
        f"{architecture}.context_length": config.max_position_embeddings,
        f"{architecture}.embedding_length": config.hidden_size,
        f"{architecture}.feed_forward_length": config.intermediate_size,
        f"{architecture}.attention.head_count": config.num_attention_heads,
        f"{architecture}.attention.head_count_kv": config.num_key_value_heads,
        f"{architecture}.attention.key_length": head_dim,
        f"{architecture}.attention.value_length": head_dim,
        f"{architecture}.attention.layer_norm_rms_epsilon": 1e-5,
        f"{architecture}.rope.freq_base": 5000.0,
    }
    return metadata, tensors


@pytest.mark.parametrize("family", [name for name in FAMILIES if name != "mistral"])
def test_gguf_gives_back_the_hugging_face_layout(family: str, make_gguf: Maker) -> None:
    kind, options = FAMILIES[family]
    model = random_model(kind, options)
    path = make_gguf(*as_gguf(model, kind.lower()))
    with open_checkpoint(path) as checkpoint:
        config = checkpoint.config
        assert set(checkpoint.names()) == set(dict(model.named_parameters()))
        for name, value in model.named_parameters():
            assert checkpoint.shape(name) == tuple(value.shape)
            assert torch.equal(read(checkpoint, name), value), name
    assert config.tie_embeddings == bool(options.get("tie_word_embeddings"))
    assert config.qkv_bias == (kind == "Qwen2" or "attention_bias" in options)
    assert config.output_bias == ("attention_bias" in options)
    assert config.mlp_bias == ("mlp_bias" in options)
    assert config.qk_norm == (kind == "Qwen3")
    assert config.head_dim == options.get("head_dim", 8)
    assert config.rope.theta == 5000.0


def test_default_model_equals_transformers_own_reading(default_model: Path) -> None:
    from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint

    with open_checkpoint(default_model) as checkpoint:
        c = checkpoint.config
        with torch.device("meta"):  # only its names are used
            skeleton = transformers.LlamaForCausalLM(
                transformers.LlamaConfig(
                    vocab_size=c.vocab_size,
                    hidden_size=c.hidden_size,
                    intermediate_size=c.intermediate_size,
                    num_hidden_layers=c.num_layers,
                    num_attention_heads=c.num_heads,
                    num_key_value_heads=c.num_kv_heads,
                    tie_word_embeddings=True,
                )
            )
        load: Any = load_gguf_checkpoint
        peer = load(str(default_model), return_tensors=True, model_to_load=skeleton)
        assert set(peer["tensors"]) == set(checkpoint.names())
        for name, value in peer["tensors"].items():
            assert torch.equal(read(checkpoint, name), value), name
    assert c.rope.theta == peer["config"]["rope_theta"]
    assert c.rms_eps == peer["config"]["rms_norm_eps"]
    assert c.context_length == peer["config"]["max_position_embeddings"]


def test_default_model_keeps_its_storage(default_model: Path) -> None:
    with open_checkpoint(default_model) as checkpoint:
        assert checkpoint.storage("model.embed_tokens.weight") == "Q8_0"
        assert checkpoint.storage("model.norm.weight") == "F32"
        for name in ("self_attn.q_proj", "self_attn.k_proj", "mlp.down_proj"):
            full = f"model.layers.3.{name}.weight"
            assert checkpoint.storage(full) == "Q4_1"
            raw = checkpoint.raw(full)
            rows, columns = checkpoint.shape(full)
            assert raw.shape == (rows, columns // 32 * 20)
            assert raw.flags.c_contiguous
            expanded = dequantize(raw, "Q4_1")
            assert np.array_equal(expanded, read_float32(checkpoint, full))
            assert torch.equal(torch.from_numpy(expanded), read(checkpoint, full))
        full = "model.layers.3.mlp.down_proj.weight"
        assert np.shares_memory(checkpoint.raw(full), checkpoint.raw(full))  # a view, no copy


def test_quantized_rows_of_q_and_k(make_gguf: Maker, tiny_llama: Parts) -> None:
    metadata, tensors = tiny_llama
    for name in ("blk.0.attn_q.weight", "blk.0.attn_k.weight"):
        values = tensors[name]
        kind = GGMLQuantizationType.Q8_0
        tensors[name] = (gguf.quants.quantize(values, kind), kind)
        heads, rows = (4, 32) if "attn_q" in name else (2, 16)
        expected = gguf.quants.dequantize(tensors[name][0], kind)
        expected = expected.reshape(heads, 4, 2, 32).swapaxes(1, 2).reshape(rows, 32)
        path = make_gguf(metadata, tensors)
        with open_checkpoint(path) as checkpoint:
            full = f"model.layers.0.self_attn.{name[11]}_proj.weight"
            assert checkpoint.storage(full) == "Q8_0"
            got = read(checkpoint, full)
            assert torch.equal(got, torch.from_numpy(expected))


def test_rope_factors_are_read(make_gguf: Maker, tiny_llama: Parts) -> None:
    metadata, tensors = tiny_llama
    tensors["rope_freqs.weight"] = np.array([1, 1, 4, 8], np.float32)
    with open_checkpoint(make_gguf(metadata, tensors)) as checkpoint:
        assert checkpoint.config.rope.freq_factors == (1.0, 1.0, 4.0, 8.0)
        assert "rope_freqs.weight" not in checkpoint.names()
    tensors["rope_freqs.weight"] = np.ones(3, np.float32)
    with pytest.raises(DamagedModel, match=r"rope_freqs\.weight is F32 \(3,\), not F32 \(4,\)"):
        open_checkpoint(make_gguf(metadata, tensors))


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        ({"llama.rope.scaling.type": "none"}, ("default", 1.0, 1.0)),
        ({"llama.rope.scale_linear": 4.0}, ("linear", 4.0, 1.0)),
        (
            {"llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": 2.0},
            ("linear", 2.0, 1.0),
        ),
        (
            {
                "llama.rope.scaling.type": "yarn",
                "llama.rope.scaling.factor": 4.0,
                "llama.rope.scaling.original_context_length": 16,
            },
            ("yarn", 4.0, 1.1386294361119891),
        ),
    ],
)
def test_rope_scaling(
    metadata: dict[str, Any],
    expected: tuple[str, float, float],
    make_gguf: Maker,
    tiny_llama: Parts,
) -> None:
    with open_checkpoint(make_gguf({**tiny_llama[0], **metadata}, tiny_llama[1])) as checkpoint:
        rope = checkpoint.config.rope
    assert (rope.kind, rope.factor) == expected[:2]
    assert rope.attention_factor == pytest.approx(expected[2])
    assert rope.original_context == (16 if rope.kind == "yarn" else 8192)


@pytest.mark.parametrize(
    ("metadata", "kind", "message"),
    [
        ({"general.architecture": "gemma2"}, UnsupportedModel, "architecture 'gemma2'"),
        ({"llama.expert_count": 8}, UnsupportedModel, "llama.expert_count 8"),
        ({"llama.rope.dimension_count": 4}, UnsupportedModel, "llama.rope.dimension_count 4"),
        ({"llama.attention.value_length": 16}, UnsupportedModel, "value_length 16"),
        ({"llama.rope.scaling.type": "longrope"}, UnsupportedModel, "'longrope'"),
        ({"llama.attention.head_count_kv": [2, 4]}, UnsupportedModel, "differs by layer: [2, 4]"),
        ({"llama.block_count": 2}, DamagedModel, "tensor model.layers.1."),
        ({"llama.block_count": "two"}, DamagedModel, "llama.block_count is 'two', not int"),
        ({"llama.embedding_length": 64}, DamagedModel, "is (48, 32), not (48, 64)"),
    ],
)
def test_metadata_at_fault(
    metadata: dict[str, Any],
    kind: type[ModelError],
    message: str,
    make_gguf: Maker,
    tiny_llama: Parts,
) -> None:
    path = make_gguf({**tiny_llama[0], **metadata}, tiny_llama[1])
    with pytest.raises(kind) as caught:
        open_checkpoint(path)
    assert message in str(caught.value)
    assert_one_line(caught.value, path)


def test_gguf_tensors_at_fault(make_gguf: Maker, tiny_llama: Parts) -> None:
    metadata, tensors = tiny_llama
    q2 = (np.zeros((256, 84), np.uint8), GGMLQuantizationType.Q2_K)
    for change, kind, message in (
        (
            {"blk.0.ffn_up.weight": None},
            DamagedModel,
            "tensor model.layers.0.mlp.up_proj.weight is",
        ),
        ({"token_embd.weight": None}, DamagedModel, "tensor token_embd.weight is missing"),
        ({"blk.0.ffn_up.weight": q2}, UnsupportedModel, "blk.0.ffn_up.weight is quantized as Q2_K"),
        ({"blk.0.ffn_gate_inp.weight": np.ones(4, np.float32)}, UnsupportedModel, "ffn_gate_inp"),
        ({"blk.0.attn_v.bias": np.ones(16, np.float32)}, UnsupportedModel, "v_proj.bias has no pl"),
        ({"blk.9.attn_v.weight": np.ones(16, np.float32)}, UnsupportedModel, "layers.9.self_attn"),
    ):
        merged = {**tensors, **change}
        path = make_gguf(metadata, {name: t for name, t in merged.items() if t is not None})
        with pytest.raises(kind) as caught:
            open_checkpoint(path)
        assert message in str(caught.value)
        assert_one_line(caught.value, path)


def test_array_of_equal_head_counts(make_gguf: Maker, tiny_llama: Parts) -> None:
    metadata, tensors = tiny_llama
    metadata["llama.attention.head_count_kv"] = [2]
    with open_checkpoint(make_gguf(metadata, tensors)) as checkpoint:
        assert checkpoint.config.num_kv_heads == 2


@pytest.mark.parametrize(("window", "expected"), [(0, None), (8, 8), (64, None)])
def test_gguf_sliding_window(
    window: int, expected: int | None, make_gguf: Maker, tiny_llama: Parts
) -> None:
    metadata, tensors = tiny_llama
    metadata["llama.attention.sliding_window"] = window
    with open_checkpoint(make_gguf(metadata, tensors)) as checkpoint:
        assert checkpoint.config.sliding_window == expected
