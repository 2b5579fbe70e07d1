"""A folder of safetensors files as a checkpoint: one file, or shards with an index.

Owns: which file holds which tensor.
"""

import json
from pathlib import Path
from types import TracebackType
from typing import Final

import numpy as np
import numpy.typing as npt

from .dequantize import PLAIN
from .errors import DamagedModel, ModelNotFound, UnsupportedModel
from .hf_config import read_config
from .safetensors_file import SafetensorsFile

_INDEX: Final = "model.safetensors.index.json"
_SINGLE: Final = "model.safetensors"


class SafetensorsCheckpoint:
    """Tensors of a folder in Hugging Face format; see `weights.Checkpoint`."""

    def __init__(self, folder: Path) -> None:
        self.path = folder
        self.config = read_config(folder)
        self._files: dict[str, SafetensorsFile] = {}  # tensor name -> the file that holds it
        for path, wanted in _shards(folder).items():
            self._add(path, wanted)
        for name in self._files:
            if (kind := self.storage(name)) not in PLAIN:
                raise UnsupportedModel(
                    f"{folder}: tensor {name} is stored as {kind}; supported are {', '.join(PLAIN)}"
                )

    def names(self) -> list[str]:
        return list(self._files)

    def shape(self, name: str) -> tuple[int, ...]:
        return self._file(name).tensors[name].shape

    def storage(self, name: str) -> str:
        return self._file(name).tensors[name].type_name

    def raw(self, name: str) -> npt.NDArray[np.uint8]:
        return self._file(name).raw(name)

    def close(self) -> None:
        for file in self._files.values():
            file.close()
        self._files.clear()

    def __enter__(self) -> "SafetensorsCheckpoint":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _add(self, path: Path, wanted: list[str] | None) -> None:
        try:
            file = SafetensorsFile(path)
        except FileNotFoundError as error:
            raise DamagedModel(f"{path}: the shard is missing") from error
        for name in file.tensors if wanted is None else wanted:
            if name not in file.tensors:
                raise DamagedModel(f"{path}: tensor {name} is missing, though the index names it")
            self._files[name] = file

    def _file(self, name: str) -> SafetensorsFile:
        try:
            return self._files[name]
        except KeyError:
            raise DamagedModel(f"{self.path}: tensor {name} is missing") from None


def _shards(folder: Path) -> dict[Path, list[str] | None]:
    """The files to open, each with the tensors to take from it (None: all)."""
    index = folder / _INDEX
    if not index.is_file():
        if not (folder / _SINGLE).is_file():
            raise ModelNotFound(f"{folder}: holds neither {_SINGLE} nor {_INDEX}")
        return {folder / _SINGLE: None}
    shards: dict[Path, list[str] | None] = {}
    try:
        weight_map = json.loads(index.read_text("utf-8"))["weight_map"]
        for name, file_name in weight_map.items():
            # The base name alone: an index must not reach outside its folder.
            names = shards.setdefault(folder / Path(file_name).name, [])
            assert names is not None
            names.append(name)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedModel(f"{index}: not an index of shards: {error!r}") from error
    return shards
