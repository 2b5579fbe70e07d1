"""Recorded steps, by graphs that call again what they recorded: the same answers as without, from
tensors that stay where they are."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from sapwood.kernels import implementation
from sapwood.kernels.paged_attention import sharing
from sapwood.runtime.batch import AWAITED, PageWrite
from sapwood.runtime.config import DeviceOptions, ScheduleOptions, resolve_schedule
from sapwood.runtime.errors import InvalidRequest
from sapwood.runtime.models.llama import LlamaModel
from sapwood.runtime.page_table import PageTable
from sapwood.runtime.speculation import MAX_ROWS
from sapwood.runtime.torch_backend import Gpu, TorchBackend
from sapwood.runtime.torch_path.forward import ForwardInputs
from sapwood.runtime.torch_path.kv_cache import KVCache
from sapwood.runtime.torch_path.recorded_steps import (
    MAX_TOKENS,
    SHARING_ROWS,
    RecordedSteps,
    Size,
    sizes,
)
from sapwood.runtime.torch_path.step_arrays import StepArrays

MakeDriver = Callable[..., Any]
TEXTS = ["the root of a tree " * 4, "sap", "the root of a tree " * 3 + "is wood", "leaf " * 20]


DEFAULT = DeviceOptions()


class CalledAgain:
    """See `Graphs`. What is replayed reads what its tensors hold, as a graph does."""

    def __init__(self) -> None:
        self.num_recorded = self.num_replayed = 0

    def record(self, run: Callable[[], None]) -> Callable[[], None]:
        run()
        self.num_recorded += 1

        def replay() -> None:
            self.num_replayed += 1
            run()

        return replay


class NoMemory:
    def __getattr__(self, name: str) -> Any:
        raise AssertionError("memory is not looked at here")


def backend(graphs: CalledAgain, options: DeviceOptions = DEFAULT) -> Any:
    """A TorchBackend that believes to be on a GPU."""
    gpu = Gpu(NoMemory(), graphs, 4, options)  # type: ignore[arg-type]
    return lambda model, dtype: TorchBackend(model, dtype, gpu)


# --- which sizes there are ------------------------------------------------------------------------


@pytest.mark.parametrize("max_rows", [1, 2, 3, 8, 9, 100, 128, 256, 300, 512, 1_000])
@pytest.mark.parametrize("budget", [1, 20, 256, 8_192])
def test_sizes_cover_all_small_steps(max_rows: int, budget: int) -> None:
    found = sizes(max_rows, budget)
    decodes = [size for size in found if not size.has_long]
    assert decodes[-1].rows == min(max_rows, MAX_TOKENS)
    for rows in range(1, min(max_rows, MAX_TOKENS) + 1):
        fitting = min(size.rows for size in decodes if size.rows >= rows)
        assert fitting - rows < max(8, rows / 4)
    longs = [size for size in found if size.has_long]
    assert all(
        size.rows <= size.tokens <= min(budget, MAX_TOKENS) for size in found if size.has_long
    )
    assert (longs != []) == (budget >= 32)
    assert all(size.rows >= MAX_ROWS for size in longs)  # a request's drafts among them
    assert len(found) < 45
    for kind in (decodes, longs):
        assert [size.tokens for size in kind] == sorted({size.tokens for size in kind})


# --- one step -------------------------------------------------------------------------------------


class Setup:
    """Recorded steps over a tiny model, and pages that hold the keys and values of some text."""

    def __init__(
        self,
        model: LlamaModel,
        rows: int = 6,
        budget: int = 64,
        numbers: np.ndarray | None = None,
    ) -> None:
        """numbers: of each slot's pages."""
        if numbers is None:
            numbers = np.random.default_rng(0).permutation(64)[: rows * 10].reshape(rows, 10)
        config = model.config
        heads = (config.num_kv_heads, config.head_dim)
        self.model, self.graphs = model, CalledAgain()
        self.kv = KVCache(config.num_layers, numbers.max() + 4, 16, *heads, torch.float32)
        self.table = PageTable(rows, numbers.shape[1], 16)
        self.last_tokens = torch.full((rows,), 65)
        self.table.write(
            [PageWrite(slot, 0, tuple(row)) for slot, row in enumerate(numbers.tolist())]
        )
        generator = torch.Generator().manual_seed(0)
        for pages in self.kv.layers:
            for tensor in (pages.k, pages.v):
                tensor.copy_(torch.randn(tensor.shape, generator=generator))
        with torch.inference_mode():
            self.steps = RecordedSteps(
                model, self.kv, self.table, self.last_tokens, self.graphs, budget, 3
            )

    def arrays(self, rows: list[tuple[int, int, int]], tokens: int | None = None) -> StepArrays:
        """rows: of each its slot, its context and how many of its tokens are new; each gives
        logits."""
        slots, contexts, news = (np.array(column) for column in zip(*rows, strict=True))
        owners = np.repeat(slots, news)
        positions = np.concatenate([np.arange(context - new, context) for _, context, new in rows])
        ids = np.random.default_rng(1).integers(0, 256, len(owners))
        if tokens is not None:
            ids[:] = tokens
        return StepArrays(
            token_ids=ids,
            owners=owners,
            positions=positions,
            places=self.table.places(owners, positions),
            logit_rows=np.cumsum(news) - 1,
            query_lens=news,
            context_lens=contexts,
            page_rows=self.table.rows(slots, -(-int(contexts.max()) // 16)),
        )

    def eagerly(self, arrays: StepArrays) -> torch.Tensor:
        from sapwood.kernels.paged_attention import plan_attention

        plan = plan_attention(
            arrays.query_lens.tolist(),
            arrays.context_lens.tolist(),
            torch.from_numpy(arrays.page_rows),
            16,
            group=self.model.config.num_heads // self.model.config.num_kv_heads,
            window=None,
            dtype=torch.float32,
            device="cpu",
        )
        columns = (arrays.token_ids, arrays.positions, arrays.places)
        ids, positions, places = (torch.from_numpy(column) for column in columns)
        ids = torch.where(ids == AWAITED, self.last_tokens[torch.from_numpy(arrays.owners)], ids)
        inputs = ForwardInputs(ids, positions, places, plan, torch.from_numpy(arrays.logit_rows))
        with torch.inference_mode():
            return self.model.forward(inputs, self.kv)

    def snapshot(self) -> list[torch.Tensor]:
        return [t.clone() for pages in self.kv.layers for t in (pages.k, pages.v)]


STEPS = [
    [(0, 1, 1)],
    [(3, 150, 1)],
    [(0, 17, 1), (1, 16, 1), (5, 33, 1)],
    [(slot, 20 + 7 * slot, 1) for slot in range(6)],
    [(0, 40, 3), (2, 9, 1)],  # drafts
    [(0, 60, 30), (2, 9, 1), (4, 100, 1)],  # a chunk beside decodes
    [(1, 32, 32)],
    [(1, 40, 40), (3, 22, 22)],
]


@pytest.mark.parametrize("rows", STEPS, ids=str)
@pytest.mark.parametrize("interpreted", [False, True])
def test_a_replayed_step_computes_what_a_launched_one_does(
    tiny_model: LlamaModel,
    rows: list[tuple[int, int, int]],
    interpreted: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if interpreted:
        if len(rows) > 3 or sum(new for *_, new in rows) > 8:
            pytest.skip("the interpreter takes long")
        if torch.cuda.is_available():
            pytest.skip("Triton is not interpreted here")
        monkeypatch.setattr(implementation, "is_triton", lambda x: True)
        monkeypatch.setattr(
            "sapwood.runtime.torch_path.recorded_steps.sizes",
            lambda rows, budget: [Size(4, 4, False), Size(8, 4, True)],
        )
    setup = Setup(tiny_model)
    before = setup.snapshot()
    arrays = setup.arrays(rows)
    with torch.inference_mode():
        replayed = setup.steps.logits(arrays)
    assert replayed is not None and setup.graphs.num_replayed == 1
    found, written = replayed.clone(), setup.snapshot()
    expected = setup.eagerly(arrays)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    for ours, theirs in zip(written, setup.snapshot(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)
    untouched = np.setdiff1d(
        np.arange(setup.kv.num_pages * 16), arrays.places
    )  # padding stores nothing
    for ours, theirs in zip(before, written, strict=True):
        assert torch.equal(ours.flatten(0, 1)[untouched], theirs.flatten(0, 1)[untouched])


def test_rows_of_a_recorded_step_share_prefixes(
    tiny_model: LlamaModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    if torch.cuda.is_available():
        pytest.skip("Triton is not interpreted here")
    size = Size(8, 8, has_long=False)
    assert size.rows >= SHARING_ROWS
    monkeypatch.setattr(implementation, "is_triton", lambda x: True)
    monkeypatch.setattr(
        "sapwood.runtime.torch_path.recorded_steps.sizes", lambda rows, budget: [size]
    )
    monkeypatch.setattr(sharing, "MIN_SAVED_TOKENS", 256)
    shared: list[object] = []
    plan_shared_work = sharing.plan_shared_work

    def planned(*args: Any, **kwargs: Any) -> Any:
        shared.append(plan_shared_work(*args, **kwargs))
        return shared[-1]

    monkeypatch.setattr(sharing, "plan_shared_work", planned)
    numbers = np.arange(8 * 20).reshape(8, 20)
    numbers[:, :16] = np.arange(16)  # a split of 256 tokens
    setup = Setup(tiny_model, rows=8, numbers=numbers)
    arrays = setup.arrays([(slot, 257 + 9 * slot, 1) for slot in range(6)])
    with torch.inference_mode():
        found = setup.steps.logits(arrays)
    assert found is not None and shared[-1] is not None
    monkeypatch.undo()
    torch.testing.assert_close(found.clone(), setup.eagerly(arrays), rtol=0, atol=1e-5)


def test_recording_stores_nothing(tiny_model: LlamaModel) -> None:
    setup = Setup(tiny_model)
    fresh = torch.Generator().manual_seed(0)
    for tensor in setup.snapshot():
        assert torch.equal(tensor, torch.randn(tensor.shape, generator=fresh))


def test_nothing_of_one_step_is_left_in_the_next(tiny_model: LlamaModel) -> None:
    setup = Setup(tiny_model)
    first, second = setup.arrays(STEPS[3]), setup.arrays(STEPS[2])
    with torch.inference_mode():
        setup.steps.logits(first)
        found = setup.steps.logits(second)
    assert found is not None and len(found) == 3
    torch.testing.assert_close(found.clone(), setup.eagerly(second), rtol=0, atol=1e-5)


def test_awaited_tokens_are_what_their_slots_drew_last(tiny_model: LlamaModel) -> None:
    setup = Setup(tiny_model)
    arrays = setup.arrays(STEPS[3], tokens=AWAITED)
    setup.last_tokens[:] = torch.arange(6) + 70  # after the recording
    with torch.inference_mode():
        found = setup.steps.logits(arrays)
    assert found is not None
    torch.testing.assert_close(found.clone(), setup.eagerly(arrays), rtol=0, atol=1e-5)


def test_the_smallest_that_fits_is_replayed(
    tiny_model: LlamaModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    setup = Setup(tiny_model)
    chosen: list[Size] = []
    for step in [step for steps in setup.steps._steps for step in steps]:
        monkeypatch.setattr(step, "launch", lambda arrays, size=step.size: chosen.append(size))
    with torch.inference_mode():
        for rows in STEPS:
            setup.steps.logits(setup.arrays(rows))
    expected = [(1, False), (1, False), (4, False), (6, False), (4, False), (32, True)]
    expected += [(32, True), (64, True)]
    assert [(size.tokens, size.has_long) for size in chosen] == expected
    many = setup.arrays([(0, 40, 32), (1, 60, 33)])  # 65 tokens
    assert setup.steps.logits(many) is None


# --- in the engine --------------------------------------------------------------------------------


def answers(driver: Any) -> list[tuple[list[int], Any]]:
    ids = [driver.submit(text, max_tokens=12, ignore_eos=True) for text in TEXTS]
    for stream in range(3):
        ids.append(driver.submit("warm", max_tokens=9, temperature=1.0, stream=stream))
    done = driver.run()
    assert all(done[id].num_ends == 1 and done[id].error is None for id in ids)
    return [(done[id].token_ids, done[id].finish) for id in ids]


@pytest.mark.parametrize("setup", [{}, {"token_budget": 40}, {"num_pages": 14}, {"max_running": 3}])
def test_recorded_or_not_answers_are_the_same(
    make_driver: MakeDriver, setup: dict[str, int]
) -> None:
    graphs = CalledAgain()
    driver = make_driver(backend=backend(graphs), **setup)
    assert driver.loop._runner.overlaps
    found = answers(driver)
    assert graphs.num_replayed >= 11  # each decode is
    off = CalledAgain()
    unrecorded = make_driver(backend=backend(off, DeviceOptions(cuda_graphs=False)), **setup)
    assert found == answers(unrecorded) == answers(make_driver())
    assert off.num_recorded == 0


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_the_whole_engine_in_triton(
    make_driver: MakeDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kernels interpreted, steps recorded, planning ahead: the answers of plain torch."""
    if torch.cuda.is_available():
        pytest.skip("Triton is not interpreted here")

    def few(driver: Any) -> list[list[int]]:
        options: dict[str, Any] = {"max_tokens": 3, "ignore_eos": True}
        ids = [driver.submit("the root of", **options), driver.submit("the rock", **options)]
        ids.append(driver.submit("sap", temperature=1.0, stream=3, **options))
        done = driver.run()
        return [done[id].token_ids for id in ids]

    expected = few(make_driver())
    with monkeypatch.context() as patched:
        patched.setattr(implementation, "is_triton", lambda x: True)
        patched.setattr(
            "sapwood.runtime.torch_path.recorded_steps.sizes",
            lambda rows, budget: [Size(4, 4, has_long=False), Size(32, 4, has_long=True)],
        )
        graphs = CalledAgain()
        assert few(make_driver(backend=backend(graphs))) == expected
    assert graphs.num_replayed >= 3


class Refusing(CalledAgain):
    def record(self, run: Callable[[], None]) -> Callable[[], None]:
        raise RuntimeError("CUDA error: operation not permitted when stream is capturing")


def test_what_cannot_be_recorded_is_launched_unless_it_was_asked_for(
    make_driver: MakeDriver, caplog: pytest.LogCaptureFixture
) -> None:
    driver = make_driver(backend=backend(Refusing()))
    assert "cannot be recorded" in caplog.text and "stream is capturing" in caplog.text
    assert answers(driver) == answers(make_driver())
    with pytest.raises(InvalidRequest, match="cuda_graphs: .* cannot be recorded: .* capturing"):
        make_driver(backend=backend(Refusing(), DeviceOptions(cuda_graphs=True)))


def test_a_schedule_decides_what_is_recorded(tiny_model: LlamaModel) -> None:
    graphs = CalledAgain()
    made = backend(graphs)(tiny_model, "float32")
    from sapwood.runtime.config import ResolvedConfig

    schedule = resolve_schedule(ScheduleOptions(max_running=20, token_budget=100), "cuda")
    made.build(ResolvedConfig("float32", 2_048, 64, 16, schedule))
    assert graphs.num_recorded == len(sizes(20, 100))
