"""What a step asks of its device, on torch's meta device, whose numbers nobody can read: nothing is
waited for, and what goes there goes in few copies. The kernels are not computed here."""

from array import array
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from sapwood.kernels import implementation
from sapwood.runtime.batch import (
    AWAITED,
    Batch,
    PageCopy,
    PageWrite,
    Penalties,
    Sampling,
    Span,
)
from sapwood.runtime.models.llama import LlamaModel
from sapwood.runtime.models.matrices import FLOATS, Float8, Integers, Matrices
from sapwood.runtime.models.weights import expected_shapes
from sapwood.runtime.page_table import PageTable
from sapwood.runtime.torch_path.arriving import Arriving
from sapwood.runtime.torch_path.kv_cache import KVCache
from sapwood.runtime.torch_path.runner import ModelRunner, Recording

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
def triton_asleep(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ops go the way of Triton, whose kernels then do nothing."""
    interpreter = pytest.importorskip("triton.runtime.interpreter")
    if torch.cuda.is_available():
        pytest.skip("Triton is not interpreted here")
    monkeypatch.setattr(implementation, "is_triton", lambda x: True)
    monkeypatch.setattr(interpreter.GridExecutor, "__call__", lambda self, *args, **kwargs: None)


def runner(
    graphs: Watched | None = None,
    matrices: Matrices = FLOATS,
    dtype: torch.dtype = torch.float32,
    kv_dtype: torch.dtype = torch.float32,
) -> ModelRunner:
    model = LlamaModel.load(Zeros(), dtype, "meta", matrices)
    heads = (CONFIG.num_kv_heads, CONFIG.head_dim)
    kv = KVCache(CONFIG.num_layers, 8, 16, *heads, kv_dtype, "meta")
    recording = Recording(graphs, 64, 3, is_required=True) if graphs is not None else None
    return ModelRunner(
        *(model, kv, PageTable(4, 8, 16), torch.device("meta")), overlaps=True, recording=recording
    )


FORMS: list[tuple[Matrices, torch.dtype, torch.dtype]] = [
    (FLOATS, torch.float32, torch.float32),
    (FLOATS, torch.bfloat16, torch.int8),
    (Integers(None, 8), torch.bfloat16, torch.bfloat16),
    (Integers(None, 4), torch.bfloat16, torch.float8_e4m3fn),
    (Float8(), torch.bfloat16, torch.bfloat16),
]


@pytest.mark.usefixtures("triton_asleep")
@pytest.mark.parametrize(("matrices", "dtype", "kv_dtype"), FORMS)
def test_a_recorded_step_stays_on_the_device(
    matrices: Matrices, dtype: torch.dtype, kv_dtype: torch.dtype
) -> None:
    graphs = Watched()
    runner(graphs, matrices, dtype, kv_dtype)
    assert len(graphs.recorded) > 3
    for watch in graphs.recorded:
        assert {devices for _, devices in watch.ops if devices} == {frozenset({"meta"})}
        names = [name for name, _ in watch.ops]
        assert not {"aten._local_scalar_dense.default", "aten.nonzero.default"} & set(names)
        if matrices is FLOATS:
            assert names.count("aten.linear.default") == 4 * CONFIG.num_layers + 1


@pytest.mark.usefixtures("triton_asleep")
@pytest.mark.parametrize("graphs", [None, Watched()], ids=["launched", "recorded"])
def test_a_launch_goes_to_the_device_in_two_copies(graphs: Watched | None) -> None:
    """The step's numbers, and attention's plan."""
    spans = [
        Span("a", 0, array("i", [AWAITED]), 20, (DRAW,), None),
        Span("b", 1, array("i", range(5)), 3, (DRAW,), None),
        Span("c", 3, array("i", range(9)), 0, (), None),
    ]
    writes = tuple(PageWrite(span.slot, 0, (2 * span.slot, 2 * span.slot + 1)) for span in spans)
    made = runner(graphs)
    for batch, copies in (
        (Batch(tuple(spans), page_writes=writes), 2),
        (Batch(tuple(spans), (PageCopy(0, 7), PageCopy(2, 5))), 3),
    ):
        with Watch() as watch:
            made.launch(batch)
        assert len(watch.copies()) == copies, watch.copies()


KINDS = {
    "greedy": DRAW._replace(temperature=0.0),
    "limits": DRAW._replace(top_k=5, top_p=0.9, min_p=0.01),
    "bias": DRAW._replace(logit_bias=((3, 1.0), (5, -1.0)), banned=(7,)),
    "penalties": DRAW._replace(
        penalties=Penalties(np.arange(3, dtype=np.int32), np.arange(5, dtype=np.int32), 1, 1, 2)
    ),
    "report": DRAW._replace(report=True),
}


@pytest.mark.usefixtures("triton_asleep")
@pytest.mark.parametrize("kind", KINDS)
def test_a_draw_waits_for_nothing(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it sends does not grow with its rows, and what it drew is asked for last."""
    arrived: list[int] = []

    def arriving(*tensors: torch.Tensor) -> Arriving:
        arrived.append(len(tensors))
        return Arriving((), None)

    monkeypatch.setattr(Arriving, "of", arriving)
    copies = []
    for rows in (1, 4):
        draw = (KINDS[kind],)
        spans = [
            Span(str(slot), slot, array("i", [AWAITED]), 20, draw, None, 2 * draw[0].report)
            for slot in range(rows)
        ]
        flight = runner().launch(Batch(tuple(spans)))
        with Watch() as watch:
            flight.draw([draw] * rows)
        copies.append(len(watch.copies()))
    assert copies[0] == copies[1] <= 5, watch.copies()
    assert arrived
