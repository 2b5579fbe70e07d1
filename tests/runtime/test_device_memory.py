"""How a GPU's memory is shared out, by a device that only counts."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sapwood.runtime.config import (
    CacheOptions,
    DeviceOptions,
    EngineConfig,
    ScheduleOptions,
    resolve,
    resolve_schedule,
)
from sapwood.runtime.errors import EngineError, InvalidRequest
from sapwood.runtime.models.llama import LlamaModel
from sapwood.runtime.torch_backend import Gpu, TorchBackend
from sapwood.runtime.torch_path.device_memory import MemoryUse, measure_use
from sapwood.runtime.torch_path.forward import ForwardInputs
from sapwood.runtime.torch_path.kv_cache import KVCache
from sapwood.runtime.torch_path.largest_step import PROFILED_CONTEXT, largest_step
from sapwood.runtime.torch_path.recorded_steps import MAX_TOKENS, kept_bytes

GIB = 1 << 30


DEFAULT = DeviceOptions()


class CountingMemory:
    """See `DeviceMemory`: a step takes `per_token` bytes for each token that `model` computed."""

    def __init__(self, model: "CountingModel", total: int = 80 * GIB, per_token: int = 1 << 20):
        self._model, self._total, self._per_token = model, total, per_token

    def total(self) -> int:
        return self._total

    def foreign(self) -> int:
        return GIB // 2

    def allocated(self) -> int:
        return 15 * GIB

    def peak_of(self, run: Callable[[], None]) -> int:
        self._model.largest = 0
        run()
        return self._model.largest * self._per_token


class CountingModel:
    """A tiny model that notes how many tokens it computes at once, and how many rows give logits
    then; it fails beyond `most`."""

    def __init__(self, model: LlamaModel, most: int = 1 << 20, why: str = "out of memory") -> None:
        self.config, self.device, self.dtype = model.config, model.device, model.dtype
        self.largest, self.rows = 0, 0
        self.page_sizes: set[int] = set()
        self._model, self._most, self._why = model, most, why

    def forward(self, inputs: ForwardInputs, kv: KVCache) -> object:
        if len(inputs.token_ids) > self._most:
            raise RuntimeError(self._why)
        if len(inputs.token_ids) > self.largest:
            self.largest, self.rows = len(inputs.token_ids), len(inputs.logit_rows)
        self.page_sizes.add(kv.page_size)
        return self._model.forward(inputs, kv)


class NoGraphs:
    def record(self, run: Callable[[], None]) -> Callable[[], None]:
        raise AssertionError("nothing is recorded while memory is measured")


def gpu_of(model: CountingModel, options: DeviceOptions = DEFAULT) -> Gpu:
    return Gpu(CountingMemory(model), NoGraphs(), 4, options)


def test_the_rest_is_for_keys_and_values(tiny_model: LlamaModel) -> None:
    model = CountingModel(tiny_model)
    options = DeviceOptions(memory_fraction=0.8, cuda_graphs=False)
    backend = TorchBackend(model, "float32", gpu_of(model, options))  # type: ignore[arg-type]
    schedule = ScheduleOptions(token_budget=2_048, max_running=8)
    left = backend.free_bytes(resolve_schedule(schedule, "cuda"))
    assert (model.largest, model.rows) == (2_048, 8)
    assert left == int(64 * GIB) - GIB // 2 - 15 * GIB - 2 * GIB
    resolved = resolve(
        EngineConfig(schedule=schedule),
        dtype="float32",
        checkpoint_context=model.config.context_length,
        bytes_per_token=backend.bytes_per_token,
        free_bytes=left,
        device=backend.device,
    )
    per_page = 16 * backend.bytes_per_token
    assert left - per_page < resolved.num_pages * per_page <= left
    with pytest.raises(InvalidRequest, match="max_tokens_in_cache: .* 46.50 GiB are left"):
        resolve(
            EngineConfig(cache=CacheOptions(max_tokens=left // backend.bytes_per_token + 16)),
            dtype="float32",
            checkpoint_context=model.config.context_length,
            bytes_per_token=backend.bytes_per_token,
            free_bytes=left,
            device="cuda",
        )


def test_memory_is_measured_with_pages_of_the_size_that_kernels_are_compiled_for(
    tiny_model: LlamaModel,
) -> None:
    model = CountingModel(tiny_model)
    backend = TorchBackend(model, "float32", gpu_of(model), page_size=64)  # type: ignore[arg-type]
    backend.free_bytes(ScheduleOptions(token_budget=64, max_running=4))
    assert model.page_sizes == {64}


def test_a_model_that_cannot_be_computed_is_refused(tiny_model: LlamaModel) -> None:
    model = CountingModel(tiny_model, most=0, why="no such kernel")
    backend = TorchBackend(model, "float32", gpu_of(model))  # type: ignore[arg-type]
    with pytest.raises(EngineError, match="cannot be computed on this GPU: .*no such kernel"):
        backend.free_bytes(ScheduleOptions(token_budget=64, max_running=4))


def test_recorded_steps_keep_memory_too(tiny_model: LlamaModel) -> None:
    model = CountingModel(tiny_model)
    schedule = ScheduleOptions(token_budget=2_048, max_running=8)
    on, off = (
        TorchBackend(model, "float32", gpu_of(model, DeviceOptions(cuda_graphs=wanted)))  # type: ignore[arg-type]
        for wanted in (None, False)
    )
    kept = (MAX_TOKENS << 20) + kept_bytes(model.config, 8)
    assert on.free_bytes(schedule) == off.free_bytes(schedule) - kept


def test_a_step_that_finds_no_room_is_refused_by_name(tiny_model: LlamaModel) -> None:
    model = CountingModel(tiny_model, most=0)
    backend = TorchBackend(model, "float32", gpu_of(model))  # type: ignore[arg-type]
    with pytest.raises(InvalidRequest, match="token_budget: a step of 64 tokens .*out of memory"):
        backend.free_bytes(ScheduleOptions(token_budget=64, max_running=4))


@given(
    *(st.integers(0, 1 << 40) for _ in range(3)),
    st.integers(0, 1 << 34),
    st.floats(0.01, 1.0),
)
def test_all_together_take_no_more_than_the_fraction(
    foreign: int, weights: int, step: int, recorded: int, fraction: float
) -> None:
    use = MemoryUse(80 * GIB, foreign, weights, step, recorded)
    taken = foreign + weights + step + recorded + use.left(fraction)
    assert taken <= 80 * GIB * fraction < taken + 1


def test_what_recorded_steps_keep_counts_too(tiny_model: LlamaModel) -> None:
    model = CountingModel(tiny_model)

    def compute(tokens: int) -> Callable[[], None]:
        return lambda: setattr(model, "largest", tokens)

    memory = CountingMemory(model)
    use = measure_use(memory, compute(100), compute(10))
    assert use == MemoryUse(80 * GIB, GIB // 2, 15 * GIB, 100 << 20, 10 << 20)
    assert measure_use(memory, compute(100)).recorded == 0


@given(st.integers(1, 300), st.integers(1, 40), st.integers(1, 100))
def test_the_largest_step_is_within_the_schedules_bounds(
    tokens: int, rows: int, context: int
) -> None:
    batch = largest_step(tokens, rows, context)
    assert batch.num_tokens == min(tokens, rows * context)
    assert all(span.end == context <= PROFILED_CONTEXT for span in batch.spans)
    assert [span.slot for span in batch.spans] == list(range(min(rows, tokens)))
    assert all(span.samplings for span in batch.spans)
