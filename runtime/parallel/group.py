"""What a model asks of the ranks beside it. Knows no processes and no model; `collectives` is the
group of several."""

from typing import Final, Protocol

import torch


class Group(Protocol):
    """The ranks that compute a model together. Every rank calls the same methods in the same order,
    with tensors of the same shape and dtype."""

    @property
    def rank(self) -> int: ...

    @property
    def size(self) -> int: ...

    def all_reduce(self, x: torch.Tensor) -> torch.Tensor:
        """The sum of all ranks' x, on every rank. May be x itself."""
        ...

    def all_gather(self, x: torch.Tensor, columns: int) -> torch.Tensor:
        """All ranks' x [R, C] side by side, as far as these columns: [R, columns]. May be x."""
        ...

    def broadcast(self, x: torch.Tensor) -> None:
        """Overwrite x with rank 0's."""
        ...


class Alone:
    """The group of a model that one process computes."""

    rank: Final = 0
    size: Final = 1

    def all_reduce(self, x: torch.Tensor) -> torch.Tensor:
        return x

    def all_gather(self, x: torch.Tensor, columns: int) -> torch.Tensor:
        return x

    def broadcast(self, x: torch.Tensor) -> None:
        pass


ALONE: Final = Alone()
