"""The native step with a checkpoint's weights against the torch model and transformers."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from sapwood import _native
from sapwood.kernels.llama_step import KvFormat, LlamaStep, StepInputs
from sapwood.kernels.paged_attention import plan_attention
from sapwood.runtime.models.config import LlamaConfig, RopeConfig
from sapwood.runtime.models.llama import LlamaModel
from sapwood.runtime.models.native_llama import load_native, native_obstacle, step_shape
from sapwood.runtime.models.weights import expected_shapes, open_checkpoint
from sapwood.runtime.tokenizer import load_tokenizer
from sapwood.runtime.torch_path.forward import ForwardInputs
from sapwood.runtime.torch_path.kv_cache import KVCache

Array = np.ndarray[Any, Any]
PAGE_SIZE = 16
pytestmark = pytest.mark.skipif(not _native.status().available, reason=_native.status().reason)

BASE = LlamaConfig(
    "LlamaForCausalLM",
    vocab_size=131,
    hidden_size=64,
    intermediate_size=96,
    num_layers=2,
    num_heads=6,
    num_kv_heads=2,
    head_dim=16,
    context_length=512,
)
CONFIGS = {
    "llama": replace(BASE, rope=RopeConfig(kind="llama3", factor=8.0, original_context=32)),
    "llama-biases": replace(
        BASE,
        rope=RopeConfig(kind="linear", factor=2.0),
        qkv_bias=True,
        output_bias=True,
        mlp_bias=True,
    ),
    "smollm2": replace(BASE, tie_embeddings=True, num_heads=3, num_kv_heads=1, head_dim=64),
    "qwen2": replace(BASE, qkv_bias=True, head_dim=48, tie_embeddings=True),
    "qwen3-yarn": replace(
        BASE,
        qk_norm=True,
        head_dim=80,
        rope=RopeConfig(kind="yarn", factor=4.0, original_context=128, attention_factor=1.2),
    ),
    "mistral": replace(BASE, sliding_window=9),
    "wide-window": replace(BASE, sliding_window=140, num_kv_heads=6),
    "odd-sizes": replace(BASE, hidden_size=72, intermediate_size=40, vocab_size=97, num_heads=4),
    "one-head": replace(BASE, num_heads=1, num_kv_heads=1, head_dim=128, num_layers=1),
    "twelve-to-one": replace(BASE, num_heads=12, num_kv_heads=1, head_dim=96),
}
LENGTH = 160


@dataclass(frozen=True)
class Arrays:
    """Random float32 weights as a checkpoint."""

    config: LlamaConfig
    weights: dict[str, Array]
    path: Path = Path("random")

    def names(self) -> list[str]:
        return list(self.weights)

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self.weights[name].shape)

    def storage(self, name: str) -> str:
        return "F32"

    def raw(self, name: str) -> Array:
        weight = self.weights[name]
        return weight.reshape(-1 if weight.ndim == 1 else len(weight), weight.shape[-1]).view(
            np.uint8
        )

    def tensor(self, name: str, dtype: torch.dtype) -> torch.Tensor:
        return torch.from_numpy(self.weights[name]).to(dtype)

    def close(self) -> None: ...

    def __enter__(self) -> "Arrays":
        return self

    def __exit__(self, *_: object) -> None: ...


def random_checkpoint(config: LlamaConfig) -> Arrays:
    random = np.random.default_rng(3)

    def weight(name: str, shape: tuple[int, ...]) -> Array:
        values = random.standard_normal(shape, np.float32)
        if len(shape) == 1:
            return values * np.float32(0.3) + np.float32("norm" in name)
        return values * np.float32(shape[1] ** -0.5)

    return Arrays(
        config, {name: weight(name, shape) for name, shape in expected_shapes(config).items()}
    )


@pytest.fixture
def native() -> Iterator[Callable[..., LlamaStep]]:
    """native(checkpoint, dtype, kv_format): a loaded model with pages for one text."""
    made: list[LlamaStep] = []

    def load(checkpoint: Any, dtype: str, kv_format: KvFormat, length: int = LENGTH) -> LlamaStep:
        shape = step_shape(
            checkpoint.config,
            page_size=PAGE_SIZE,
            num_pages=-(-length // PAGE_SIZE),
            kv_format=kv_format,
            threads=2,
        )
        made.append(load_native(checkpoint, dtype, shape))
        return made[-1]

    yield load
    for step in made:
        step.close()


def native_logits(step: LlamaStep, ids: Array, chunks: tuple[int, ...] = ()) -> Array:
    """Logits of every token, through pages in reverse order; `chunks`: where steps begin anew."""
    logits = np.empty((len(ids), step.shape.vocab), np.float32)
    table = np.arange(step.shape.num_pages, dtype=np.int32)[::-1][None].copy()
    for start, end in zip((0, *chunks), (*chunks, len(ids)), strict=True):
        step.step(
            StepInputs(
                *(ids[start:end].astype(np.int32), np.array([start], np.int32)),
                *(np.array([end - start], np.int32), np.zeros(1, np.int32), table),
                rows=np.arange(end - start, dtype=np.int32),
                logits=list(logits[start:end]),
            )
        )
    return logits


def torch_logits(model: LlamaModel, ids: Array) -> Array:
    config = model.config
    num_pages = -(-len(ids) // PAGE_SIZE)
    kv = KVCache(
        *(config.num_layers, num_pages, PAGE_SIZE, config.num_kv_heads, config.head_dim),
        model.dtype,
    )
    plan = plan_attention(
        [len(ids)],
        [len(ids)],
        torch.arange(num_pages, dtype=torch.int32)[None],
        PAGE_SIZE,
        group=config.num_heads // config.num_kv_heads,
        window=config.sliding_window,
        dtype=model.dtype,
        device="cpu",
    )
    every = torch.arange(len(ids))
    inputs = ForwardInputs(
        token_ids=torch.from_numpy(ids),
        positions=every,
        slots=every,
        attention=plan,
        logit_rows=every,
    )
    logits: Array = model.forward(inputs, kv).numpy()
    return logits


def divergence(exact: Array, coarse: Array) -> float:
    """Mean KL(exact || coarse) over the rows of logits, in nats."""
    wanted, got = (torch.from_numpy(x.astype(np.float64)).log_softmax(-1) for x in (exact, coarse))
    return float((wanted.exp() * (wanted - got)).sum(-1).mean())


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())
def test_every_family_equals_the_torch_model(
    native: Callable[..., LlamaStep], config: LlamaConfig
) -> None:
    checkpoint = random_checkpoint(config)
    ids = np.random.default_rng(4).integers(0, config.vocab_size, LENGTH)
    expected = torch_logits(LlamaModel.load(checkpoint, torch.float32), ids)
    exact = native(checkpoint, "float32", kv_format=KvFormat.FLOAT32)
    assert np.abs(native_logits(exact, ids) - expected).max() <= 1e-4
    assert np.abs(native_logits(exact, ids, (1, 2, 60, 130)) - expected).max() <= 1e-4
    size = expected.std()
    narrow_kv = native_logits(native(checkpoint, "float32", kv_format=KvFormat.BFLOAT16), ids)
    assert 0 < np.sqrt(((narrow_kv - expected) ** 2).mean()) <= 0.01 * size
    coarse = native_logits(native(checkpoint, "bfloat16", kv_format=KvFormat.BFLOAT16), ids)
    ours = np.sqrt(((coarse - expected) ** 2).mean())
    peer = torch_logits(LlamaModel.load(checkpoint, torch.bfloat16), ids)
    theirs = np.sqrt(((peer - expected) ** 2).mean())
    assert 0 < ours <= 1.1 * theirs  # sums and the residual stay in float32: no worse than torch


def as_kept(checkpoint: Arrays, dtype: str) -> Arrays:
    """The weights that a quantised format keeps, as float32: groups of 32 inputs with a float16
    scale (q4: and a minimum); bfloat16 where the inputs fill no whole groups."""

    def kept(name: str, values: Array) -> Array:
        if values.ndim == 1:
            return values
        if values.shape[1] % 32:
            return torch.from_numpy(values).bfloat16().float().numpy()
        groups = values.reshape(len(values), -1, 32)
        low, high = groups.min(axis=2, keepdims=True), groups.max(axis=2, keepdims=True)
        if dtype == "int8":
            scale, zero = np.maximum(high, -low) / 127, np.zeros_like(low)
        else:
            scale, zero = (high - low) / 15, low
        scale, zero = (x.astype(np.float16).astype(np.float32) for x in (scale, zero))
        numbers = np.rint((groups - zero) / scale)
        numbers = numbers.clip(-127, 127) if dtype == "int8" else numbers.clip(0, 15)
        return (numbers * scale + zero).reshape(values.shape)

    weights = {name: kept(name, values) for name, values in checkpoint.weights.items()}
    return replace(checkpoint, weights=weights)


@pytest.mark.parametrize("dtype", ["int8", "q4"])
@pytest.mark.parametrize("name", ["llama", "llama-biases", "odd-sizes"])
def test_quantised_weights_err_by_their_activations_alone(
    native: Callable[..., LlamaStep], name: str, dtype: str
) -> None:
    checkpoint = random_checkpoint(CONFIGS[name])
    ids = np.random.default_rng(5).integers(0, CONFIGS[name].vocab_size, LENGTH)
    expected = torch_logits(LlamaModel.load(as_kept(checkpoint, dtype), torch.float32), ids)
    found = native_logits(native(checkpoint, dtype, kv_format=KvFormat.BFLOAT16), ids)
    error = np.sqrt(((found - expected) ** 2).mean()) / expected.std()
    assert 0.001 < error < 0.04


def test_what_the_native_step_cannot_run_is_said() -> None:
    assert native_obstacle(BASE) is None
    assert native_obstacle(replace(BASE, head_dim=24)) == "head_dim 24 is no multiple of 16"


# --- the default model ---

PROMPTS = (
    "Sapwood is the living layer of a tree: what the roots have drawn up is carried once.",
    "def climb(height):\n    return [leaf for leaf in range(height) if leaf % 3]\n\nclimb(",
    "In 1727 Stephen Hales measured the force of the sap in vines with glass tubes, 38 feet high.",
)


@pytest.fixture(scope="module")
def prompts(default_model: Path) -> list[Array]:
    tokenizer = load_tokenizer(default_model).tokenizer
    return [np.array(tokenizer.encode(prompt).ids) for prompt in PROMPTS]


@pytest.fixture(scope="module")
def expected(hf_model: transformers.PreTrainedModel, prompts: list[Array]) -> list[Array]:
    with torch.inference_mode():
        return [hf_model(torch.from_numpy(ids)[None]).logits[0].numpy() for ids in prompts]


def test_the_default_model_in_float32_equals_transformers(
    native: Callable[..., LlamaStep],
    default_model: Path,
    prompts: list[Array],
    expected: list[Array],
) -> None:
    with open_checkpoint(default_model) as checkpoint:
        step = native(checkpoint, "float32", kv_format=KvFormat.FLOAT32)
    for ids, wanted in zip(prompts, expected, strict=True):
        assert np.abs(native_logits(step, ids) - wanted).max() <= 1e-3
        by_steps = native_logits(step, ids, (9, 10, 11, 12))
        assert np.abs(by_steps - wanted).max() <= 1e-3


@pytest.mark.parametrize(
    "dtype, kv_format, largest",
    [
        ("bfloat16", KvFormat.BFLOAT16, 1e-3),
        ("bfloat16", KvFormat.INT8, 5e-3),
        ("stored", KvFormat.BFLOAT16, 1e-2),
        ("int8", KvFormat.BFLOAT16, 1e-2),
    ],
)
def test_the_default_model_stays_close_in_fewer_bits(
    native: Callable[..., LlamaStep],
    default_model: Path,
    prompts: list[Array],
    expected: list[Array],
    dtype: str,
    kv_format: KvFormat,
    largest: float,
) -> None:
    """Over 75 tokens; `benchmarks/quality.py` measures it over 20,000."""
    with open_checkpoint(default_model) as checkpoint:
        step = native(checkpoint, dtype, kv_format=kv_format)
    found = np.concatenate([native_logits(step, ids) for ids in prompts])
    assert 0 < divergence(np.concatenate(expected), found) <= largest
