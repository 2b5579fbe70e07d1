"""What several folders share: the default model as transformers reads it; Triton's interpreter."""

import os

import hypothesis
import pytest

from sapwood.runtime.machine import wait_patiently

wait_patiently()  # before torch starts its threads
# ruff: noqa: E402
import torch

# How long an example takes on a busy machine says nothing of the code.
hypothesis.settings.register_profile(
    "sapwood", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("sapwood")

if not torch.cuda.is_available():
    # Triton reads this when it is first imported, which transformers does at some point.
    os.environ["TRITON_INTERPRET"] = "1"

import transformers


@pytest.fixture(scope="session")
def hf_model() -> transformers.PreTrainedModel:
    """The default model in transformers, float32, from the same GGUF file by transformers' reader.

    `from_pretrained(gguf_file=...)` would do the same, but asks for a further package.
    """
    from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint

    from sapwood.runtime.models.source import resolve_model

    path = str(resolve_model(None))
    metadata = load_gguf_checkpoint(path)["config"]
    config = transformers.AutoConfig.for_model(**metadata)
    with torch.device("meta"):
        skeleton = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    loaded = load_gguf_checkpoint(path, return_tensors=True, model_to_load=skeleton)
    weights = dict(loaded["tensors"])
    weights.setdefault("lm_head.weight", weights["model.embed_tokens.weight"])
    model = skeleton.to_empty(device="cpu")
    model.load_state_dict(weights, strict=True, assign=True)
    # The rotation's frequencies are in no checkpoint and were lost with the meta device.
    rotary = model.model.rotary_emb
    model.model.rotary_emb = type(rotary)(config=model.config)
    return model.eval()
