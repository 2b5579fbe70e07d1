"""The formats of the torch path's KV cache: their bytes, outputs, and where they are refused."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from sapwood.runtime.config import CacheOptions, DeviceOptions, EngineConfig, KvDtype
from sapwood.runtime.errors import InvalidRequest
from sapwood.runtime.loop import choose_backend
from sapwood.runtime.torch_backend import TorchBackend
from sapwood.runtime.torch_path.kv_cache import KVCache

FORMATS = [torch.float32, torch.bfloat16, torch.float16, torch.int8, torch.float8_e4m3fn]


@pytest.mark.parametrize("dtype", FORMATS, ids=str)
def test_bytes_per_token_are_those_taken(dtype: torch.dtype) -> None:
    kv = KVCache(3, 5, 4, 2, 24, dtype)
    taken = sum(tensor.nbytes for layer in kv.layers for tensor in layer.tensors())
    assert taken == 5 * 4 * KVCache.bytes_per_token(3, 2, 24, dtype)
    assert all((t.view(torch.uint8) == 0).all() for layer in kv.layers for t in layer.tensors())


@pytest.mark.parametrize("dtype", FORMATS, ids=str)
def test_a_page_is_copied_in_every_layer(dtype: torch.dtype) -> None:
    kv = KVCache(3, 4, 2, 2, 8, dtype)
    bits = [tensor.view(torch.uint8) for layer in kv.layers for tensor in layer.tensors()]
    for tensor in bits:
        tensor.random_(0, 256)
    before = [tensor.clone() for tensor in bits]
    kv.copy(torch.tensor([2, 0]), torch.tensor([1, 3]))
    for now, then in zip(bits, before, strict=True):
        assert torch.equal(now, then[[0, 2, 2, 0]])


@pytest.mark.parametrize("kv_dtype", ["int8", "fp8"])
def test_what_is_reused_is_what_was_computed(
    kv_dtype: KvDtype, make_driver: Callable[..., Any]
) -> None:
    """A prompt that ends within a cached page goes on in a copy of it, scales and all."""
    text = "all the keys and values of this were rounded to bytes once"
    backend = partial(TorchBackend, kv_dtype=kv_dtype)
    alone = make_driver(backend=backend).answer(text + " more", max_tokens=12, ignore_eos=True)
    driver = make_driver(backend=backend)
    driver.answer(text + " and read again", max_tokens=12, ignore_eos=True)
    reusing = driver.answer(text + " more", max_tokens=12, ignore_eos=True)
    assert reusing.token_ids == alone.token_ids
    exact = make_driver().answer(text + " more", max_tokens=12, ignore_eos=True)
    assert exact.token_ids[:1] == alone.token_ids[:1]


@pytest.mark.parametrize(("kv_dtype", "width"), [("auto", 4), ("int8", 1), ("fp8", 1)])
def test_a_backend_counts_its_own_format(kv_dtype: KvDtype, width: int, tiny_model: Any) -> None:
    config = tiny_model.config
    backend = TorchBackend(tiny_model, "float32", kv_dtype=kv_dtype)
    head = config.head_dim * width + (4 if width == 1 else 0)
    assert backend.bytes_per_token == 2 * config.num_layers * config.num_kv_heads * head


def test_fp8_is_refused_where_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    cache = CacheOptions(kv_dtype="fp8")
    on_cpu = EngineConfig(cache=cache, device=DeviceOptions(device="cpu"))
    with pytest.raises(InvalidRequest, match="kv_dtype: fp8 is for a GPU, .* runs on the CPU"):
        choose_backend(Path("never-read"), on_cpu)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (8, 6))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA A10")
    with pytest.raises(InvalidRequest, match=r"kv_dtype: fp8 .* NVIDIA A10 has 8\.6") as refused:
        TorchBackend.load(Path("never-read"), EngineConfig(cache=cache), "cuda")
    assert refused.value.field == "kv_dtype"
