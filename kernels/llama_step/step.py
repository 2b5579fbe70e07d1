"""The binding of `llama_step.cpp`: shapes checked, pointers passed, errors raised.

ctypes lets go of the interpreter while a step runs. The native side checks every index again, so a
wrong page or token is an error here and never a read out of bounds.
"""

import ctypes
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..._native import load

Int32Array = NDArray[np.int32]
FloatArray = NDArray[np.float32]

TILE = 16  # outputs of a weight tile
STRIP = 32  # outputs of one maximum


class WeightFormat(IntEnum):
    """How weights are kept. INT8: groups of 32 inputs with a float16 scale; INT4: with a scale and
    a minimum. Their rows are multiplied as 8-bit groups too."""

    FLOAT32 = 0
    BFLOAT16 = 1
    INT8 = 2
    INT4 = 3


class Source(IntEnum):
    """How a checkpoint stores a row; the names are GGUF's."""

    F32 = 0
    F16 = 1
    BF16 = 2
    Q8_0 = 3
    Q4_0 = 4
    Q4_1 = 5


class MatrixKind(IntEnum):
    """QKV: queries, keys and values, one after the other. GATE and UP share a matrix. A model
    without HEAD uses EMBEDDING for both."""

    QKV = 0
    OUTPUT = 1
    GATE = 2
    UP = 3
    DOWN = 4
    EMBEDDING = 5
    HEAD = 6


class VectorKind(IntEnum):
    """FREQUENCIES: radians per position, head_dim / 2 of them."""

    INPUT_NORM = 0
    MLP_NORM = 1
    Q_NORM = 2
    K_NORM = 3
    FINAL_NORM = 4
    FREQUENCIES = 5


class Phase(IntEnum):
    """The parts of a step that `seconds` tells apart."""

    EMBED = 0
    QKV = 1
    ROPE = 2
    ATTENTION = 3
    OUTPUT = 4
    GATE_UP = 5
    DOWN = 6
    HEAD = 7


class KvFormat(IntEnum):
    """How keys and values are kept. INT8: with a float32 scale for each head and token; they are
    multiplied as bfloat16."""

    BFLOAT16 = 0
    FLOAT32 = 1
    INT8 = 2


@dataclass(frozen=True)
class StepShape:
    """A model's numbers and its cache's. `window`: positions that a token sees, itself included; 0:
    all. `rope_scale`: a factor on both cosines and sines. head_dim is a multiple of 16, page_size a
    power of two."""

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    inner: int
    vocab: int
    page_size: int
    num_pages: int
    window: int
    kv_format: KvFormat
    threads: int
    eps: float
    rope_scale: float


class _Shape(ctypes.Structure):
    _fields_ = (
        *(
            (name, ctypes.c_int)
            for name, kind in StepShape.__annotations__.items()
            if kind is not float
        ),
        ("eps", ctypes.c_float),
        ("rope_scale", ctypes.c_float),
    )


class _Args(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_int32) for name in ("num_spans", "num_tokens", "num_rows", "width")),
        *(
            (name, ctypes.c_void_p)
            for name in (
                *("token_ids", "starts", "lengths", "table_rows", "page_table", "rows"),
                *("masks", "logits", "strip_maxima", "best", "best_logit"),
            )
        ),
    )


@dataclass(frozen=True)
class StepInputs:
    """S spans of N tokens in all, R rows of logits wanted.

    token_ids: int32 [N], span after span; starts, lengths, table_rows: int32 [S]: a span's first
    position, how many tokens, its row of page_table, int32 [any, width]; rows: int32 [R], tokens of
    the step, ascending. `masks`: one int32 [ceil(vocab / 32)] bitmask or None per row: the tokens
    that `best` may be. `logits`: where a row's float32 [vocab] go, or None per row.
    """

    token_ids: Int32Array
    starts: Int32Array
    lengths: Int32Array
    table_rows: Int32Array
    page_table: Int32Array
    rows: Int32Array
    masks: Sequence[Int32Array | None] | None = None
    logits: Sequence[FloatArray | None] | None = None


