"""A safetensors file's header and where its tensors lie, over one memory map.

Owns: the layout of one file. Knows no architecture and no folder. The `safetensors` package is not
used: it hands out bfloat16 only through torch.
"""

import json
import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from .errors import DamagedModel

_SIZES: Final = {  # bytes of an element
    "BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1, "U16": 2, "I16": 2, "F16": 2,
    "BF16": 2, "U32": 4, "I32": 4, "F32": 4, "U64": 8, "I64": 8, "F64": 8,
}  # fmt: skip


@dataclass(frozen=True)
class SafetensorsTensor:
    """Where one tensor lies. `start` and `end`: bytes from the start of the file."""

    type_name: str  # such as "BF16"
    shape: tuple[int, ...]
    start: int
    end: int


class SafetensorsFile:
    """An open safetensors file. `raw` hands out views of the map.

    Raises FileNotFoundError, and DamagedModel where it is not a whole safetensors file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.closed = False
        self._map: npt.NDArray[np.uint8]
        try:
            # Copy-on-write: torch wants writable memory, and nothing written here reaches the file.
            self._map = np.memmap(path, dtype=np.uint8, mode="c")
            self.tensors = self._read_header()
        except FileNotFoundError:
            raise
        except (OSError, ValueError, KeyError, TypeError, AttributeError, struct.error) as error:
            reason = " ".join(str(error).split())
            raise DamagedModel(f"{path}: not a whole safetensors file: {reason}") from error

    def raw(self, name: str) -> npt.NDArray[np.uint8]:
        """The tensor's bytes as the file holds them: [rows, row_bytes], a view of the map."""
        if self.closed:
            raise ValueError(f"{self.path} is closed")
        place = self.tensors[name]
        rows = math.prod(place.shape[:-1])
        return self._map[place.start : place.end].reshape(rows, -1)

    def close(self) -> None:
        """Let go of the map; it ends when the last view of it does."""
        self.closed = True
        self._map = np.empty(0, np.uint8)

    def _read_header(self) -> dict[str, SafetensorsTensor]:
        (length,) = struct.unpack_from("<Q", self._map.data)
        data_start = struct.calcsize("<Q") + length
        if data_start > self._map.size:
            raise ValueError(f"the header ends at byte {data_start}, the file at {self._map.size}")
        header = json.loads(bytes(self._map[struct.calcsize("<Q") : data_start]))
        header.pop("__metadata__", None)
        return {name: self._place(name, entry, data_start) for name, entry in header.items()}

    def _place(self, name: str, entry: dict[str, Any], data_start: int) -> SafetensorsTensor:
        type_name, shape = entry["dtype"], tuple(entry["shape"])
        start, end = (data_start + offset for offset in entry["data_offsets"])
        if not data_start <= start <= end <= self._map.size:
            raise ValueError(f"tensor {name} ends at byte {end}, the file at {self._map.size}")
        # An element type of a size unknown here is refused by its name later on.
        if type_name in _SIZES and end - start != math.prod(shape) * _SIZES[type_name]:
            raise ValueError(f"tensor {name} has {end - start} bytes for {type_name} {shape}")
        return SafetensorsTensor(type_name, shape, start, end)
