"""The sampler in native code: one call for a whole batch of rows; numpy arrays in and out, no
torch.

    chosen = choose(logits, Limits(temperature, top_k, top_p, min_p, uniforms), masks=Masks(...))
    chosen.tokens                                    # int64 [R]

Each row goes through penalties, bias, mask, draw; rows do not influence one another. The limits and
the draw are those of `sample`; a reported log-probability is of the logits as they were given.

What is exact: weights are float32, computed by the same IEEE operations on every processor; their
sums are float64 in a fixed order. So the same logits give the same token on every tier, in every
batch and for any number of threads. Against `sample`, whose exponential may differ in the last
place, a draw differs only where its uniform lies within about 1e-7 of a boundary between tokens. A
weight below 1.2e-38 of the largest counts as 0, a logit that is NaN as forbidden.

What it costs: a row reads its logits once to find the maximum of each block of 32, or not even that
where the caller passes `block_maxima`; after that greedy rows and small `top_k` read a few blocks
only. Figures: `docs/log.md`.

Owns: the binding, its checks. Where there is no compiler, `choose` raises NativeUnavailable.
"""

import ctypes
import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ..._native import load

BLOCK: Final = 32  # tokens; one mask word, one maximum

Floats = NDArray[np.float32]
Ints = NDArray[np.int32]


@dataclass(frozen=True)
class Limits:
    """For each row what `sample` takes. temperature, top_p, min_p: float32 [R]; top_k: int32 [R];
    uniforms: float64 [R]."""

    temperature: Floats
    top_k: Ints
    top_p: Floats
    min_p: Floats
    uniforms: NDArray[np.float64]


@dataclass(frozen=True)
class Ragged:
    """A list of token ids for each row: row r has `ids[starts[r] : starts[r + 1]]`. starts: int64
    [R + 1]; ids: int32 [starts[-1]]."""

    starts: NDArray[np.int64]
    ids: Ints

    @classmethod
    def of(cls, rows: Sequence[Sequence[int] | Ints]) -> "Ragged":
        starts = np.zeros(len(rows) + 1, np.int64)
        np.cumsum([len(row) for row in rows], out=starts[1:])
        parts = [np.asarray(row, np.int32) for row in rows if len(row)]
        return cls(starts, np.concatenate(parts) if parts else np.empty(0, np.int32))


@dataclass(frozen=True)
class Masks:
    """words: int32 [M, ceil(V / 32)], bit t % 32 of word t // 32 set where token t is allowed (bits
    from V on are ignored); rows: int32 [R], the mask of each row, -1 where it has none."""

    words: Ints
    rows: Ints


@dataclass(frozen=True)
class Penalties:
    """Tokens already there, with repeats, and for each row float32 [R]. repetition (1: none)
    divides the positive logits of `prompt` and `output` and multiplies the negative ones;
    frequency is subtracted for each occurrence in `output`, presence once."""

    prompt: Ragged
    output: Ragged
    repetition: Floats
    frequency: Floats
    presence: Floats


@dataclass(frozen=True)
class Bias:
    """values: float32, one for each of `tokens.ids`, added to its logit."""

    tokens: Ragged
    values: Floats


@dataclass(frozen=True)
class Logprobs:
    """of_tokens: float64 [R]; top_ids: int32 [R, N] and top_values: float64 [R, N], the likeliest
    tokens, best first, the lowest id of equals first. Where a row has fewer finite logits than N,
    the rest is token 0 at -inf."""

    of_tokens: NDArray[np.float64]
    top_ids: Ints
    top_values: NDArray[np.float64]


@dataclass(frozen=True)
class Chosen:
    """tokens: int64 [R]. logprobs: None where no row asked; otherwise as wide as the widest row
    asked, and only what a row asked for is written."""

    tokens: NDArray[np.int64]
    logprobs: Logprobs | None


