"""Small made-up GGUF files, written by the `gguf` package."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch

from sapwood.runtime.models.source import resolve_model

GgufMaker = Callable[..., Path]

TINY_LLAMA: dict[str, Any] = {
    "general.architecture": "llama",
    "llama.block_count": 1,
    "llama.context_length": 64,
    "llama.embedding_length": 32,
    "llama.feed_forward_length": 64,
    "llama.attention.head_count": 4,
    "llama.attention.head_count_kv": 2,
    "llama.attention.layer_norm_rms_epsilon": 1e-5,
}


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def default_model() -> Path:
    return resolve_model(None)


@pytest.fixture
def make_gguf(tmp_path: Path) -> GgufMaker:
    """make_gguf(metadata, tensors): tensors are arrays, or (bytes [rows, row_bytes], type)."""

    def make(
        metadata: Mapping[str, Any],
        tensors: Mapping[str, Any] | None = None,
        name: str = "made-up.gguf",
    ) -> Path:
        path = tmp_path / name
        writer = gguf.GGUFWriter(path, metadata.get("general.architecture", "llama"))
        for key, value in metadata.items():
            if key != "general.architecture":
                _add(writer, key, value)
        for tensor_name, tensor in (tensors or {}).items():
            if isinstance(tensor, tuple):
                writer.add_tensor(tensor_name, tensor[0], raw_dtype=tensor[1])
            else:
                writer.add_tensor(tensor_name, np.ascontiguousarray(tensor))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return path

    return make


def _add(writer: gguf.GGUFWriter, key: str, value: Any) -> None:
    if key == "general.alignment":
        writer.add_custom_alignment(value)
    elif isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    elif isinstance(value, str):
        writer.add_string(key, value)
    else:
        writer.add_array(key, value)


@pytest.fixture
def tiny_llama() -> tuple[dict[str, Any], dict[str, Any]]:
    """Metadata and tensors of a whole one-layer llama with untied embeddings."""
    random = np.random.default_rng(7)

    def matrix(*shape: int) -> np.ndarray[Any, Any]:
        return random.standard_normal(shape, dtype=np.float32)

    tensors = {
        "token_embd.weight": matrix(48, 32),
        "output_norm.weight": matrix(32),
        "output.weight": matrix(48, 32),
        "blk.0.attn_norm.weight": matrix(32),
        "blk.0.attn_q.weight": matrix(32, 32),
        "blk.0.attn_k.weight": matrix(16, 32),
        "blk.0.attn_v.weight": matrix(16, 32),
        "blk.0.attn_output.weight": matrix(32, 32),
        "blk.0.ffn_norm.weight": matrix(32),
        "blk.0.ffn_gate.weight": matrix(64, 32),
        "blk.0.ffn_up.weight": matrix(64, 32),
        "blk.0.ffn_down.weight": matrix(32, 64),
    }
    return dict(TINY_LLAMA), tensors
