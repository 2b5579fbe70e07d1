"""The default model's real weights against transformers, through scattered pages."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers

from sapwood.kernels.paged_attention import plan_attention
from sapwood.runtime.models.llama import LlamaModel
from sapwood.runtime.models.torch_tensors import TorchTensors
from sapwood.runtime.models.weights import open_checkpoint
from sapwood.runtime.tokenizer import load_tokenizer
from sapwood.runtime.torch_path.forward import ForwardInputs
from sapwood.runtime.torch_path.kv_cache import KVCache

PAGE_SIZE = 16
TEXT = """Sapwood is the living layer of a tree: what the roots have drawn up is carried once and
shared by every branch. In 1727 Stephen Hales measured the force of the sap in vines with glass
tubes, 38 feet high. def climb(height): return [leaf for leaf in range(height) if leaf % 3]"""
PROMPTS = [
    f"{verb} {noun}."
    for verb in ("Describe", "Write one sentence about", "List three facts on", "A poem:")
    for noun in ("the sea", "a small town", "prime numbers", "winter", "my dog Rex")
]


@pytest.fixture(scope="session")
def encode(default_model: Path) -> Callable[[str], list[int]]:
    tokenizer = load_tokenizer(default_model).tokenizer
    return lambda text: list(tokenizer.encode(text).ids)


@pytest.fixture(scope="session")
def model(default_model: Path) -> LlamaModel:
    with open_checkpoint(default_model) as checkpoint:
        return LlamaModel.load(TorchTensors(checkpoint), torch.float32)


class Rows:
    """Some rows' pages in random order, and how far each row is computed."""

    def __init__(self, model: LlamaModel, num_rows: int, capacity: int) -> None:
        config = model.config
        per_row = -(-capacity // PAGE_SIZE)
        self._model = model
        order = torch.randperm(num_rows * per_row, generator=torch.Generator().manual_seed(1))
        self.table = order.view(num_rows, per_row).to(torch.int32)
        self.kv = KVCache(
            config.num_layers,
            num_rows * per_row,
            PAGE_SIZE,
            config.num_kv_heads,
            config.head_dim,
            model.dtype,
        )
        self._done = [0] * num_rows

    def append(self, tokens: dict[int, list[int]]) -> list[torch.Tensor]:
        """Compute more tokens of some rows; their logits, one tensor for each row."""
        lengths = [len(ids) for ids in tokens.values()]
        ends = [self._done[row] + len(ids) for row, ids in tokens.items()]
        starts = [self._done[row] for row in tokens]
        spans = zip(starts, ends, strict=True)
        positions = torch.cat([torch.arange(start, end) for start, end in spans])
        owners = torch.tensor([row for row, ids in tokens.items() for _ in ids])
        pages = self.table[owners, positions // PAGE_SIZE].long()
        config = self._model.config
        plan = plan_attention(
            lengths,
            ends,
            self.table[list(tokens)],
            PAGE_SIZE,
            group=config.num_heads // config.num_kv_heads,
            window=None,
            dtype=self._model.dtype,
            device="cpu",
        )
        inputs = ForwardInputs(
            token_ids=torch.tensor([token for ids in tokens.values() for token in ids]),
            positions=positions,
            slots=pages * PAGE_SIZE + positions % PAGE_SIZE,
            attention=plan,
            logit_rows=torch.arange(len(positions)),
        )
        logits = self._model.forward(inputs, self.kv)
        for row, end in zip(tokens, ends, strict=True):
            self._done[row] = end
        return list(logits.split(lengths))


@torch.inference_mode()
def peer_logits(peer: transformers.PreTrainedModel, ids: list[int]) -> torch.Tensor:
    logits: torch.Tensor = peer(torch.tensor([ids])).logits[0]
    return logits


def test_prefill_and_decode_equal_the_peer(
    model: LlamaModel,
    hf_model: transformers.PreTrainedModel,
    encode: Callable[[str], list[int]],
) -> None:
    ids = encode(TEXT)
    expected = peer_logits(hf_model, ids)
    rows = Rows(model, 3, len(ids))
    (whole,) = rows.append({0: ids})
    assert (whole - expected).abs().max() <= 1e-3
    # Two more rows, in chunks and out of step, then token by token.
    pieces: list[list[torch.Tensor]] = [[], []]
    for spans in (((0, 24), (0, 16)), ((24, 40), (16, 33))):
        parts = rows.append({1: ids[slice(*spans[0])], 2: ids[slice(*spans[1])]})
        for piece, part in zip(pieces, parts, strict=True):
            piece.append(part)
    for step in range(20):
        parts = rows.append({1: [ids[40 + step]], 2: [ids[33 + step]]})
        for piece, part in zip(pieces, parts, strict=True):
            piece.append(part)
    for piece in pieces:
        logits = torch.cat(piece)
        assert (logits - expected[: len(logits)]).abs().max() <= 1e-3


def test_bfloat16_stays_close_to_float32(
    model: LlamaModel, default_model: Path, encode: Callable[[str], list[int]]
) -> None:
    with open_checkpoint(default_model) as checkpoint:
        low = LlamaModel.load(TorchTensors(checkpoint), torch.bfloat16)
    ids = encode(TEXT)
    (exact,) = Rows(model, 1, len(ids)).append({0: ids})
    rows = Rows(low, 1, len(ids))
    coarse = torch.cat(
        [*rows.append({0: ids[:-16]}), *(rows.append({0: [t]})[0] for t in ids[-16:])]
    )
    wanted, got = exact.log_softmax(-1), coarse.log_softmax(-1)
    divergence = (wanted.exp() * (wanted - got)).sum(-1)
    assert 0 < divergence.mean() <= 1e-3  # not zero: it is another arithmetic
    assert (wanted.argmax(-1) == got.argmax(-1)).float().mean() >= 0.95


@pytest.mark.slow
def test_twenty_greedy_answers_are_the_peers(
    model: LlamaModel,
    hf_model: transformers.PreTrainedModel,
    encode: Callable[[str], list[int]],
) -> None:
    """All rows decode together; the peer judges every choice in one pass over each answer."""
    prompts = [encode(prompt) for prompt in PROMPTS]
    assert len(prompts) == 20
    rows = Rows(model, 20, 100)
    logits = [part[-1] for part in rows.append(dict(enumerate(prompts)))]
    answers = [list(prompt) for prompt in prompts]
    for _ in range(64):
        for answer, row in zip(answers, logits, strict=True):
            answer.append(int(row.argmax()))
        logits = [p[-1] for p in rows.append({i: [a[-1]] for i, a in enumerate(answers)})]
    for prompt, answer in zip(prompts, answers, strict=True):
        choices = peer_logits(hf_model, answer)[len(prompt) - 1 : -1].argmax(-1)
        assert choices.tolist() == answer[len(prompt) :]


@pytest.mark.slow
def test_rows_that_share_a_long_prefix_equal_rows_that_do_not(
    model: LlamaModel,
    hf_model: transformers.PreTrainedModel,
    encode: Callable[[str], list[int]],
) -> None:
    """The prefix's pages are read once for all rows, in prefill and in decode."""
    prefix = (encode(TEXT) * 20)[:1024]
    assert len(prefix) == 1024
    rows = Rows(model, 4, 1024 + 48)
    rows.append({0: prefix[:512]})
    rows.append({0: prefix[512:]})
    rows.table[1:, : 1024 // PAGE_SIZE] = rows.table[:1, : 1024 // PAGE_SIZE]
    rows._done = [1024] * 4
    tails = [encode(prompt)[:8] + [7, 8, 9][:n] for n, prompt in enumerate(PROMPTS[::5])]
    first = rows.append(dict(enumerate(tails)))
    second = rows.append({row: [11 + row] for row in range(4)})
    for row, tail in enumerate(tails):
        expected = peer_logits(hf_model, [*prefix, *tail, 11 + row])[1024:]
        logits = torch.cat((first[row], second[row]))
        assert (logits - expected).abs().max() <= 1e-3
