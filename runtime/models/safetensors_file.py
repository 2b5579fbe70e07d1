"""A folder of safetensors files as a checkpoint: one file, or shards with an index.

Owns: which file holds which tensor. The files are memory-mapped; a tensor asked for in the dtype it
is stored in is a view of the map.
"""

import contextlib
import json
from pathlib import Path
from types import TracebackType
from typing import Any, Final

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from .errors import DamagedModel, ModelNotFound, UnsupportedModel
from .hf_config import read_config

_INDEX: Final = "model.safetensors.index.json"
_SINGLE: Final = "model.safetensors"
_PLAIN: Final = ("F32", "F16", "BF16")


class SafetensorsCheckpoint:
    """Tensors of a folder in Hugging Face format; see `weights.Checkpoint`."""

    def __init__(self, folder: Path) -> None:
        self.path = folder
        self.config = read_config(folder)
        self._open = contextlib.ExitStack()
        self._files: dict[str, Any] = {}  # tensor name -> the open file that holds it
        try:
            for path, wanted in _shards(folder).items():
                self._add(path, wanted)
            for name in self._files:
                if (kind := self.storage(name)) not in _PLAIN:
                    raise UnsupportedModel(
                        f"{folder}: tensor {name} is stored as {kind}; "
                        f"supported are {', '.join(_PLAIN)}"
                    )
        except BaseException:
            self._open.close()
            raise

    def names(self) -> list[str]:
        return list(self._files)

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._slice(name).get_shape())

    def storage(self, name: str) -> str:
        return str(self._slice(name).get_dtype())

    def raw(self, name: str) -> Tensor:
        """The stored bytes, [rows, row_bytes] uint8, a view of the map."""
        tensor: Tensor = self._file(name).get_tensor(name)
        return tensor.view(-1, tensor.shape[-1]).view(torch.uint8)

    def tensor(self, name: str, dtype: torch.dtype) -> Tensor:
        tensor: Tensor = self._file(name).get_tensor(name)
        return tensor.to(dtype)

    def close(self) -> None:
        self._open.close()
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
            file = self._open.enter_context(safe_open(path, framework="pt"))
        except FileNotFoundError as error:
            raise DamagedModel(f"{path}: the shard is missing") from error
        except (SafetensorError, OSError) as error:
            raise DamagedModel(f"{path}: not a whole safetensors file: {error}") from error
        held = set(file.keys())
        for name in held if wanted is None else wanted:
            if name not in held:
                raise DamagedModel(f"{path}: tensor {name} is missing, though the index names it")
            self._files[name] = file

    def _file(self, name: str) -> Any:
        try:
            return self._files[name]
        except KeyError:
            raise DamagedModel(f"{self.path}: tensor {name} is missing") from None

    def _slice(self, name: str) -> Any:
        return self._file(name).get_slice(name)


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