@dataclass(frozen=True)
class StepOutputs:
    """best: int32 [R], the lowest id among the largest allowed logits; best_logit: float32 [R];
    strip_maxima: float32 [R, ceil(vocab / 32)], of each 32 logits (masks do not count)."""

    best: Int32Array
    best_logit: FloatArray
    strip_maxima: FloatArray | None


def load_library(say: Callable[[str], None] | None = None) -> ctypes.CDLL:
    """The compiled step. Raises `_native.NativeUnavailable`."""
    library = load("llama_step", [Path(__file__).with_name("llama_step.cpp")], say=say)
    pointer, number = ctypes.c_void_p, ctypes.c_int
    library.sapwood_error.restype = ctypes.c_char_p
    library.sapwood_new.restype = pointer
    library.sapwood_new.argtypes = (pointer,)
    library.sapwood_free.argtypes = (pointer,)
    library.sapwood_free.restype = None
    library.sapwood_define.argtypes = (pointer, number, number, number, number, number)
    library.sapwood_pack.argtypes = (
        *(pointer, number, number, number, number, number),
        *(pointer, ctypes.c_int64),
    )
    library.sapwood_bias.argtypes = (pointer, number, number, number, number, pointer)
    library.sapwood_vector.argtypes = (pointer, number, number, number, pointer)
    library.sapwood_step.argtypes = (pointer, pointer)
    library.sapwood_copy_page.argtypes = (pointer, number, number)
    library.sapwood_seconds.argtypes = (pointer, pointer)
    library.sapwood_seconds.restype = None
    library.sapwood_weight_bytes.argtypes = (pointer,)
    library.sapwood_weight_bytes.restype = ctypes.c_int64
    library.sapwood_page_bytes.argtypes = (pointer,)
    library.sapwood_page_bytes.restype = ctypes.c_int64
    return library


