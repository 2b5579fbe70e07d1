"""A GGUF file as a checkpoint: tensors by their Hugging Face names and in that layout.

Owns: the two naming schemes and the order of rows that llama's converter changed.
"""

import re
from pathlib import Path
from types import TracebackType
from typing import Final

import numpy as np
import numpy.typing as npt

from .dequantize import FORMATS, PLAIN
from .errors import DamagedModel, UnsupportedModel
from .gguf_config import ROPE_FACTORS, read_config
from .gguf_file import GgufFile, GgufTensor

_OUTER: Final = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
_INNER: Final = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_BLOCK: Final = re.compile(r"blk\.(\d+)\.(\w+)\.(weight|bias)")


class GgufCheckpoint:
    """Tensors of one GGUF file; see `weights.Checkpoint`. Quantised bytes stay memory-mapped."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = GgufFile(path, with_strings=False)
        self.config = read_config(self._file)
        self._places: dict[str, GgufTensor] = {}
        for place in self._file.tensors.values():
            if place.name == ROPE_FACTORS:
                continue  # part of the config
            name = _hugging_face_name(place.name)
            if name is None:
                raise UnsupportedModel(
                    f"{path}: tensor {place.name} has no place in {self.config.architecture!r}"
                )
            if place.type_name not in FORMATS and place.type_name not in PLAIN:
                raise UnsupportedModel(
                    f"{path}: tensor {place.name} is quantized as {place.type_name}; "
                    f"supported are {', '.join([*PLAIN, *FORMATS])}"
                )
            self._places[name] = place

    def names(self) -> list[str]:
        return list(self._places)

    def shape(self, name: str) -> tuple[int, ...]:
        return self._place(name).shape

    def storage(self, name: str) -> str:
        return self._place(name).type_name

    def raw(self, name: str) -> npt.NDArray[np.uint8]:
        """See `weights.Checkpoint`. A view of the map for all but llama's q and k, whose rows the
        file holds in another order."""
        place = self._place(name)
        rows = self._file.raw(place.name)
        num_heads = self._interleaved_heads(name)
        if num_heads is None:
            return rows
        if len(place.shape) == 1:  # a bias: its elements are what the rows are elsewhere
            rows = rows.reshape(place.shape[0], -1)
        return rows[_halves_apart(place.shape[0], num_heads)].reshape(-1, place.row_bytes)

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> "GgufCheckpoint":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _place(self, name: str) -> GgufTensor:
        try:
            return self._places[name]
        except KeyError:
            raise DamagedModel(f"{self.path}: tensor {name} is missing") from None

    def _interleaved_heads(self, name: str) -> int | None:
        """How many heads' rows are interleaved in the file, or None where they are not."""
        if self.config.architecture != "llama":
            return None
        if ".q_proj." in name:
            return self.config.num_heads
        return self.config.num_kv_heads if ".k_proj." in name else None


def _hugging_face_name(name: str) -> str | None:
    if name in _OUTER:
        return _OUTER[name]
    match = _BLOCK.fullmatch(name)
    if match is None or match[2] not in _INNER:
        return None
    return f"model.layers.{match[1]}.{_INNER[match[2]]}.{match[3]}"


def _halves_apart(num_rows: int, num_heads: int) -> npt.NDArray[np.intp]:
    """Row order that puts each head's first elements of all rotation pairs before the second ones.

    llama.cpp rotates neighbours (0, 1), (2, 3), ...; Hugging Face rotates row i with row i + half.
    """
    return np.arange(num_rows).reshape(num_heads, -1, 2).swapaxes(1, 2).ravel()
