"""Which device an engine runs on, and what is said where it cannot be the one asked for."""

from pathlib import Path

import pytest

from sapwood.runtime import device
from sapwood.runtime.config import (
    TOKEN_BUDGETS,
    CacheOptions,
    DeviceOptions,
    EngineConfig,
    ModelOptions,
    ResolvedConfig,
    ScheduleOptions,
    resolve,
    resolve_schedule,
)
from sapwood.runtime.device import choose_device, gpu_obstacle, has_driver
from sapwood.runtime.errors import InvalidRequest
from sapwood.runtime.loop import choose_backend


@pytest.fixture(params=[None, "torch 2.12.0 is built without CUDA"])
def obstacle(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str | None:
    monkeypatch.setattr(device, "gpu_obstacle", lambda: request.param)
    found: str | None = request.param
    return found


def test_auto_is_the_gpu_where_one_can_be_used(obstacle: str | None) -> None:
    assert choose_device(DeviceOptions()) == ("cpu" if obstacle else "cuda")
    assert choose_device(DeviceOptions(device="cpu")) == "cpu"


def test_a_gpu_that_cannot_be_used_is_refused_with_the_reason(obstacle: str | None) -> None:
    if obstacle is None:
        assert choose_device(DeviceOptions(device="cuda")) == "cuda"
        return
    with pytest.raises(InvalidRequest, match=f"device: cuda cannot be used: {obstacle}") as refused:
        choose_device(DeviceOptions(device="cuda"))
    assert refused.value.field == "device"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("memory_fraction", 0.9),
        ("cuda_graphs", True),
        ("cuda_graphs", False),
        ("deterministic", False),
    ],
)
def test_options_of_a_gpu_are_refused_on_a_cpu(
    name: str, value: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device, "gpu_obstacle", lambda: None)
    options = {name: value}
    assert choose_device(DeviceOptions(**options)) == "cuda"  # type: ignore[arg-type]
    with pytest.raises(InvalidRequest, match=f"{name}: for a GPU, and .* runs on the CPU") as error:
        choose_device(DeviceOptions(device="cpu", **options))  # type: ignore[arg-type]
    assert error.value.field == name


def test_several_processes_on_a_cpu_are_asked_for_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are slower than one in native code: nobody is to get them for want of a GPU."""
    monkeypatch.setattr(device, "gpu_obstacle", lambda: "none is there")
    assert choose_device(DeviceOptions(device="cpu", tensor_parallel=2)) == "cpu"
    with pytest.raises(InvalidRequest, match="tensor_parallel: 2: for GPUs, and") as refused:
        choose_device(DeviceOptions(tensor_parallel=2))
    assert refused.value.field == "tensor_parallel"
    monkeypatch.setattr(device, "gpu_obstacle", lambda: None)
    assert choose_device(DeviceOptions(tensor_parallel=2)) == "cuda"


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("device", "gpu", "'gpu' is none of auto, cpu, cuda"),
        ("memory_fraction", 0, "0 is not above 0 and at most 1"),
        ("memory_fraction", 1.01, "1.01 is not above 0 and at most 1"),
        ("memory_fraction", float("nan"), "nan is not above 0 and at most 1"),
        ("memory_fraction", "0.5", "'0.5' is not above 0 and at most 1"),
        ("memory_fraction", True, "True is not above 0 and at most 1"),
        ("cuda_graphs", 1, "1 is neither True nor False"),
        ("deterministic", None, "None is neither True nor False"),
        ("tensor_parallel", 0, "0 is not a positive integer"),
        ("tensor_parallel", True, "True is not a positive integer"),
        ("tensor_parallel", 2.0, "2.0 is not a positive integer"),
    ],
)
def test_values_out_of_range_are_refused(name: str, value: object, why: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        EngineConfig(device=DeviceOptions(**{name: value}))  # type: ignore[arg-type]
    assert (str(refused.value), refused.value.field) == (f"{name}: {why}", name)


def test_a_hidden_gpu_is_none(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    monkeypatch.setattr(device, "_DRIVERS", (str(tmp_path),))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert has_driver()
    for value in ("", "-1", " "):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", value)
        assert not has_driver()
        assert "no NVIDIA GPU" in str(gpu_obstacle())


@pytest.mark.skipif(has_driver(), reason="a GPU may be here")
def test_triton_says_why_it_cannot_start(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine with all but what triton builds with: here not even a driver is there for it."""
    pytest.importorskip("triton")
    monkeypatch.setattr(device, "_DRIVERS", (str(tmp_path),))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(device, "_torch_obstacle", lambda: None)
    assert "a C compiler and Python's headers, cannot start: " in str(gpu_obstacle())


def test_weights_in_float8_are_refused_on_a_cpu(tmp_path: Path) -> None:
    config = EngineConfig(model=ModelOptions(dtype="fp8"), device=DeviceOptions(device="cpu"))
    with pytest.raises(InvalidRequest, match="dtype: fp8 is for a GPU") as refused:
        choose_backend(tmp_path, config)  # before anything is read
    assert refused.value.field == "dtype"


# --- what the device decides of the rest ------------------------------------------------------


def resolved(free_bytes: int, **options: object) -> ResolvedConfig:
    return resolve(
        EngineConfig(**options),  # type: ignore[arg-type]
        dtype="bfloat16",
        checkpoint_context=2_048,
        bytes_per_token=1_000,
        free_bytes=free_bytes,
        device="cuda",
    )


def test_on_a_gpu_the_cache_takes_all_that_is_left() -> None:
    assert resolved(1_600_000_000).num_pages == 100_000
    assert resolved(31_999).num_pages == 1  # whole pages only
    assert resolved(1 << 40, cache=CacheOptions(max_tokens=33)).num_pages == 3


def test_what_does_not_fit_on_the_gpu_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="max_tokens_in_cache: 2000 tokens take") as refused:
        resolved(1_999_999, cache=CacheOptions(max_tokens=2_000))
    assert refused.value.field == "max_tokens_in_cache"
    for free in (15_999, 0, -(1 << 30)):
        with pytest.raises(InvalidRequest, match="memory_fraction: .* GiB are left") as refused:
            resolved(free)
        assert refused.value.field == "memory_fraction"


def test_a_step_is_larger_on_a_gpu() -> None:
    assert resolve_schedule(ScheduleOptions(), "cpu").token_budget == TOKEN_BUDGETS["cpu"] == 512
    assert resolve_schedule(ScheduleOptions(), "cuda").token_budget == TOKEN_BUDGETS["cuda"]
    assert resolve_schedule(ScheduleOptions(token_budget=7), "cuda").max_running == 7
