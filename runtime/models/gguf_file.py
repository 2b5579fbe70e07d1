"""A GGUF file's header and where its tensors lie, over one memory map.

Owns: the layout of the header, the tensor types and their block sizes. Knows no architecture, no
tokenizer and no quantisation arithmetic. The `gguf` package is not used: its reader keeps an array
per string, which takes seconds on a vocabulary of ordinary size.
"""

import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

import numpy as np
import numpy.typing as npt

from .errors import DamagedModel, ModelNotFound, UnsupportedModel

_MAGIC: Final = b"GGUF"
_VERSIONS: Final = (2, 3)
_STRING, _ARRAY = 8, 9
_SCALARS: Final = {  # metadata type number -> struct code, little-endian
    0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i",
    6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d",
}  # fmt: skip

TENSOR_TYPES: Final = {  # type number -> name, elements of a block, bytes of a block
    0: ("F32", 1, 4), 1: ("F16", 1, 2), 30: ("BF16", 1, 2), 28: ("F64", 1, 8),
    24: ("I8", 1, 1), 25: ("I16", 1, 2), 26: ("I32", 1, 4), 27: ("I64", 1, 8),
    2: ("Q4_0", 32, 18), 3: ("Q4_1", 32, 20), 6: ("Q5_0", 32, 22), 7: ("Q5_1", 32, 24),
    8: ("Q8_0", 32, 34), 9: ("Q8_1", 32, 40), 10: ("Q2_K", 256, 84), 11: ("Q3_K", 256, 110),
    12: ("Q4_K", 256, 144), 13: ("Q5_K", 256, 176), 14: ("Q6_K", 256, 210),
    15: ("Q8_K", 256, 292), 16: ("IQ2_XXS", 256, 66), 17: ("IQ2_XS", 256, 74),
    18: ("IQ3_XXS", 256, 98), 19: ("IQ1_S", 256, 50), 20: ("IQ4_NL", 32, 18),
    21: ("IQ3_S", 256, 110), 22: ("IQ2_S", 256, 82), 23: ("IQ4_XS", 256, 136),
    29: ("IQ1_M", 256, 56), 34: ("TQ1_0", 256, 54), 35: ("TQ2_0", 256, 66),
    39: ("MXFP4", 32, 17),
}  # fmt: skip
_LENGTH: Final = struct.Struct("<Q")  # in front of every string

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

    `with_strings` False leaves the arrays of strings out of `metadata`: the vocabulary, of no use
    to whoever reads weights, takes most of the time.
    Raises ModelNotFound, DamagedModel (not GGUF, or cut off), UnsupportedModel (version, byte
    order, a tensor type that is not in `TENSOR_TYPES`).
    """

    def __init__(self, path: Path, *, with_strings: bool = True) -> None:
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
        header = _Header(path, self._map.data, with_strings)
        self.metadata: dict[str, Any] = {}
        num_tensors = header.start()
        for _ in range(header.scalar("<Q")):
            key = header.string()
            value = header.value(header.scalar("<I"))
            if value is not None:
                self.metadata[key] = value
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
        if number not in TENSOR_TYPES:
            raise UnsupportedModel(
                f"{self.path}: tensor {name} has the unknown type number {number}"
            )
        type_name, block, block_bytes = TENSOR_TYPES[number]
        if shape[-1] % block:
            raise DamagedModel(
                f"{self.path}: tensor {name} has rows of {shape[-1]}, no multiple of "
                f"{type_name}'s {block}"
            )
        row_bytes = shape[-1] // block * block_bytes
        num_bytes = math.prod(shape[:-1]) * row_bytes
        if offset + num_bytes > self._map.size:
            raise DamagedModel(
                f"{self.path}: tensor {name} ends at byte {offset + num_bytes}, "
                f"the file at {self._map.size}: it is cut off"
            )
        return GgufTensor(name, type_name, shape, offset, row_bytes, num_bytes)


class _Header:
    """A cursor over the header. Every read is checked against the end of the file."""

    def __init__(self, path: Path, data: memoryview, with_strings: bool) -> None:
        self.path = path
        self.data = data
        self.with_strings = with_strings
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
        self._check_end(end)
        part = self.data[self.position : end]
        self.position = end
        return part

    def _check_end(self, end: int) -> None:
        if end > len(self.data):
            raise DamagedModel(f"{self.path}: cut off inside the header, at byte {len(self.data)}")

    def scalar(self, code: str) -> Any:
        return struct.unpack(code, self._take(struct.calcsize(code)))[0]

    def string(self) -> str:
        start = self.position
        try:
            return str(self._take(self.scalar("<Q")), "utf-8")
        except UnicodeDecodeError as error:
            raise DamagedModel(f"{self.path}: the string at byte {start} is not UTF-8") from error

    def value(self, kind: int) -> Any:
        """None only for an array of strings that was passed over."""
        if kind == _STRING:
            return self.string()
        if kind == _ARRAY:
            return self._array()
        return self.scalar(self._code(kind))

    def _array(self) -> list[Any] | None:
        kind, length = self.scalar("<I"), self.scalar("<Q")
        if kind == _STRING and not self.with_strings:
            self._pass_strings(length)
            return None
        if kind == _STRING:
            return self._strings(length)
        if kind == _ARRAY:
            return [self.value(kind) for _ in range(length)]
        code = self._code(kind)
        packed = self._take(length * struct.calcsize(code))
        values: list[Any] = np.frombuffer(packed, code).tolist()
        return values

    def _strings(self, number: int) -> list[str]:
        """As `string`, `number` times over, and several times faster: vocabularies have 100,000."""
        data, end, length_at = self.data, self.position, _LENGTH.unpack_from
        texts = []
        try:
            for _ in range(number):
                start = end + _LENGTH.size
                end = start + length_at(data, end)[0]
                texts.append(str(data[start:end], "utf-8"))
            self._check_end(end)
        except (struct.error, OverflowError, UnicodeDecodeError):
            return [self.string() for _ in range(number)]  # raises, at the string at fault
        self.position = end
        return texts

    def _pass_strings(self, number: int) -> None:
        data, end, length_at = self.data, self.position, _LENGTH.unpack_from
        try:
            for _ in range(number):
                end += _LENGTH.size + length_at(data, end)[0]
        except (struct.error, OverflowError):
            end = len(data) + 1
        self._check_end(end)
        self.position = end

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
