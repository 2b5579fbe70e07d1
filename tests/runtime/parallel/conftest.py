"""Tiny random models as folders in Hugging Face format, and ranks that are threads."""

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from gguf.constants import GGMLQuantizationType
from safetensors.torch import save_file

from sapwood.runtime.models.hf_config import read_config
from sapwood.runtime.models.weights import expected_shapes
from sapwood.runtime.parallel.group import Group

SECONDS = 60.0
ModelMaker = Callable[..., Path]

_TINY: dict[str, Any] = {
    "model_type": "llama",
    "vocab_size": 257,
    "hidden_size": 32,
    "intermediate_size": 72,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 512,
}


@pytest.fixture(scope="session")
def make_model(tmp_path_factory: pytest.TempPathFactory) -> ModelMaker:
    """make_model(**keys of config.json) -> the folder."""

    def make(**keys: Any) -> Path:
        folder = tmp_path_factory.mktemp("model")
        (folder / "config.json").write_text(json.dumps({**_TINY, **keys}))
        shapes = expected_shapes(read_config(folder))
        generator = torch.Generator().manual_seed(11)
        save_file(
            {name: _random(name, shape, generator) for name, shape in shapes.items()},
            folder / "model.safetensors",
        )
        return folder

    return make


def _random(name: str, shape: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
    values = torch.randn(shape, generator=generator)
    if len(shape) == 1:  # no bias is zero and no norm one: that would hide one counted twice
        return values * 0.3 + ("norm" in name)
    return values * 2 * shape[1] ** -0.5


@pytest.fixture
def make_quantised(tmp_path: Path) -> Callable[[GGMLQuantizationType, int], Path]:
    """make_quantised(format, columns inside the MLP) -> a GGUF file of one layer whose MLP is in
    this format."""

    def make(kind: GGMLQuantizationType, inner: int) -> Path:
        random = np.random.default_rng(3)

        def matrix(rows: int, columns: int) -> np.ndarray[Any, Any]:
            return random.standard_normal((rows, columns), dtype=np.float32)

        path = tmp_path / "model.gguf"
        writer = gguf.GGUFWriter(path, "llama")
        for key, number in {
            "block_count": 1,
            "context_length": 64,
            "embedding_length": 64,
            "feed_forward_length": inner,
            "attention.head_count": 4,
            "attention.head_count_kv": 2,
        }.items():
            writer.add_uint32(f"llama.{key}", number)
        writer.add_float32("llama.attention.layer_norm_rms_epsilon", 1e-5)
        shapes = {"attn_q": 64, "attn_k": 32, "attn_v": 32, "attn_output": 64}
        for name, rows in shapes.items():
            writer.add_tensor(f"blk.0.{name}.weight", matrix(rows, 64))
        for name in ("attn_norm", "ffn_norm"):
            writer.add_tensor(f"blk.0.{name}.weight", matrix(1, 64)[0])
        writer.add_tensor("token_embd.weight", matrix(48, 64))
        writer.add_tensor("output.weight", matrix(48, 64))
        writer.add_tensor("output_norm.weight", matrix(1, 64)[0])
        for name, shape in {
            "ffn_gate": (inner, 64),
            "ffn_up": (inner, 64),
            "ffn_down": (64, inner),
        }.items():
            packed = gguf.quants.quantize(matrix(*shape), kind)
            writer.add_tensor(f"blk.0.{name}.weight", packed, raw_dtype=kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return path

    return make


class ThreadsGroup:
    """Ranks as threads of this process, that meet at a barrier."""

    def __init__(self, rank: int, size: int, meeting: threading.Barrier, desk: list[Any]) -> None:
        self.rank, self.size = rank, size
        self._meeting, self._desk = meeting, desk

    def _exchanged(self, x: torch.Tensor) -> list[torch.Tensor]:
        self._desk[self.rank] = x
        self._meeting.wait(SECONDS)
        parts = list(self._desk)
        self._meeting.wait(SECONDS)
        return parts

    def all_reduce(self, x: torch.Tensor) -> torch.Tensor:
        return torch.stack(self._exchanged(x.clone())).sum(0)

    def all_gather(self, x: torch.Tensor, columns: int) -> torch.Tensor:
        return torch.cat(self._exchanged(x), dim=1)[:, :columns]

    def broadcast(self, x: torch.Tensor) -> None:
        x.copy_(self._exchanged(x.clone())[0])


@pytest.fixture(scope="session")
def make_groups() -> Callable[[int], list[Group]]:
    """make_groups(size) -> one for each rank, to be used on a thread of its own."""

    def make(size: int) -> list[Group]:
        meeting, desk = threading.Barrier(size), [None] * size
        return [ThreadsGroup(rank, size, meeting, desk) for rank in range(size)]

    return make
