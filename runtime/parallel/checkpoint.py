"""One rank's slice of a checkpoint, read as if it were a checkpoint of its own. Knows no torch."""

from pathlib import Path
from types import TracebackType
from typing import Final, Self

import numpy as np
import numpy.typing as npt

from ..models.dequantize import FORMATS, PLAIN, dequantize
from ..models.weights import Checkpoint
from .shard import Part, Shard

_HEAD: Final = "lm_head.weight"
_EMBEDDING: Final = "model.embed_tokens.weight"
_ITEM_BYTES: Final = {"F32": 4, "F16": 2, "BF16": 2}


class ShardedCheckpoint:
    """See `weights.Checkpoint`. Of memory-mapped files only the pages of the slice are read.

    Where the head is the embedding, a rank's rows of it are a tensor of their own. Where a slice of
    columns would cut a block of a quantised row, that tensor is handed out as
    float32.
    """

    def __init__(self, whole: Checkpoint, shard: Shard) -> None:
        self.path: Path = whole.path
        self.config = shard.config
        self._whole = whole
        self._shard = shard

    @classmethod
    def of(cls, whole: Checkpoint, rank: int, size: int) -> Self:
        """Raises InvalidRequest where the model cannot be divided so."""
        return cls(whole, Shard(whole.config, rank, size))

    def names(self) -> list[str]:
        return [*self._whole.names(), *([_HEAD] if self._is_tied else [])]

    @property
    def _is_tied(self) -> bool:
        return self._shard.whole.tie_embeddings

    def _source(self, name: str) -> str:
        """The tensor of the whole that this one is a slice of."""
        return _EMBEDDING if name == _HEAD and self._is_tied else name

    def shape(self, name: str) -> tuple[int, ...]:
        shape = self._whole.shape(self._source(name))
        part = self._shard.part(name, shape)
        if part is None:
            return shape
        columns = shape[1:] if part.columns is None else (part.columns,)
        return (part.rows, *columns)

    def storage(self, name: str) -> str:
        source = self._source(name)
        stored = self._whole.storage(source)
        part = self._shard.part(name, self._whole.shape(source))
        return stored if part is None or _cuts_no_block(part, stored) else "F32"

    def raw(self, name: str) -> npt.NDArray[np.uint8]:
        source = self._source(name)
        shape, stored = self._whole.shape(source), self._whole.storage(source)
        part = self._shard.part(name, shape)
        raw = self._whole.raw(source)
        if part is None:
            return raw
        if len(shape) == 1:  # a vector is one row of bytes
            return _rows(raw.reshape(shape[0], -1), part).reshape(1, -1)
        rows = _rows(raw.reshape(shape[0], -1), part)
        if part.columns is None:
            return rows
        if _cuts_no_block(part, stored):
            start, width = _bytes(part.first_column, stored), _bytes(part.columns, stored)
            return np.ascontiguousarray(rows[:, start : start + width])
        values = dequantize(rows, stored)
        values = values[:, part.first_column : part.first_column + part.columns]
        return np.ascontiguousarray(values).view(np.uint8)

    def close(self) -> None:
        self._whole.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def _rows(raw: npt.NDArray[np.uint8], part: Part) -> npt.NDArray[np.uint8]:
    """raw: [rows, row_bytes]. Zero bytes are zeros in every format."""
    if part.zeros:
        return np.zeros((part.rows, raw.shape[1]), np.uint8)
    rows = raw[part.first_row : part.first_row + part.rows]
    missing = part.rows - len(rows)
    return np.pad(rows, ((0, missing), (0, 0))) if missing else rows


def _cuts_no_block(part: Part, stored: str) -> bool:
    if part.columns is None or stored in PLAIN:
        return True
    size = FORMATS[stored][1]
    return part.first_column % size == 0 and part.columns % size == 0


def _bytes(columns: int, stored: str) -> int:
    """Of so many columns of one row."""
    if stored in PLAIN:
        return columns * _ITEM_BYTES[stored]
    block_bytes, block_size, _ = FORMATS[stored]
    return columns // block_size * block_bytes