def choose(
    logits: Floats,
    limits: Limits,
    *,
    masks: Masks | None = None,
    banned: Ragged | None = None,
    penalties: Penalties | None = None,
    bias: Bias | None = None,
    report: Ints | None = None,
    block_maxima: Floats | None = None,
    threads: int = 1,
) -> Chosen:
    """One token for each row.

    logits: float32 [R, V], each row contiguous; while the call lasts penalties and bias are
    written into them, so they must be writable then, and afterwards they are what they were.
    banned: tokens forbidden besides the mask's, unless nothing else would be left. report: int32
    [R], how many of the likeliest tokens to report besides the chosen one, -1 for no report.
    block_maxima: float32 [R, ceil(V / 32)], no less than the largest of each 32 logits. threads:
    how many share the rows. Raises NativeUnavailable, TypeError and ValueError (a shape; a token
    outside the vocabulary).
    """
    rows, vocab = logits.shape
    arguments = _Arguments(rows)
    request = _Request(logits=arguments.logits(logits, block_maxima))
    request.temperature = arguments.column("temperature", limits.temperature, np.float32)
    request.top_k = arguments.column("top_k", limits.top_k, np.int32)
    request.top_p = arguments.column("top_p", limits.top_p, np.float32)
    request.min_p = arguments.column("min_p", limits.min_p, np.float32)
    request.uniforms = arguments.column("uniforms", limits.uniforms, np.float64)
    if masks is not None:
        request.mask_rows = arguments.column("masks.rows", masks.rows, np.int32)
        shape = (len(masks.words), num_blocks(vocab))
        request.masks = arguments.array("masks.words", masks.words, np.int32, shape)
        if rows and masks.rows.max() >= len(masks.words):
            raise ValueError(f"sample: row {masks.rows.max()} of {len(masks.words)} masks")
    if banned is not None:
        request.banned = arguments.ragged("banned", banned)
    if penalties is not None:
        request.prompt = arguments.ragged("penalties.prompt", penalties.prompt)
        request.output = arguments.ragged("penalties.output", penalties.output)
        for name in ("repetition", "frequency", "presence"):
            values = arguments.column(f"penalties.{name}", getattr(penalties, name), np.float32)
            setattr(request, name, values)
    if bias is not None:
        request.biased = arguments.ragged("bias.tokens", bias.tokens)
        shape = bias.tokens.ids.shape
        request.bias_values = arguments.array("bias.values", bias.values, np.float32, shape)
    if (penalties is not None or bias is not None) and not logits.flags.writeable:
        raise ValueError("sample: penalties and bias need logits that can be written")
    logprobs = None
    if report is not None and rows and report.max() >= 0:
        request.report = arguments.column("report", report, np.int32)
        logprobs = _empty_logprobs(rows, int(report.max()))
        request.reports = arguments.reports(logprobs)
    tokens = np.zeros(rows, np.int64)
    request.tokens = tokens.ctypes.data
    bad = _library().sapwood_choose(ctypes.byref(request), threads)
    if bad >= 0:
        raise ValueError(f"sample: row {bad} names a token outside the vocabulary of {vocab}")
    return Chosen(tokens, logprobs)


def token_logprobs(
    logits: Floats,
    tokens: NDArray[np.int64],
    top: int,
    *,
    block_maxima: Floats | None = None,
    threads: int = 1,
) -> Logprobs:
    """Log-probabilities of `tokens[i]` under row i, and of the `top` likeliest tokens, at most V.

    logits: float32 [R, V], each row contiguous, not changed; tokens: int64 [R].
    """
    rows, vocab = logits.shape
    arguments = _Arguments(rows)
    given = arguments.logits(logits, block_maxima)
    pointer = arguments.column("tokens", tokens, np.int64)
    if rows and not (0 <= tokens.min() and tokens.max() < vocab):
        raise ValueError(f"token_logprobs: a token outside the vocabulary of {vocab}")
    found = _empty_logprobs(rows, min(top, vocab))
    reports = arguments.reports(found)
    _library().sapwood_logprobs(
        ctypes.byref(given), pointer, min(top, vocab), ctypes.byref(reports), threads
    )
    return found


def uniforms(streams: NDArray[np.uint64], positions: NDArray[np.uint64]) -> NDArray[np.float64]:
    """The numbers of `sample.uniforms`. Both uint64 [R]; float64 [R]."""
    found = np.empty(len(streams), np.float64)
    arguments = _Arguments(len(streams))
    pointers = (
        arguments.column("streams", streams, np.uint64),
        arguments.column("positions", positions, np.uint64),
    )
    _library().sapwood_uniforms(*pointers, len(found), found.ctypes.data)
    return found


