"""Every `auto` decided once: what `resolve` makes of a configuration."""

import pytest

from sapwood.kernels.llama_step import KvFormat
from sapwood.runtime.config import (
    AUTO_CACHE_BYTES,
    CacheOptions,
    EngineConfig,
    ModelOptions,
    ResolvedConfig,
    ScheduleOptions,
    resolve,
    resolve_dtype,
)
from sapwood.runtime.errors import InvalidRequest
from sapwood.runtime.native_backend import choose_kv_format


def resolved(free_bytes: int = 1 << 30, **options: object) -> ResolvedConfig:
    return resolve(
        EngineConfig(**options),  # type: ignore[arg-type]
        dtype="bfloat16",
        checkpoint_context=2_048,
        bytes_per_token=1_000,
        free_bytes=free_bytes,
    )


def test_the_cache_is_a_quarter_of_what_is_free() -> None:
    assert resolved(free_bytes=64_000_000).num_pages == 1_000
    assert resolved(free_bytes=1 << 50).num_pages == AUTO_CACHE_BYTES // 1_000 // 16
    assert resolved(free_bytes=0).num_pages == 1
    assert resolved(cache=CacheOptions(max_tokens=33)).num_pages == 3


@pytest.mark.parametrize(
    ("context", "max_tokens", "pages"), [(2_048, 100_000, 129), (100, 100_000, 8), (2_048, 64, 5)]
)
def test_a_row_of_the_page_table_holds_the_longest_request(
    context: int, max_tokens: int, pages: int
) -> None:
    config = resolved(
        model=ModelOptions(context_length=context), cache=CacheOptions(max_tokens=max_tokens)
    )
    assert config.pages_per_request == pages


def test_the_backends_dtype_and_the_checkpoints_context() -> None:
    config = resolved(schedule=ScheduleOptions(token_budget=8, max_running=64))
    assert (config.dtype, config.context_length) == ("bfloat16", 2_048)
    assert config.schedule.max_running == 8  # each running request takes a token of the budget
    with pytest.raises(InvalidRequest, match="2049 is more than the checkpoint's 2048"):
        resolved(model=ModelOptions(context_length=2_049))


def test_keys_and_values_in_bytes() -> None:
    assert choose_kv_format("auto", "float32") is KvFormat.FLOAT32
    assert choose_kv_format("auto", "stored") is KvFormat.BFLOAT16
    assert choose_kv_format("int8", "stored") is KvFormat.INT8
    with pytest.raises(InvalidRequest, match="kv_dtype: int8 .* does not go with dtype float32"):
        choose_kv_format("int8", "float32")
    with pytest.raises(InvalidRequest, match="kv_dtype: fp8 is for a GPU"):
        choose_kv_format("fp8", "stored")
    with pytest.raises(InvalidRequest, match="kv_dtype: 'q4' is none of auto, int8, fp8"):
        EngineConfig(cache=CacheOptions(kv_dtype="q4"))  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [-1, 1.5, 0.0, False, True, None, "3"])
def test_max_drafts_is_0_or_more(value: object) -> None:
    with pytest.raises(InvalidRequest) as refused:
        EngineConfig(schedule=ScheduleOptions(max_drafts=value))  # type: ignore[arg-type]
    assert str(refused.value) == f"max_drafts: {value!r} is neither 0 nor a positive integer"
    assert refused.value.field == "max_drafts"


def test_auto_is_bfloat16_where_that_is_fast() -> None:
    assert resolve_dtype("auto", bfloat16_is_fast=True) == "bfloat16"
    assert resolve_dtype("auto", bfloat16_is_fast=False) == "float32"
    assert resolve_dtype("float32", bfloat16_is_fast=True) == "float32"
