"""What a checkpoint says about its architecture, in one frozen record.

Owns: the names and units of the architecture's numbers. Knows no file format (the readers fill it
in) and no tensor.
"""

from dataclasses import dataclass, field
from typing import Literal

RopeKind = Literal["default", "linear", "llama3", "yarn"]


@dataclass(frozen=True)
class RopeConfig:
    """Rotary position embedding: base and, where the checkpoint was stretched, how.

    `llama3`: wavelengths beyond `original_context / low_freq_factor` are divided by `factor`, those
    below `original_context / high_freq_factor` kept, the rest blended (Llama 3.1's rule).
    `linear`: positions are divided by `factor`. `yarn`: by-part interpolation with the attention
    factor given. `freq_factors`: one divisor per inverse frequency (`head_dim / 2` of them),
    applied last; GGUF files of Llama 3 models state their stretching this way, with `kind`
    "default".
    """

    theta: float = 10_000.0
    kind: RopeKind = "default"
    factor: float = 1.0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_context: int = 8_192
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    attention_factor: float = 1.0
    freq_factors: tuple[float, ...] | None = None


@dataclass(frozen=True)
class LlamaConfig:
    """A decoder of the Llama family: Llama, SmolLM2, Qwen2, Qwen3, Mistral."""

    architecture: str  # the checkpoint's own word, such as "LlamaForCausalLM" or GGUF's "llama"
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    context_length: int  # positions the checkpoint was made for
    rms_eps: float = 1e-5
    rope: RopeConfig = field(default_factory=RopeConfig)
    tie_embeddings: bool = False
    qkv_bias: bool = False  # Qwen2
    output_bias: bool = False  # bias of o_proj (Llama's attention_bias puts one on all four)
    mlp_bias: bool = False
    qk_norm: bool = False  # Qwen3: RMSNorm over each head of q and k, before the rotation
    # Mistral v0.1: a token attends to this many positions, itself included.
    sliding_window: int | None = None
