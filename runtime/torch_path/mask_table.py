"""Masks kept on the device: a row that has been used before is named by a number, not copied again.

Owns: which place of the table holds which row. Knows no grammar; the sampler fills what is cold.
"""

from collections import OrderedDict
from collections.abc import Hashable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from .upload import upload


class MaskTable:
    """`num_rows` rows, least recently used out first. Rows that one step names, found and put
    together, may be as many as the table has.

    A row is overwritten on the stream that reads it, so steps under way are not disturbed.
    """

    def __init__(self, num_rows: int, num_words: int, device: torch.device) -> None:
        self.rows = torch.zeros((num_rows, num_words), dtype=torch.int32, device=device)
        """int32 [num_rows, num_words]."""
        self.num_copied = 0
        self._places: OrderedDict[Hashable, int] = OrderedDict()

    @property
    def num_rows(self) -> int:
        return len(self.rows)

    def find(self, key: Hashable) -> int | None:
        """Where a row is, which is used now; None: it is not here."""
        place = self._places.get(key)
        if place is not None:
            self._places.move_to_end(key)
        return place

    def put(self, keys: Sequence[Hashable], masks: NDArray[np.int32]) -> list[int]:
        """Copy rows that are not here, all at once; where they are now. masks: int32 [len(keys),
        num_words]. All that the step finds must have been found before."""
        places = []
        for key in keys:
            is_full = len(self._places) == self.num_rows
            place = self._places.popitem(last=False)[1] if is_full else len(self._places)
            self._places[key] = place
            places.append(place)
        index, rows = upload([np.array(places, np.int64), masks], self.rows.device)
        self.rows[index] = rows
        self.num_copied += len(places)
        return places