class LlamaStep:
    """A model and its paged cache in native memory. One caller at a time; `close` frees it.

    Every method raises ValueError with the native side's reason.
    """

    def __init__(self, library: ctypes.CDLL, shape: StepShape) -> None:
        self.shape = shape
        self._library = library
        self._model = library.sapwood_new(ctypes.byref(_native_shape(shape)))
        if not self._model:
            raise ValueError(f"llama_step: {self._reason()}")

    @staticmethod
    def page_bytes(library: ctypes.CDLL, shape: StepShape) -> int:
        """Bytes of keys and values of one page over all layers."""
        return int(library.sapwood_page_bytes(ctypes.byref(_native_shape(shape))))

    def define(
        self, layer: int, kind: MatrixKind, outputs: int, inputs: int, weight_format: WeightFormat
    ) -> None:
        """Make room for a matrix [outputs, inputs], all zero. GATE makes room for UP as well."""
        if kind is MatrixKind.GATE:
            outputs = 2 * (-(-outputs // STRIP) * STRIP)
        self._check(
            self._library.sapwood_define(self._model, layer, kind, outputs, inputs, weight_format)
        )

    def pack(
        self, layer: int, kind: MatrixKind, first: int, source: Source, rows: NDArray[np.uint8]
    ) -> None:
        """Fill rows `first` .. of a defined matrix. rows: uint8 [count, row_bytes], contiguous."""
        rows = np.ascontiguousarray(rows)
        self._check(
            self._library.sapwood_pack(
                *(self._model, layer, kind, first, rows.shape[0], source),
                *(rows.ctypes.data, rows.shape[1]),
            )
        )

    def bias(self, layer: int, kind: MatrixKind, first: int, values: FloatArray) -> None:
        """What is added to outputs `first` .. of a defined matrix. values: float32 [count]."""
        values = np.ascontiguousarray(values, dtype=np.float32)
        self._check(
            self._library.sapwood_bias(
                self._model, layer, kind, first, len(values), values.ctypes.data
            )
        )

    def vector(self, layer: int, kind: VectorKind, values: FloatArray) -> None:
        """A norm's weights, or the rotation's frequencies; float32."""
        values = np.ascontiguousarray(values, dtype=np.float32)
        self._check(
            self._library.sapwood_vector(self._model, layer, kind, len(values), values.ctypes.data)
        )

    def step(self, inputs: StepInputs, *, maxima: bool = False) -> StepOutputs:
        """Compute the spans' keys, values and logits. `maxima`: report the strips' as well."""
        if inputs.page_table.ndim != 2:
            raise ValueError(f"llama_step: page_table has shape {inputs.page_table.shape}")
        num_rows = len(inputs.rows)
        best = np.empty(num_rows, np.int32)
        best_logit = np.empty(num_rows, np.float32)
        strips = -(-self.shape.vocab // STRIP)
        strip_maxima = None
        if maxima:
            strip_maxima = np.full((num_rows, strips), -np.inf, np.float32)
        args = _Args(
            len(inputs.lengths),
            len(inputs.token_ids),
            num_rows,
            inputs.page_table.shape[1],
            *(_pointer(array, np.int32) for array in (inputs.token_ids, inputs.starts)),
            *(_pointer(array, np.int32) for array in (inputs.lengths, inputs.table_rows)),
            *(_pointer(array, np.int32) for array in (inputs.page_table, inputs.rows)),
            _pointers(inputs.masks, num_rows, np.int32, -(-self.shape.vocab // 32)),
            _pointers(inputs.logits, num_rows, np.float32, self.shape.vocab),
            None if strip_maxima is None else strip_maxima.ctypes.data,
            best.ctypes.data,
            best_logit.ctypes.data,
        )
        if not len(inputs.lengths) == len(inputs.starts) == len(inputs.table_rows):
            raise ValueError("llama_step: starts, lengths and table_rows differ in length")
        if len(inputs.table_rows) and inputs.table_rows.max() >= len(inputs.page_table):
            raise ValueError("llama_step: a span has no row of the page table")
        self._check(self._library.sapwood_step(self._model, ctypes.byref(args)))
        return StepOutputs(best, best_logit, strip_maxima)

    def copy_page(self, source: int, target: int) -> None:
        """Copy one page's keys and values in every layer."""
        self._check(self._library.sapwood_copy_page(self._model, source, target))

    def seconds(self) -> dict[Phase, float]:
        """Seconds that each phase took since the last call, of the calling thread's share."""
        values = (ctypes.c_double * len(Phase))()
        self._library.sapwood_seconds(self._model, values)
        return dict(zip(Phase, values, strict=True))

    @property
    def weight_bytes(self) -> int:
        """Bytes of all matrices as they are kept."""
        return int(self._library.sapwood_weight_bytes(self._model))

    def close(self) -> None:
        """Free everything; the object must not be used again."""
        if self._model:
            self._library.sapwood_free(self._model)
            self._model = None

    def __del__(self) -> None:
        if getattr(self, "_model", None):
            self.close()

    def _check(self, status: int) -> None:
        if status:
            raise ValueError(f"llama_step: {self._reason()}")

    def _reason(self) -> str:
        return str(self._library.sapwood_error().decode())


def _native_shape(shape: StepShape) -> _Shape:
    return _Shape(*astuple(shape))


def _pointer(array: NDArray[Any], dtype: type) -> int:
    if array.dtype != dtype or not array.flags.c_contiguous:
        raise ValueError(f"llama_step: an array is {array.dtype}, or not contiguous")
    return array.ctypes.data


def _pointers(
    arrays: Sequence[NDArray[Any] | None] | None, count: int, dtype: type, size: int
) -> Any:
    """An array of pointers, NULL where there is no array; None where there are none at all."""
    if arrays is None or all(array is None for array in arrays):
        return None
    if len(arrays) != count:
        raise ValueError(f"llama_step: {len(arrays)} arrays for {count} rows")
    if any(array is not None and array.size < size for array in arrays):
        raise ValueError(f"llama_step: a row's array holds less than {size} elements")
    table = (ctypes.c_void_p * count)(
        *(None if array is None else _pointer(array, dtype) for array in arrays)
    )
    return ctypes.cast(table, ctypes.c_void_p)
