"""The default model in `transformers`, dequantised, as its users would run it."""

import torch
import transformers

from sapwood.runtime.models.source import resolve_model
from sapwood.runtime.models.torch_tensors import TorchTensors
from sapwood.runtime.models.weights import open_checkpoint


def load_peer(dtype: torch.dtype) -> transformers.LlamaForCausalLM:
    """Every weight in `dtype`, like a checkpoint of safetensors.

    `from_pretrained(gguf_file=...)` would keep the weights packed, which is slower.
    """
    with open_checkpoint(resolve_model(None)) as checkpoint:
        arch = checkpoint.config
        config = transformers.LlamaConfig(
            vocab_size=arch.vocab_size,
            hidden_size=arch.hidden_size,
            intermediate_size=arch.intermediate_size,
            num_hidden_layers=arch.num_layers,
            num_attention_heads=arch.num_heads,
            num_key_value_heads=arch.num_kv_heads,
            head_dim=arch.head_dim,
            max_position_embeddings=arch.context_length,
            rms_norm_eps=arch.rms_eps,
            rope_parameters={"rope_type": "default", "rope_theta": arch.rope.theta},
            tie_word_embeddings=arch.tie_embeddings,
        )
        model = transformers.LlamaForCausalLM(config).to(dtype).eval()
        weights = {
            name: TorchTensors(checkpoint).tensor(name, dtype) for name in checkpoint.names()
        }
        weights.setdefault("lm_head.weight", weights["model.embed_tokens.weight"])
        model.load_state_dict(weights)
    return model
