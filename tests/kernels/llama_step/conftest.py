"""The compiled probe of single kernels, and small whole models for the step's tests."""

import ctypes
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from sapwood import _native
from sapwood.kernels import llama_step
from sapwood.kernels.llama_step import (
    KvFormat,
    LlamaStep,
    MatrixKind,
    Source,
    StepInputs,
    StepShape,
    VectorKind,
    WeightFormat,
)

Array = NDArray[Any]
HEADERS = sorted(Path(llama_step.__file__).parent.glob("*.h"))


@pytest.fixture(scope="session", autouse=True)
def compiler() -> None:
    status = _native.status()
    if not status.available:
        pytest.skip(status.reason)


# --- single kernels ---


class Probe:
    """`probe.cpp` with numpy arrays: every method gives new arrays."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self.library = library
        for name in ("probe_matrix", "probe_cache"):
            getattr(library, name).restype = ctypes.c_void_p
        library.probe_cache_page_bytes.restype = ctypes.c_int64

    def halves(self, halves: Array) -> tuple[Array, Array]:
        """float16 bits as float32: one by one, and by lanes."""
        one, lanes = (np.empty(len(halves), np.float32) for _ in range(2))
        self.library.probe_halves(at(halves), len(halves), at(one), at(lanes))
        return one, lanes

    def float_to_half(self, values: Array) -> Array:
        halves = np.empty(len(values), np.uint16)
        self.library.probe_float_to_half(at(values), len(values), at(halves))
        return halves

    def bf16(self, values: Array) -> tuple[Array, Array]:
        one, lanes = (np.empty(len(values), np.uint16) for _ in range(2))
        self.library.probe_bf16(at(values), len(values), at(one), at(lanes))
        return one, lanes

    def exp2_short(self, x: Array) -> Array:
        out = np.empty(len(x), np.float32)
        self.library.probe_exp2_short(at(x), len(x), at(out))
        return out

    def exp(self, x: Array) -> tuple[Array, Array]:
        """By lanes, and one by one."""
        lanes, one = np.empty_like(x), np.empty_like(x)
        self.library.probe_exp(at(x), len(x), at(lanes), at(one))
        return lanes, one

    def silu(self, x: Array) -> Array:
        out = np.empty_like(x)
        self.library.probe_silu(at(x), len(x), at(out))
        return out

    def round(self, x: Array) -> tuple[Array, Array]:
        ints, floats = np.empty(len(x), np.int32), np.empty_like(x)
        self.library.probe_round(at(x), len(x), at(ints), at(floats))
        return ints, floats

    def dot4(self, start: Array, w: Array, x: Array) -> Array:
        out = np.empty_like(start)
        self.library.probe_dot4(at(start), at(w), at(x), len(start), at(out))
        return out

    def dot2(self, start: Array, w: Array, x: Array) -> Array:
        out = np.empty_like(start)
        self.library.probe_dot2(at(start), at(w), at(x), len(start), at(out))
        return out

    def reduce(self, x: Array, keep: int, other: float) -> tuple[float, float]:
        largest, total = np.empty(1, np.float32), np.empty(1, np.float32)
        self.library.probe_reduce(at(x), keep, ctypes.c_float(other), at(largest), at(total))
        return float(largest[0]), float(total[0])

    def nibbles(self, packed: Array) -> tuple[Array, Array]:
        low, high = np.empty(64, np.uint8), np.empty(64, np.uint8)
        self.library.probe_nibbles(at(packed), at(low), at(high))
        return low, high

    def rms_norm(self, x: Array, weight: Array, eps: float) -> tuple[Array, Array]:
        out, scalar = np.empty_like(x), np.empty_like(x)
        self.library.probe_rms_norm(
            *(at(x), at(weight), len(x), ctypes.c_float(eps), at(out), at(scalar))
        )
        return out, scalar

    def rotate(
        self, head: Array, position: int, frequencies: Array, scale: float
    ) -> tuple[Array, Array]:
        turned, scalar = head.copy(), head.copy()
        self.library.probe_rotate(
            *(at(turned), at(scalar), position, at(frequencies), len(frequencies)),
            ctypes.c_float(scale),
        )
        return turned, scalar

    def merge(self, out: Array, top: float, total: float, other: Any) -> tuple[Array, float, float]:
        """other: the next part's (out, top, sum)."""
        merged, tops, sums = out.copy(), np.float32([top]), np.float32([total])
        next_out, next_top, next_sum = other
        self.library.probe_merge(
            *(at(merged), at(tops), at(sums), at(next_out)),
            *(ctypes.c_float(next_top), ctypes.c_float(next_sum), len(out)),
        )
        return merged, float(tops[0]), float(sums[0])

    def matrix(self, weight_format: WeightFormat, source: Source, rows: Array, inputs: int) -> Any:
        """rows: uint8 [outputs, row_bytes]."""
        return _Matrix(self.library, weight_format, source, rows, inputs)

    def cache(self, **numbers: Any) -> Any:
        return _Cache(self.library, **numbers)


