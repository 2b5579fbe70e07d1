"""The forms in which a model's matrices are kept: as floats, in small integers, in 8-bit floats.

Owns: which form a matrix gets, from which tensors. Knows no architecture and no product.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import torch

from ...kernels.fp8_linear import ALIGNMENT, Fp8Weight, to_fp8
from ...kernels.quant_weight import GROUP, Bits, QuantWeight, from_blocks, quantize, stack
from ..config import ComputeDtype
from .weights import Checkpoint

Matrix = torch.Tensor | QuantWeight | Fp8Weight
_STORED_BITS: Final[dict[str, Bits]] = {"Q8_0": 8, "Q4_0": 4, "Q4_1": 4}


class Tensors(Protocol):
    """Tensors by name, rounded once to a dtype."""

    def tensor(self, name: str, dtype: torch.dtype) -> torch.Tensor: ...


class Matrices(Protocol):
    """How matrices are kept."""

    def read(
        self,
        tensors: Tensors,
        names: Sequence[str],
        dtype: torch.dtype,
        device: torch.device | str,
    ) -> Matrix:
        """Matrices that read the same input, as one, stacked along their outputs. `dtype` is that
        of the input, and of what is kept as floats."""
        ...


@dataclass(frozen=True)
class Floats:
    """Every matrix in the model's dtype."""

    def read(
        self,
        tensors: Tensors,
        names: Sequence[str],
        dtype: torch.dtype,
        device: torch.device | str,
    ) -> torch.Tensor:
        parts = [tensors.tensor(name, dtype).to(device) for name in names]
        return parts[0] if len(parts) == 1 else torch.cat(parts)


FLOATS: Final = Floats()


@dataclass(frozen=True)
class Integers:
    """Groups of small integers. `bits` None: of matrices that the checkpoint stores so, and those
    alone; or else of all, a checkpoint's own numbers being kept where they have as many bits.
    `checkpoint` None: tensors that no file stores.

    Matrices whose rows are no whole groups stay floats, as those of different bits that belong
    together do where `bits` is None.
    """

    checkpoint: Checkpoint | None
    bits: Bits | None = None

    def read(
        self,
        tensors: Tensors,
        names: Sequence[str],
        dtype: torch.dtype,
        device: torch.device | str,
    ) -> Matrix:
        bits = self.bits or self._stored_bits(names)
        if bits is None:
            return FLOATS.read(tensors, names, dtype, device)
        parts = [self._part(tensors, name, bits, device) for name in names]
        whole = [part for part in parts if part is not None]
        return stack(whole) if whole else FLOATS.read(tensors, names, dtype, device)

    def _storage(self, name: str) -> str | None:
        return None if self.checkpoint is None else self.checkpoint.storage(name)

    def _stored_bits(self, names: Sequence[str]) -> Bits | None:
        found = {_STORED_BITS.get(self._storage(name) or "") for name in names}
        return found.pop() if len(found) == 1 else None

    def _part(
        self, tensors: Tensors, name: str, bits: Bits, device: torch.device | str
    ) -> QuantWeight | None:
        """None where its rows are no whole groups; parts that belong together have equal rows."""
        storage = self._storage(name)
        if self.checkpoint is None or storage is None or _STORED_BITS.get(storage) != bits:
            values = tensors.tensor(name, torch.float32)
            return None if values.shape[1] % GROUP else quantize(values.to(device), bits)
        rows = torch.from_numpy(self.checkpoint.raw(name)).to(device)
        return from_blocks(rows.view(self.checkpoint.shape(name)[0], -1), storage)


@dataclass(frozen=True)
class Float8:
    """The layers' matrices in e4m3, where their sizes allow it. The embedding and the head stay in
    the model's dtype: a head's rounding would go straight into the logits."""

    def read(
        self,
        tensors: Tensors,
        names: Sequence[str],
        dtype: torch.dtype,
        device: torch.device | str,
    ) -> Matrix:
        matrix = FLOATS.read(tensors, names, dtype, device)
        aligned = all(size % ALIGNMENT == 0 for size in matrix.shape)
        in_layers = all(name.startswith("model.layers.") for name in names)
        return to_fp8(matrix) if aligned and in_layers else matrix


def matrices_of(dtype: ComputeDtype, checkpoint: Checkpoint | None) -> Matrices:
    """The form of a dtype's matrices. `checkpoint`: where the tensors come from one."""
    forms: dict[ComputeDtype, Matrices] = {
        "int8": Integers(checkpoint, 8),
        "q4": Integers(checkpoint, 4),
        "stored": Integers(checkpoint),
        "fp8": Float8(),
    }
    return forms.get(dtype, FLOATS)