def num_blocks(vocab: int) -> int:
    return -(-vocab // BLOCK)


# --- the C interface: structures as in native.cpp ---


class _Logits(ctypes.Structure):
    _fields_ = [
        ("values", ctypes.c_void_p),
        ("maxima", ctypes.c_void_p),
        ("num_rows", ctypes.c_int64),
        ("vocab", ctypes.c_int64),
        ("stride", ctypes.c_int64),
        ("maxima_stride", ctypes.c_int64),
    ]


class _Ragged(ctypes.Structure):
    _fields_ = [("starts", ctypes.c_void_p), ("ids", ctypes.c_void_p)]


class _Reports(ctypes.Structure):
    _fields_ = [
        ("logprobs", ctypes.c_void_p),
        ("top_ids", ctypes.c_void_p),
        ("top_logprobs", ctypes.c_void_p),
        ("width", ctypes.c_int64),
    ]


def _pointers(names: str) -> list[tuple[str, type[Any]]]:
    return [(name, ctypes.c_void_p) for name in names.split()]


class _Request(ctypes.Structure):
    _fields_ = [
        ("logits", _Logits),
        *_pointers("temperature top_k top_p min_p uniforms masks mask_rows"),
        *((name, _Ragged) for name in ("banned", "prompt", "output", "biased")),
        *_pointers("repetition frequency presence bias_values report"),
        ("reports", _Reports),
        ("tokens", ctypes.c_void_p),
    ]


class _Arguments:
    """Arrays as pointers, each checked. The caller keeps the arrays."""

    def __init__(self, rows: int) -> None:
        self._rows = rows

    def array(self, name: str, values: NDArray[Any], dtype: type, shape: tuple[int, ...]) -> int:
        if values.dtype != dtype:
            raise TypeError(f"sample: {name} must be {np.dtype(dtype)}, got {values.dtype}")
        if values.shape != shape or not values.flags.c_contiguous:
            raise ValueError(f"sample: {name} must be contiguous {shape}, got {values.shape}")
        return values.ctypes.data

    def column(self, name: str, values: NDArray[Any], dtype: type) -> int:
        return self.array(name, values, dtype, (self._rows,))

    def ragged(self, name: str, lists: Ragged) -> _Ragged:
        starts, ids = lists.starts, lists.ids
        pointer = self.array(f"{name}.starts", starts, np.int64, (self._rows + 1,))
        if starts[0] != 0 or starts[-1] != len(ids) or (starts[1:] < starts[:-1]).any():
            raise ValueError(f"sample: {name}.starts do not divide {len(ids)} ids into rows")
        return _Ragged(pointer, self.array(f"{name}.ids", ids, np.int32, (len(ids),)))

    def logits(self, logits: Floats, block_maxima: Floats | None) -> _Logits:
        found = _Logits(num_rows=self._rows, vocab=logits.shape[1])
        found.values, found.stride = self._matrix("logits", logits, logits.shape[1])
        if block_maxima is not None:
            blocks = num_blocks(logits.shape[1])
            found.maxima, found.maxima_stride = self._matrix("block_maxima", block_maxima, blocks)
        return found

    def reports(self, logprobs: Logprobs) -> _Reports:
        top_ids, top_values = logprobs.top_ids.ctypes.data, logprobs.top_values.ctypes.data
        width = logprobs.top_ids.shape[1]
        return _Reports(logprobs.of_tokens.ctypes.data, top_ids, top_values, width)

    def _matrix(self, name: str, values: Floats, width: int) -> tuple[int, int]:
        """Pointer and distance of rows, in elements."""
        if values.dtype != np.float32:
            raise TypeError(f"sample: {name} must be float32, got {values.dtype}")
        size = values.itemsize
        has_gaps = values.size > 0 and width > 1 and values.strides[1] != size
        if values.shape != (self._rows, width) or not width or has_gaps:
            raise ValueError(
                f"sample: {name} must be ({self._rows}, {width}) with contiguous rows, "
                f"got {values.shape}"
            )
        return values.ctypes.data, values.strides[0] // size


def _empty_logprobs(rows: int, width: int) -> Logprobs:
    values = np.full((rows, width), -np.inf)
    return Logprobs(np.full(rows, np.nan), np.zeros((rows, width), np.int32), values)


@functools.cache
def _library() -> ctypes.CDLL:
    library = load("sample", [Path(__file__).with_name("native.cpp")])
    library.sapwood_choose.restype = ctypes.c_int64
    library.sapwood_choose.argtypes = [ctypes.c_void_p, ctypes.c_int32]
    library.sapwood_logprobs.restype = None
    library.sapwood_logprobs.argtypes = [
        *(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int32),
        *(ctypes.c_void_p, ctypes.c_int32),
    ]
    library.sapwood_uniforms.restype = None
    library.sapwood_uniforms.argtypes = [
        *(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_void_p),
    ]
    return library