class _Matrix:
    def __init__(
        self,
        library: ctypes.CDLL,
        weight_format: WeightFormat,
        source: Source,
        rows: Array,
        inputs: int,
    ) -> None:
        self._library = library
        self.outputs, self.inputs = len(rows), inputs
        self.padded = -(-inputs // 32) * 32
        self._handle = ctypes.c_void_p(
            library.probe_matrix(self.outputs, inputs, int(weight_format))
        )
        assert self._handle
        library.probe_pack(self._handle, int(source), at(np.ascontiguousarray(rows)))

    def bias(self, values: Array) -> None:
        self._library.probe_bias(self._handle, at(values))

    def unpack(self) -> Array:
        values = np.empty((self.outputs, self.inputs), np.float32)
        self._library.probe_unpack(self._handle, at(values))
        return values

    def multiply(self, x: Array, first: int = 0, last: int | None = None) -> Array:
        """float32 [rows, strips, 32], NaN where nothing was written."""
        strips = -(-self.outputs // 32)
        out = np.full((len(x), strips * 32), np.nan, np.float32)
        last = len(x) if last is None else last
        self._library.probe_multiply(self._handle, at(x), len(x), first, last, at(out))
        return out

    def scalar(self, x: Array) -> tuple[Array, Array]:
        """What the rows stand for, float32 [rows, padded], and their products, float64."""
        values = np.empty((len(x), self.padded), np.float32)
        out = np.empty((len(x), self.outputs), np.float64)
        self._library.probe_scalar_multiply(self._handle, at(x), len(x), at(values), at(out))
        return values, out

    def __del__(self) -> None:
        self._library.probe_matrix_free(self._handle)


class _Cache:
    def __init__(
        self,
        library: ctypes.CDLL,
        *,
        kv: KvFormat,
        layers: int,
        heads: int,
        dim: int,
        page_size: int,
        num_pages: int,
    ) -> None:
        self._library = library
        self.dim = dim
        self._handle = ctypes.c_void_p(
            library.probe_cache(kv, layers, heads, dim, page_size, num_pages)
        )
        assert self._handle

    def fill(self, value: float) -> None:
        self._library.probe_cache_fill(self._handle, ctypes.c_float(value))

    def write(self, place: tuple[int, int, int, int], key: Array, value: Array) -> None:
        """place: layer, page, head, offset."""
        self._library.probe_cache_write(self._handle, *place, at(key), at(value))

    def read(self, place: tuple[int, int, int, int]) -> tuple[Array, Array]:
        key, value = (np.empty(self.dim, np.float32) for _ in range(2))
        self._library.probe_cache_read(self._handle, *place, at(key), at(value))
        return key, value

    def copy(self, source: int, target: int) -> None:
        self._library.probe_cache_copy(self._handle, source, target)

    def page_bytes(self) -> int:
        return int(self._library.probe_cache_page_bytes(self._handle))

    def attend(
        self, layer: int, head: int, pages: Array, queries: Array, ranges: Array
    ) -> tuple[Array, Array]:
        """float32 [rows, dim] by the kernels and by their scalar twin."""
        out, scalar = np.empty_like(queries), np.empty_like(queries)
        rows = np.ascontiguousarray(ranges, np.int32)
        self._library.probe_attend(
            *(self._handle, layer, head, at(pages), at(queries), at(rows), len(rows), at(out))
        )
        for query, row, target in zip(queries, rows, scalar, strict=True):
            self._library.probe_attend_scalar(
                *(self._handle, layer, head, at(pages), at(query), at(row), at(target))
            )
        return out, scalar

    def __del__(self) -> None:
        self._library.probe_cache_free(self._handle)


def at(array: Array) -> ctypes.c_void_p:
    assert array.flags.c_contiguous
    return ctypes.c_void_p(array.ctypes.data)


@pytest.fixture(scope="session")
def probe() -> Probe:
    source = Path(__file__).with_name("probe.cpp")
    return Probe(_native.load("llama_step_probe", [source], depends=HEADERS))


# --- whole models ---

FORMATS = {
    "float32": WeightFormat.FLOAT32,
    "bfloat16": WeightFormat.BFLOAT16,
    "int8": WeightFormat.INT8,
    "int4": WeightFormat.INT4,
}


@dataclass(frozen=True)
class Tiny:
    """A small decoder with random weights, and how to step sequences over its pages."""

    step: LlamaStep
    table: Array = field(repr=False)  # int32 [rows, pages of a row]

    def with_table(self, table: Array) -> "Tiny":
        """The same model and cache; sequences live in other pages."""
        return Tiny(self.step, np.ascontiguousarray(table, np.int32))

    def run(
        self, texts: Sequence[Array] | dict[int, Array], spans: Sequence[tuple[int, int, int]]
    ) -> list[Array]:
        """Compute positions start .. end - 1 of each (row, start, end); each span's logits,
        float32 [end - start, vocab]."""
        inputs = self.inputs(texts, spans)
        logits = np.full((len(inputs.token_ids), self.step.shape.vocab), np.nan, np.float32)
        self.step.step(replace(inputs, logits=list(logits)))
        return np.split(logits, np.cumsum(inputs.lengths)[:-1])

    def inputs(
        self, texts: Sequence[Array] | dict[int, Array], spans: Sequence[tuple[int, int, int]]
    ) -> StepInputs:
        """What computes these spans, every token a row; logits go nowhere."""
        ids = np.concatenate([texts[row][start:end] for row, start, end in spans])
        columns = np.array(spans, np.int32).reshape(-1, 3)
        return StepInputs(
            token_ids=ids.astype(np.int32),
            starts=columns[:, 1].copy(),
            lengths=columns[:, 2] - columns[:, 1],
            table_rows=columns[:, 0].copy(),
            page_table=self.table,
            rows=np.arange(len(ids), dtype=np.int32),
        )


@pytest.fixture(scope="session")
def library() -> ctypes.CDLL:
    return llama_step.load_library()


@pytest.fixture(scope="session")
def make_tiny(library: ctypes.CDLL) -> Iterator[Callable[..., Tiny]]:
    """make_tiny(weight_format, bias=..., qk_norm=..., tied=..., **numbers of StepShape); models are
    kept: the next that asks finds the cache as it was left."""
    made: dict[Any, Tiny] = {}

    def make(
        weight_format: str = "float32",
        *,
        bias: bool = False,
        qk_norm: bool = False,
        tied: bool = True,
        **numbers: Any,
    ) -> Tiny:
        key = (weight_format, bias, qk_norm, tied, *sorted(numbers.items()))
        if key not in made:
            step = LlamaStep(library, StepShape(**{**SHAPE, **numbers}))
            _fill(step, FORMATS[weight_format], bias, qk_norm, tied)
            per_row = POSITIONS // step.shape.page_size
            rows = step.shape.num_pages // per_row
            table = np.random.default_rng(2).permutation(rows * per_row).reshape(rows, per_row)
            made[key] = Tiny(step, table.astype(np.int32))
        return made[key]

    yield make
    for tiny in made.values():
        tiny.step.close()


POSITIONS = 256  # of one row of the page table
SHAPE: dict[str, Any] = {
    "layers": 2,
    "hidden": 64,
    "heads": 6,
    "kv_heads": 2,
    "head_dim": 16,
    "inner": 96,
    "vocab": 101,
    "page_size": 16,
    "num_pages": 80,
    "window": 0,
    "kv_format": KvFormat.BFLOAT16,
    "threads": 2,
    "eps": 1e-5,
    "rope_scale": 1.0,
}


def _fill(
    step: LlamaStep, weight_format: WeightFormat, bias: bool, qk_norm: bool, tied: bool
) -> None:
    shape, random = step.shape, np.random.default_rng(1)
    queries, keys = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    layer_parts = (
        (MatrixKind.QKV, queries + 2 * keys, shape.hidden),
        (MatrixKind.OUTPUT, shape.hidden, queries),
        (MatrixKind.GATE, shape.inner, shape.hidden),
        (MatrixKind.UP, shape.inner, shape.hidden),
        (MatrixKind.DOWN, shape.hidden, shape.inner),
    )
    for layer in range(shape.layers):
        for kind, outputs, inputs in layer_parts:
            _matrix(step, random, layer, kind, outputs, inputs, weight_format)
            if bias:
                step.bias(layer, kind, 0, random.standard_normal(outputs, np.float32) / 3)
        for norm in (VectorKind.INPUT_NORM, VectorKind.MLP_NORM):
            step.vector(layer, norm, 1 + random.standard_normal(shape.hidden, np.float32) / 4)
        if qk_norm:
            for norm in (VectorKind.Q_NORM, VectorKind.K_NORM):
                step.vector(layer, norm, 1 + random.standard_normal(shape.head_dim, np.float32) / 4)
    kinds = (MatrixKind.EMBEDDING,) if tied else (MatrixKind.EMBEDDING, MatrixKind.HEAD)
    for kind in kinds:
        _matrix(step, random, -1, kind, shape.vocab, shape.hidden, weight_format)
    step.vector(-1, VectorKind.FINAL_NORM, np.ones(shape.hidden, np.float32))
    exponents = np.arange(0, shape.head_dim, 2) / shape.head_dim
    step.vector(-1, VectorKind.FREQUENCIES, (1e4**-exponents).astype(np.float32))


def _matrix(
    step: LlamaStep,
    random: np.random.Generator,
    layer: int,
    kind: MatrixKind,
    outputs: int,
    inputs: int,
    weight_format: WeightFormat,
) -> None:
    if kind is not MatrixKind.UP:
        step.define(layer, kind, outputs, inputs, weight_format)
    values = random.standard_normal((outputs, inputs), np.float32)
    values *= 2 / np.sqrt(inputs, dtype=np.float32)
    step.pack(layer, kind, 0, Source.F32, values.view(np.uint8).reshape(outputs, -1))
