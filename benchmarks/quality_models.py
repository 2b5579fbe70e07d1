"""The models of `quality.py`: the reference and, by setting, the candidates that are held to it."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Protocol

import numpy as np
import torch
import transformers
from peer import load_peer

from sapwood.kernels.llama_step import StepInputs
from sapwood.kernels.paged_attention import plan_attention
from sapwood.runtime.config import ComputeDtype, KvDtype
from sapwood.runtime.machine import num_cores
from sapwood.runtime.models.llama import LlamaModel
from sapwood.runtime.models.native_llama import load_native, step_shape
from sapwood.runtime.models.source import resolve_model
from sapwood.runtime.models.torch_tensors import TorchTensors
from sapwood.runtime.models.weights import open_checkpoint
from sapwood.runtime.native_backend import choose_kv_format
from sapwood.runtime.torch_path.forward import ForwardInputs
from sapwood.runtime.torch_path.kv_cache import KVCache

PAGE_SIZE = 16


class Candidate(Protocol):
    """A model under test with a KV cache of its own: rows that grow, up to a length."""

    def clear(self) -> None:
        """Forget all rows."""

    def logits(self, tokens: Mapping[int, Sequence[int]]) -> list[torch.Tensor]:
        """Append tokens to rows, all in one step; float32 [n, vocab] for each row, in order."""
        ...


class TorchCandidate:
    """The torch path, through pages in random order."""

    def __init__(self, dtype: torch.dtype, num_rows: int, row_tokens: int) -> None:
        with open_checkpoint(resolve_model(None)) as checkpoint:
            self._model = LlamaModel.load(TorchTensors(checkpoint), dtype)
        config = self._model.config
        pages_per_row = -(-row_tokens // PAGE_SIZE)
        num_pages = num_rows * pages_per_row
        order = torch.randperm(num_pages, generator=torch.Generator().manual_seed(1))
        self._table = order.view(num_rows, pages_per_row).to(torch.int32)
        self._kv = KVCache(
            config.num_layers,
            num_pages,
            PAGE_SIZE,
            config.num_kv_heads,
            config.head_dim,
            dtype,
        )
        self._lengths = [0] * num_rows

    def clear(self) -> None:
        self._lengths = [0] * len(self._lengths)

    def logits(self, tokens: Mapping[int, Sequence[int]]) -> list[torch.Tensor]:
        counts = [len(ids) for ids in tokens.values()]
        starts = [self._lengths[row] for row in tokens]
        ends = [start + count for start, count in zip(starts, counts, strict=True)]
        spans = zip(starts, ends, strict=True)
        positions = torch.cat([torch.arange(start, end) for start, end in spans])
        owners = torch.tensor([row for row, ids in tokens.items() for _ in ids])
        pages = self._table[owners, positions // PAGE_SIZE].long()
        config = self._model.config
        inputs = ForwardInputs(
            token_ids=torch.tensor([token for ids in tokens.values() for token in ids]),
            positions=positions,
            slots=pages * PAGE_SIZE + positions % PAGE_SIZE,
            attention=plan_attention(
                counts,
                ends,
                self._table[list(tokens)],
                PAGE_SIZE,
                group=config.num_heads // config.num_kv_heads,
                window=config.sliding_window,
                dtype=self._model.dtype,
                device="cpu",
            ),
            logit_rows=torch.arange(len(positions)),
        )
        for row, end in zip(tokens, ends, strict=True):
            self._lengths[row] = end
        return list(self._model.forward(inputs, self._kv).split(counts))


class NativeCandidate:
    """The native step, through pages in random order."""

    def __init__(
        self, dtype: ComputeDtype, kv_dtype: KvDtype, num_rows: int, row_tokens: int
    ) -> None:
        pages_per_row = -(-row_tokens // PAGE_SIZE)
        num_pages = num_rows * pages_per_row
        order = np.random.default_rng(1).permutation(num_pages).astype(np.int32)
        self._table = order.reshape(num_rows, pages_per_row)
        self._lengths = [0] * num_rows
        with open_checkpoint(resolve_model(None)) as checkpoint:
            self._vocab = checkpoint.config.vocab_size
            shape = step_shape(
                checkpoint.config,
                page_size=PAGE_SIZE,
                num_pages=num_pages,
                kv_format=choose_kv_format(kv_dtype, dtype),
                threads=num_cores(),
            )
            self._step = load_native(checkpoint, dtype, shape)

    def clear(self) -> None:
        self._lengths = [0] * len(self._lengths)

    def logits(self, tokens: Mapping[int, Sequence[int]]) -> list[torch.Tensor]:
        counts = [len(ids) for ids in tokens.values()]
        out = np.empty((sum(counts), self._vocab), np.float32)
        self._step.step(
            StepInputs(
                token_ids=np.concatenate([np.array(ids, np.int32) for ids in tokens.values()]),
                starts=np.array([self._lengths[row] for row in tokens], np.int32),
                lengths=np.array(counts, np.int32),
                table_rows=np.array(list(tokens), np.int32),
                page_table=self._table,
                rows=np.arange(sum(counts), dtype=np.int32),
                logits=list(out),
            )
        )
        for row, count in zip(tokens, counts, strict=True):
            self._lengths[row] += count
        return list(torch.from_numpy(out).split(counts))


# Called with the number of rows and the tokens that one may hold.
CANDIDATES: dict[str, Callable[[int, int], Candidate]] = {
    "fp32": partial(NativeCandidate, "float32", "auto"),
    "bf16": partial(NativeCandidate, "bfloat16", "auto"),
    "bf16-kv8": partial(NativeCandidate, "bfloat16", "int8"),
    "auto": partial(NativeCandidate, "stored", "auto"),
    "auto-kv8": partial(NativeCandidate, "stored", "int8"),
    "int8": partial(NativeCandidate, "int8", "auto"),
    "q4": partial(NativeCandidate, "q4", "auto"),
    "torch-fp32": partial(TorchCandidate, torch.float32),
    "torch-bf16": partial(TorchCandidate, torch.bfloat16),
}


class Reference:
    """transformers in float32."""

    def __init__(self) -> None:
        self._model: transformers.LlamaForCausalLM = load_peer(torch.float32)

    @torch.inference_mode()
    def logits(self, ids: Sequence[int]) -> torch.Tensor:
        """float32 [len(ids), vocab]: what follows each of the tokens."""
        logits: torch.Tensor = self._model(torch.tensor([list(ids)])).logits[0]
        return logits
