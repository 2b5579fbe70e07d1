"""A GGUF file's header and where its tensors lie, over one memory map.

Owns: the layout of the header. Knows no architecture, no tokenizer and no quantisation arithmetic.
The `gguf` package names the tensor types and their block sizes; its reader is not used because it
keeps an array per string, which takes seconds on a vocabulary of ordinary size.
"""

import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

import numpy as np
import numpy.typing as npt
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

from .errors import DamagedModel, ModelNotFound, UnsupportedModel

_MAGIC: Final = b"GGUF"
_VERSIONS: Final = (2, 3)
_STRING, _ARRAY = 8, 9
_SCALARS: Final = {  # metadata type number -> struct code, little-endian
    0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i",
    6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d",
}  # fmt: skip

T = TypeVar("T", int, float, str, bool)


@dataclass(frozen=True)
class GgufTensor:
    """Where one tensor lies. `shape` is in row-major order: the last dimension is contiguous."""

    name: str
    type_name: str  # such as "Q4_1"
    shape: tuple[int, ...]
    offset: int  # bytes from the start of the file
    row_bytes: int  # bytes of one row of the last dimension
    num_bytes: int


class GgufFile:
    """An open GGUF file. Reading the header changes nothing; `raw` hands out views of the map.

    Raises ModelNotFound, DamagedModel (not GGUF, or cut off), UnsupportedModel (version, byte
    order, tensor type that the `gguf` package does not know).
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.closed = False
        self._map: npt.NDArray[np.uint8]
        try:
            # Copy-on-write: torch wants writable memory, and nothing written here reaches the file.
            self._map = np.memmap(path, dtype=np.uint8, mode="c")
        except FileNotFoundError as error:
            raise ModelNotFound(f"{path}: no such file") from error
        except ValueError as error:
            raise DamagedModel(f"{path}: the file is empty") from error
        header = _Header(path, self._map.data)
        self.metadata: dict[str, Any] = {}
        num_tensors = header.start()
        for _ in range(header.scalar("<Q")):
            key = header.string()
            self.metadata[key] = header.value(header.scalar("<I"))
        places = [header.tensor() for _ in range(num_tensors)]
        alignment = self.get("general.alignment", int, 32)
        if alignment <= 0 or alignment & (alignment - 1):
            raise DamagedModel(f"{path}: alignment {alignment} is not a power of two")
        data_start = (header.position + alignment - 1) & -alignment
        self.tensors = {
            name: self._place(name, number, shape, data_start + offset)
            for name, number, shape, offset in places
        }

    def get(self, key: str, kind: type[T], default: T | None = None) -> T:
        """The metadata value under `key`, as a `kind` (int, float, str or bool).

        Raises DamagedModel where it is absent and has no default, or is of another kind.
        """
        value: Any = self.metadata.get(key, default)
        if value is None:
            raise DamagedModel(f"{self.path}: the metadata key {key} is missing")
        if kind is float and type(value) is int:
            value = float(value)
        if type(value) is not kind:
            raise DamagedModel(f"{self.path}: {key} is {value!r:.80}, not {kind.__name__}")
        found: T = value
        return found

    def raw(self, name: str) -> npt.NDArray[np.uint8]:
        """The tensor's bytes as the file holds them: [rows, row_bytes], a view of the map."""
        if self.closed:
            raise ValueError(f"{self.path} is closed")
        place = self.tensors[name]
        return self._map[place.offset : place.offset + place.num_bytes].reshape(-1, place.row_bytes)

    def close(self) -> None:
        """Let go of the map; it ends when the last view of it does."""
        self.closed = True
        self._map = np.empty(0, np.uint8)

    def _place(self, name: str, number: int, shape: tuple[int, ...], offset: int) -> GgufTensor:
        try:
            kind = GGMLQuantizationType(number)
        except ValueError as error:
            raise UnsupportedModel(
                f"{self.path}: tensor {name} has the unknown type number {number}"
            ) from error
        block, block_bytes = GGML_QUANT_SIZES[kind]
        if shape[-1] % block:
            raise DamagedModel(
                f"{self.path}: tensor {name} has rows of {shape[-1]}, no multiple of "
                f"{kind.name}'s {block}"
            )
        row_bytes = shape[-1] // block * block_bytes
        num_bytes = math.prod(shape[:-1]) * row_bytes
        if offset + num_bytes > self._map.size:
            raise DamagedModel(
                f"{self.path}: tensor {name} ends at byte {offset + num_bytes}, "
                f"the file at {self._map.size}: it is cut off"
            )
        return GgufTensor(name, kind.name, shape, offset, row_bytes, num_bytes)


class _Header:
    """A cursor over the header. Every read is checked against the end of the file."""

    def __init__(self, path: Path, data: memoryview) -> None:
        self.path = path
        self.data = data
        self.position = 0

    def start(self) -> int:
        """Check magic and version; return the number of tensors."""
        if bytes(self._take(4)) != _MAGIC:
            raise DamagedModel(f"{self.path}: not a GGUF file")
        version = self.scalar("<I")
        if version not in _VERSIONS:
            raise UnsupportedModel(
                f"{self.path}: GGUF version {version} (a big-endian file shows a huge one); "
                f"known are {_VERSIONS}, little-endian"
            )
        return int(self.scalar("<Q"))

    def _take(self, size: int) -> memoryview:
        end = self.position + size
        if end > len(self.data):
            raise DamagedModel(f"{self.path}: cut off inside the header, at byte {len(self.data)}")
        part = self.data[self.position : end]
        self.position = end
        return part

    def scalar(self, code: str) -> Any:
        return struct.unpack(code, self._take(struct.calcsize(code)))[0]

    def string(self) -> str:
        start = self.position
        try:
            return str(self._take(self.scalar("<Q")), "utf-8")
        except UnicodeDecodeError as error:
            raise DamagedModel(f"{self.path}: the string at byte {start} is not UTF-8") from error

    def value(self, kind: int) -> Any:
        if kind == _STRING:
            return self.string()
        if kind == _ARRAY:
            return self._array()
        return self.scalar(self._code(kind))

    def _array(self) -> list[Any]:
        kind, length = self.scalar("<I"), self.scalar("<Q")
        if kind in (_STRING, _ARRAY):
            return [self.value(kind) for _ in range(length)]
        code = self._code(kind)
        packed = self._take(length * struct.calcsize(code))
        values: list[Any] = np.frombuffer(packed, code).tolist()
        return values

    def _code(self, kind: int) -> str:
        try:
            return _SCALARS[kind]
        except KeyError:
            raise DamagedModel(
                f"{self.path}: unknown metadata type {kind} before byte {self.position}"
            ) from None

    def tensor(self) -> tuple[str, int, tuple[int, ...], int]:
        """Name, type number, shape (row-major), offset into the data section."""
        name = self.string()
        sizes = [self.scalar("<Q") for _ in range(self.scalar("<I"))]
        if not sizes or 0 in sizes:
            raise DamagedModel(f"{self.path}: tensor {name} has the shape {sizes[::-1]}")
        return name, self.scalar("<I"), tuple(reversed(sizes)), self.scalar("<Q")
