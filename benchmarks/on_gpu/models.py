"""Shapes of models whose weights are random, and what each side needs to run one.

Figures of speed don't depend on the weights' values; no file of 16 GB has to be at hand.
"""

from dataclasses import dataclass, replace
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from sapwood.runtime.models.config import LlamaConfig, RopeConfig
from sapwood.runtime.tokenizer import TokenizerFiles

LLAMA_8B = LlamaConfig(
    architecture="LlamaForCausalLM",
    vocab_size=128_256,
    hidden_size=4_096,
    intermediate_size=14_336,
    num_layers=32,
    num_heads=32,
    num_kv_heads=8,
    head_dim=128,
    context_length=8_192,
    rope=RopeConfig(theta=500_000.0),
)
QWEN_7B = LlamaConfig(
    architecture="Qwen2ForCausalLM",
    vocab_size=152_064,
    hidden_size=3_584,
    intermediate_size=18_944,
    num_layers=28,
    num_heads=28,
    num_kv_heads=4,
    head_dim=128,
    context_length=8_192,
    rms_eps=1e-6,
    rope=RopeConfig(theta=1_000_000.0),
    qkv_bias=True,
)
SMOLLM2 = LlamaConfig(
    architecture="LlamaForCausalLM",
    vocab_size=49_152,
    hidden_size=576,
    intermediate_size=1_536,
    num_layers=30,
    num_heads=9,
    num_kv_heads=3,
    head_dim=64,
    context_length=8_192,
    rope=RopeConfig(theta=100_000.0),
    tie_embeddings=True,
)


@dataclass(frozen=True)
class Shape:
    """A model by its shape alone. `weights`: numbers that a decode step reads, which is all but a
    table of embeddings that serves look-ups only."""

    name: str
    config: LlamaConfig

    def smaller(self) -> "Shape":
        """For trials without a GPU: the same architecture, two narrow layers."""
        config = replace(
            self.config,
            vocab_size=512,
            hidden_size=64,
            intermediate_size=96,
            num_layers=2,
            num_heads=4,
            num_kv_heads=2,
            head_dim=16,
        )
        return Shape(f"{self.name}, made small", config)

    @property
    def weights(self) -> int:
        config = self.config
        attention = config.head_dim * (2 * config.num_heads + 2 * config.num_kv_heads)
        layer = config.hidden_size * (attention + 3 * config.intermediate_size)
        return config.num_layers * layer + config.vocab_size * config.hidden_size


def of_transformers(config: LlamaConfig, dtype: torch.dtype, device: torch.device) -> Any:
    """The same architecture in transformers, with random weights of its own: a PreTrainedModel."""
    import transformers

    kinds = {
        "LlamaForCausalLM": transformers.LlamaConfig,
        "Qwen2ForCausalLM": transformers.Qwen2Config,
    }
    theirs = kinds[config.architecture](
        vocab_size=config.vocab_size,
        hidden_size=config.hidden_size,
        intermediate_size=config.intermediate_size,
        num_hidden_layers=config.num_layers,
        num_attention_heads=config.num_heads,
        num_key_value_heads=config.num_kv_heads,
        head_dim=config.head_dim,
        max_position_embeddings=config.context_length,
        rms_norm_eps=config.rms_eps,
        rope_theta=config.rope.theta,
        tie_word_embeddings=config.tie_embeddings,
        dtype=dtype,
    )
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            return transformers.AutoModelForCausalLM.from_config(theirs).eval()
    finally:
        torch.set_default_dtype(before)


def byte_tokenizer(name: str, context_length: int) -> TokenizerFiles:
    """Any tokenizer will do: prompts are ids already. Token t < 256 is byte t, 256 the end."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({letter: i for i, letter in enumerate(letters)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken("<|end|>", special=True)])
    return TokenizerFiles(
        tokenizer=tokenizer,
        chat_template=None,
        special={"eos_token": "<|end|>"},
        bos_id=None,
        eos_ids=(256,),
        add_bos=False,
        model_name=name,
        context_length=context_length,
        special_token_ids=(256,),
    )
