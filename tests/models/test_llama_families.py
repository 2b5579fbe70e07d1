"""Every family of the Llama kind against transformers' own modules, with the same random weights.

However a text is cut into steps and wherever its pages lie, the logits are those of one plain pass.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import pytest
import torch
import transformers

from sapwood.kernels.paged_attention import plan_attention
from sapwood.runtime.models.config import LlamaConfig, RopeConfig
from sapwood.runtime.models.llama import LlamaModel
from sapwood.runtime.torch_path.forward import ForwardInputs
from sapwood.runtime.torch_path.kv_cache import KVCache

PAGE_SIZE = 4
VOCAB = 131
COMMON = {
    "vocab_size": VOCAB,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 512,
    "rms_norm_eps": 1e-5,
    "attn_implementation": "eager",
}
OURS = {
    "vocab_size": VOCAB,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_layers": 2,
    "num_heads": 6,
    "num_kv_heads": 2,
    "head_dim": 8,
    "context_length": 512,
}


@dataclass(frozen=True)
class Family:
    name: str
    peer: type[transformers.PreTrainedModel]
    peer_config: transformers.PreTrainedConfig
    config: LlamaConfig


def _rope(**parameters: float | str) -> dict[str, object]:
    return {"rope_parameters": {"rope_theta": 10_000.0, "rope_type": "default", **parameters}}


FAMILIES = [
    Family(
        "llama3",
        transformers.LlamaForCausalLM,
        transformers.LlamaConfig(
            **COMMON,
            **_rope(
                rope_type="llama3",
                factor=8.0,
                low_freq_factor=1.0,
                high_freq_factor=4.0,
                original_max_position_embeddings=32,
            ),
        ),
        LlamaConfig(
            "LlamaForCausalLM",
            **OURS,
            rope=RopeConfig(kind="llama3", factor=8.0, original_context=32),
        ),
    ),
    Family(
        "llama-biases",
        transformers.LlamaForCausalLM,
        transformers.LlamaConfig(
            **COMMON, **_rope(rope_type="linear", factor=2.0), attention_bias=True, mlp_bias=True
        ),
        LlamaConfig(
            "LlamaForCausalLM",
            **OURS,
            rope=RopeConfig(kind="linear", factor=2.0),
            qkv_bias=True,
            output_bias=True,
            mlp_bias=True,
        ),
    ),
    Family(
        "smollm2",
        transformers.LlamaForCausalLM,
        transformers.LlamaConfig(**COMMON, **_rope(), tie_word_embeddings=True),
        LlamaConfig("LlamaForCausalLM", **OURS, tie_embeddings=True),
    ),
    Family(
        "mistral",
        transformers.MistralForCausalLM,
        transformers.MistralConfig(**COMMON, **_rope(), sliding_window=9),
        LlamaConfig("MistralForCausalLM", **OURS, sliding_window=9),
    ),
    Family(
        "qwen2",
        transformers.Qwen2ForCausalLM,
        transformers.Qwen2Config(**COMMON, **_rope()),
        LlamaConfig("Qwen2ForCausalLM", **OURS, qkv_bias=True),
    ),
    Family(
        "qwen3-yarn",
        transformers.Qwen3ForCausalLM,
        transformers.Qwen3Config(
            **COMMON,
            **_rope(
                rope_type="yarn",
                factor=4.0,
                original_max_position_embeddings=128,
                attention_factor=1.2,
            ),
        ),
        LlamaConfig(
            "Qwen3ForCausalLM",
            **OURS,
            rope=RopeConfig(kind="yarn", factor=4.0, original_context=128, attention_factor=1.2),
            qk_norm=True,
        ),
    ),
]
LENGTHS = (37, 21, 40)  # tokens of the three texts


@dataclass(frozen=True)
class StateDict:
    """The weights of a module, as a checkpoint."""

    config: LlamaConfig
    weights: dict[str, torch.Tensor]

    def tensor(self, name: str, dtype: torch.dtype) -> torch.Tensor:
        return self.weights[name].to(dtype)


@dataclass(frozen=True)
class Case:
    model: LlamaModel
    texts: list[list[int]]
    expected: list[torch.Tensor]  # [len(text), VOCAB] each


@pytest.fixture(scope="module", params=FAMILIES, ids=lambda family: family.name)
def case(request: pytest.FixtureRequest) -> Iterator[Case]:
    family: Family = request.param
    torch.manual_seed(3)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    peer = family.peer(family.peer_config).eval()
    with torch.no_grad():
        for name, parameter in peer.named_parameters():
            # Initial biases are zero and norms one: they would hide a missing one.
            if parameter.dim() == 1:
                parameter.copy_(torch.randn(parameter.shape) * 0.3 + ("norm" in name))
            else:
                parameter.copy_(torch.randn(parameter.shape) * parameter.shape[1] ** -0.5)
    texts = [torch.randint(VOCAB, (length,)).tolist() for length in LENGTHS]
    with torch.inference_mode():
        expected = [peer(torch.tensor([text])).logits[0] for text in texts]
    yield Case(
        LlamaModel.load(StateDict(family.config, peer.state_dict()), torch.float32),
        texts,
        expected,
    )
    torch.set_num_threads(threads)


class Pages:
    """Three texts' pages, scattered over a pool whose unused slots hold NaN."""

    def __init__(self, model: LlamaModel) -> None:
        config = model.config
        per_row = -(-max(LENGTHS) // PAGE_SIZE)
        num_pages = len(LENGTHS) * per_row + 2
        generator = torch.Generator().manual_seed(5)
        order = torch.randperm(num_pages, generator=generator)[: len(LENGTHS) * per_row]
        self.table = order.view(len(LENGTHS), per_row).to(torch.int32)
        self.kv = KVCache(
            config.num_layers,
            num_pages,
            PAGE_SIZE,
            config.num_kv_heads,
            config.head_dim,
            torch.float32,
        )
        for pages in (tensor for layer in self.kv.layers for tensor in layer.tensors()):
            pages.fill_(float("nan"))
        self._model = model

    def step(self, texts: list[list[int]], spans: list[tuple[int, int, int]]) -> torch.Tensor:
        """Compute positions start..end-1 of each (row, start, end); logits of every new token."""
        rows = [row for row, _, _ in spans]
        positions = torch.cat([torch.arange(start, end) for _, start, end in spans])
        owners = torch.cat([torch.full((end - start,), row) for row, start, end in spans])
        pages = self.table[owners, positions // PAGE_SIZE].long()
        config = self._model.config
        plan = plan_attention(
            [end - start for _, start, end in spans],
            [end for _, _, end in spans],
            self.table[rows],
            PAGE_SIZE,
            group=config.num_heads // config.num_kv_heads,
            window=config.sliding_window,
            dtype=torch.float32,
            device="cpu",
        )
        token_ids = [token for row, start, end in spans for token in texts[row][start:end]]
        inputs = ForwardInputs(
            token_ids=torch.tensor(token_ids),
            positions=positions,
            slots=pages * PAGE_SIZE + positions % PAGE_SIZE,
            attention=plan,
            logit_rows=torch.arange(len(positions)),
        )
        return self._model.forward(inputs, self.kv)


SCHEDULES = {
    "one-pass": [[(0, 0, 37)], [(1, 0, 21)], [(2, 0, 40)]],
    "all-together": [[(0, 0, 37), (1, 0, 21), (2, 0, 40)]],
    "chunks": [[(0, 0, 16)], [(0, 16, 23)], [(0, 23, 37)], [(1, 0, 1)], [(1, 1, 21)], [(2, 0, 40)]],
    "steps": [
        [(0, 0, 2), (1, 0, 1), (2, 0, 3)],
        *([(0, 2 + i, 3 + i), (1, 1 + i, 2 + i), (2, 3 + i, 4 + i)] for i in range(20)),
        [(0, 22, 37), (2, 23, 40)],
    ],
    "mixed": [
        [(0, 0, 20)],
        [(2, 0, 8), (0, 20, 21)],
        [(1, 0, 20), (0, 21, 22), (2, 8, 24)],
        [(2, 24, 39), (1, 20, 21), (0, 22, 37)],
        [(2, 39, 40)],
    ],
}


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES.keys())
def test_logits_equal_the_peers(case: Case, schedule: list[list[tuple[int, int, int]]]) -> None:
    pages = Pages(case.model)
    seen = [0, 0, 0]
    for spans in schedule:
        logits = pages.step(case.texts, spans)
        expected = torch.cat([case.expected[row][start:end] for row, start, end in spans])
        assert logits.dtype is torch.float32
        assert (logits - expected).abs().max() <= 1e-4
        for row, start, end in spans:
            assert seen[row] == start
            seen[row] = end
    assert seen == list(LENGTHS)  # the schedule covered every position


def test_a_copied_page_continues_like_its_source(case: Case) -> None:
    """Row 1 takes over row 0's first 6 positions: one page shared, one copied and then written."""
    pages = Pages(case.model)
    text = case.texts[0]
    pages.step([text], [(0, 0, 8)])
    pages.table[1, 0] = pages.table[0, 0]
    pages.kv.copy(pages.table[0, 1:2].long(), pages.table[1, 1:2].long())
    fork = text[:6] + case.texts[1][:9]
    forked = pages.step([text, fork], [(1, 6, 15)])
    alone = Pages(case.model).step([text, fork], [(1, 0, 15)])[6:]
    assert (forked - alone).abs().max() <= 1e-5
    kept = pages.step([text, fork], [(0, 8, 37)])  # the source is unharmed
    assert (kept - case.expected[0][8:]).abs().max() <= 1e-4


def test_only_the_rows_asked_for(case: Case) -> None:
    pages = Pages(case.model)
    everything = pages.step(case.texts, [(0, 0, 37)])
    config = case.model.config
    plan = plan_attention(
        [37],
        [37],
        pages.table[:1],
        PAGE_SIZE,
        group=3,
        window=config.sliding_window,
        dtype=torch.float32,
        device="cpu",
    )
    positions = torch.arange(37)
    slots = pages.table[0, positions // PAGE_SIZE].long() * PAGE_SIZE + positions % PAGE_SIZE
    for wanted in ([36], [5, 3], []):
        rows = torch.tensor(wanted, dtype=torch.int64)
        inputs = ForwardInputs(torch.tensor(case.texts[0]), positions, slots, plan, rows)
        logits = case.model.forward(inputs, pages.kv)
        assert logits.shape == (len(wanted), VOCAB)
        assert torch.allclose(logits, everything[rows], atol=1e-5)


def test_random_weights_depend_on_the_seed_alone() -> None:
    config = FAMILIES[2].config
    first, again, other = (LlamaModel.random(config, torch.float32, seed) for seed in (1, 1, 2))
    outputs = [
        Pages(model).step([list(range(37))], [(0, 0, 37)]) for model in (first, again, other)
    ]
    assert torch.equal(outputs[0], outputs[1])
    assert not torch.allclose(outputs[0], outputs[2])
    # 131 x 48 embedding; per layer 4 projections, 3 MLP matrices, 2 norms; the last norm.
    layer = 48 * 48 * 2 + 48 * 16 * 2 + 48 * 80 * 3 + 48 * 2
    assert first.num_parameters == VOCAB * 48 + 2 * layer + 48
    assert first.weight_bytes >= first.num_parameters * 4
