"""Slices of a model: what cannot be cut is refused, and the ranks together are the whole."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gguf.constants import GGMLQuantizationType

from sapwood.kernels.paged_attention import plan_attention
from sapwood.runtime.errors import InvalidRequest
from sapwood.runtime.models.config import LlamaConfig
from sapwood.runtime.models.llama import LlamaModel
from sapwood.runtime.models.torch_tensors import TorchTensors
from sapwood.runtime.models.weights import open_checkpoint, read_float32
from sapwood.runtime.parallel.checkpoint import ShardedCheckpoint
from sapwood.runtime.parallel.group import ALONE, Group
from sapwood.runtime.parallel.shard import Shard
from sapwood.runtime.torch_path.forward import ForwardInputs
from sapwood.runtime.torch_path.kv_cache import KVCache

SECONDS = 60.0
LENGTH = 21

FAMILIES: dict[str, dict[str, Any]] = {
    "grouped queries": {},
    "tied": {"tie_word_embeddings": True},
    "one key-value head": {"num_key_value_heads": 1},
    "every head its own": {"num_key_value_heads": 4},
    "biases": {"attention_bias": True, "mlp_bias": True},
    "qwen2": {"model_type": "qwen2"},
    "qwen3": {"model_type": "qwen3", "tie_word_embeddings": True},
    "mistral": {"model_type": "mistral", "sliding_window": 9},
}


def logits(path: Path, group: Group) -> torch.Tensor:
    """[LENGTH, vocab]: of one text, in two chunks; its pages lie in disorder."""
    with open_checkpoint(path) as whole:
        mine = whole if group is ALONE else ShardedCheckpoint.of(whole, group.rank, group.size)
        model = LlamaModel.load(TorchTensors(mine), torch.float32, group=group)
    config = model.config
    kv = KVCache(
        *(config.num_layers, 8, 4, config.num_kv_heads, config.head_dim), dtype=torch.float32
    )
    table = torch.tensor([[5, 0, 7, 2, 3, 6]], dtype=torch.int32)
    ids = torch.arange(LENGTH) * 7 % config.vocab_size
    chunks = []
    for start, end in ((0, 13), (13, LENGTH)):
        positions = torch.arange(start, end)
        plan = plan_attention(
            *([end - start], [end], table, 4),
            group=config.num_heads // config.num_kv_heads,
            window=config.sliding_window,
            dtype=torch.float32,
            device="cpu",
        )
        slots = table[0, positions // 4].long() * 4 + positions % 4
        inputs = ForwardInputs(ids[start:end], positions, slots, plan, torch.arange(end - start))
        chunks.append(model.forward(inputs, kv))
    return torch.cat(chunks)


@pytest.mark.parametrize("size", [2, 4])
@pytest.mark.parametrize("keys", FAMILIES.values(), ids=FAMILIES.keys())
def test_all_ranks_together_are_the_whole(
    keys: dict[str, Any],
    size: int,
    make_model: Callable[..., Path],
    make_groups: Callable[[int], list[Group]],
) -> None:
    path = make_model(**keys)
    whole = logits(path, ALONE)
    with ThreadPoolExecutor(size) as pool:
        parts = list(pool.map(partial(logits, path), make_groups(size), timeout=SECONDS))
    assert whole.abs().max() > 1
    for part in parts:
        assert part.shape == whole.shape
        assert (part - whole).abs().max() <= 1e-4


def test_every_number_is_on_some_rank_and_matrices_on_one(make_model: Callable[..., Path]) -> None:
    """The matrices of all ranks, put together again by hand."""
    with open_checkpoint(make_model(attention_bias=True, mlp_bias=True)) as whole:
        ranks = [ShardedCheckpoint.of(whole, rank, 2) for rank in range(2)]
        for name in whole.names():
            expected = read_float32(whole, name)
            parts = [read_float32(rank, name) for rank in ranks]
            assert [part.shape for part in parts] == [rank.shape(name) for rank in ranks]
            if "o_proj.bias" in name or "down_proj.bias" in name:
                together = parts[0] + parts[1]
            elif "o_proj" in name or "down_proj" in name:
                together = np.concatenate(parts, axis=1)
            elif "_proj" in name or "lm_head" in name:
                together = np.concatenate(parts)[: len(expected)]
            else:
                assert np.array_equal(parts[1], expected)
                together = parts[0]
            assert np.array_equal(together, expected), name


@pytest.mark.parametrize(
    ("kind", "width", "stored"),
    [
        # 64 columns for each of two ranks: two whole blocks of 32; half a block of 256.
        (GGMLQuantizationType.Q8_0, 128, "Q8_0"),
        (GGMLQuantizationType.Q4_1, 128, "Q4_1"),
        (GGMLQuantizationType.Q8_0, 96, "F32"),
    ],
)
def test_quantised_rows_are_cut_between_blocks(
    kind: GGMLQuantizationType,
    width: int,
    stored: str,
    make_quantised: Callable[[GGMLQuantizationType, int], Path],
) -> None:
    name = "model.layers.0.mlp.down_proj.weight"
    with open_checkpoint(make_quantised(kind, width)) as whole:
        ranks = [ShardedCheckpoint.of(whole, rank, 2) for rank in range(2)]
        assert [rank.storage(name) for rank in ranks] == [stored, stored]
        parts = [read_float32(rank, name) for rank in ranks]
        assert np.array_equal(np.concatenate(parts, axis=1), read_float32(whole, name))
        rows = [read_float32(rank, "model.layers.0.mlp.up_proj.weight") for rank in ranks]
        assert np.array_equal(
            np.concatenate(rows), read_float32(whole, "model.layers.0.mlp.up_proj.weight")
        )


def config(**numbers: int) -> LlamaConfig:
    return LlamaConfig(
        **{
            "architecture": "LlamaForCausalLM",
            "vocab_size": 100,
            "hidden_size": 64,
            "intermediate_size": 96,
            "num_layers": 1,
            "num_heads": 12,
            "num_kv_heads": 4,
            "head_dim": 8,
            "context_length": 64,
            **numbers,
        }  # type: ignore[arg-type]
    )


@pytest.mark.parametrize(
    ("numbers", "size", "reason"),
    [
        ({}, 5, "12 attention heads are no multiple"),
        ({"intermediate_size": 98}, 4, "98 inner columns of its MLP are no multiple"),
        ({}, 6, "4 key-value heads can be neither divided among so many processes nor repeated"),
    ],
)
def test_what_cannot_be_cut_is_refused(numbers: dict[str, int], size: int, reason: str) -> None:
    with pytest.raises(InvalidRequest, match=f"tensor_parallel: {size}: .*{reason}") as refused:
        Shard(config(**numbers), 0, size)
    assert refused.value.field == "tensor_parallel"


@pytest.mark.parametrize(
    ("kv_heads", "size", "expected"),
    [
        (4, 2, [(0, 2), (2, 2)]),
        (4, 4, [(0, 1), (1, 1), (2, 1), (3, 1)]),
        (2, 4, [(0, 1), (0, 1), (1, 1), (1, 1)]),
        (1, 3, [(0, 1), (0, 1), (0, 1)]),
    ],
)
def test_which_rank_holds_which_key_value_heads(
    kv_heads: int, size: int, expected: list[tuple[int, int]]
) -> None:
    """And that they are those which its queries read."""
    whole = config(num_kv_heads=kv_heads)
    for rank, (first, count) in enumerate(expected):
        shard = Shard(whole, rank, size)
        keys = shard.part("model.layers.0.self_attn.k_proj.weight", (kv_heads * 8, 64))
        queries = shard.part("model.layers.0.self_attn.q_proj.weight", (96, 64))
        assert keys is not None and queries is not None
        assert (keys.first_row, keys.rows) == (first * 8, count * 8)
        group = whole.num_heads // kv_heads
        heads = range(queries.first_row // 8, (queries.first_row + queries.rows) // 8)
        assert {head // group for head in heads} == set(range(first, first + count))
        assert shard.config.num_heads == len(heads)
        assert shard.config.num_kv_heads == count


def test_a_tied_head_is_cut_from_the_embedding(make_model: Callable[..., Path]) -> None:
    """257 rows on two ranks: 129 and 128 and one of zeros."""
    with open_checkpoint(make_model(tie_word_embeddings=True)) as whole:
        embedding = read_float32(whole, "model.embed_tokens.weight")
        ranks = [ShardedCheckpoint.of(whole, rank, 2) for rank in range(2)]
        heads = [read_float32(rank, "lm_head.weight") for rank in ranks]
        assert all("lm_head.weight" in rank.names() for rank in ranks)
        assert [head.shape for head in heads] == [(129, 32), (129, 32)]
        together = np.concatenate(heads)
        assert np.array_equal(together[:257], embedding)
        assert not together[257:].any()
        assert not any(rank.config.tie_embeddings for rank in ranks)
