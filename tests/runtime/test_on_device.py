"""What a step asks of its device, on torch's meta device, whose numbers nobody can read: nothing is
waited for, and what goes there goes in few copies. The kernels are not computed here."""

from array import array
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from sapwood.kernels import implementation
from sapwood.runtime.batch import AWAITED, Batch, PageCopy, PageWrite, Sampling, Span
from sapwood.runtime.kv_cache import KVCache
from sapwood.runtime.models.llama import LlamaModel
from sapwood.runtime.models.weights import expected_shapes
from sapwood.runtime.page_table import PageTable
from sapwood.runtime.runner import ModelRunner, Recording

from .conftest import CONFIG

DRAW = Sampling(1.0, 0, 1.0, 0.0, 0, 0)


class Watch(TorchDispatchMode):
    """Notes every op, and on which devices its tensors are."""

    def __init__(self) -> None:
        super().__init__()
        self.ops: list[tuple[str, frozenset[str]]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        tensors = [leaf for leaf in tree_leaves((args, kwargs, out)) if torch.is_tensor(leaf)]
        self.ops.append((str(func), frozenset(each.device.type for each in tensors)))
        return out

    def copies(self) -> list[str]:
        return [name for name, devices in self.ops if {"cpu", "meta"} <= devices]


class Watched:
    """See `Graphs`."""

    def __init__(self) -> None:
        self.recorded: list[Watch] = []

    def record(self, run: Any) -> Any:
        with Watch() as watch:
            run()
        self.recorded.append(watch)
        return run


class Zeros:
    """See `TensorSource`."""

    config = CONFIG

    def tensor(self, name: str, dtype: torch.dtype) -> torch.Tensor:
        return torch.zeros(expected_shapes(CONFIG)[name], dtype=dtype)


@pytest.fixture
def runner(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    interpreter = pytest.importorskip("triton.runtime.interpreter")
    if torch.cuda.is_available():
        pytest.skip("Triton is not interpreted here")
    monkeypatch.setattr(implementation, "is_triton", lambda x: True)
    monkeypatch.setattr(interpreter.GridExecutor, "__call__", lambda self, *args, **kwargs: None)
    model = LlamaModel.load(Zeros(), torch.float32, "meta")
    kv = KVCache(
        *(CONFIG.num_layers, 8, 16, CONFIG.num_kv_heads, CONFIG.head_dim), torch.float32, "meta"
    )
    graphs = Watched()
    recording = Recording(graphs, 64, 3, is_required=True) if request.param else None
    made = ModelRunner(
        *(model, kv, PageTable(4, 8, 16), torch.device("meta")), overlaps=True, recording=recording
    )
    yield made, graphs


@pytest.mark.parametrize("runner", [True], indirect=True)
def test_a_recorded_step_stays_on_the_device(runner: tuple[ModelRunner, Watched]) -> None:
    recorded = runner[1].recorded
    assert len(recorded) > 3
    for watch in recorded:
        assert {devices for _, devices in watch.ops if devices} == {frozenset({"meta"})}
        names = {name for name, _ in watch.ops}
        assert not {"aten._local_scalar_dense.default", "aten.nonzero.default"} & names
        linears = sum(name == "aten.linear.default" for name, _ in watch.ops)
        assert linears == 4 * CONFIG.num_layers + 1


@pytest.mark.parametrize(("runner", "most"), [(True, 2), (False, 2)], indirect=["runner"])
def test_a_launch_goes_to_the_device_in_two_copies(
    runner: tuple[ModelRunner, Watched], most: int
) -> None:
    """The step's numbers, and attention's plan."""
    spans = [
        Span("a", 0, array("i", [AWAITED]), 20, (DRAW,), None),
        Span("b", 1, array("i", range(5)), 3, (DRAW,), None),
        Span("c", 3, array("i", range(9)), 0, (), None),
    ]
    writes = tuple(PageWrite(span.slot, 0, (2 * span.slot, 2 * span.slot + 1)) for span in spans)
    for batch, copies in (
        (Batch(tuple(spans), page_writes=writes), most),
        (Batch(tuple(spans), (PageCopy(0, 7), PageCopy(2, 5))), most + 1),
    ):
        with Watch() as watch:
            runner[0].launch(batch)
        assert len(watch.copies()) == copies, watch.copies()
