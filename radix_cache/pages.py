"""PagePool: who has each page number: nobody (free), a request (owned), or the tree (cached).

Knows nothing of tokens. A page that is taken twice or given back twice fails here, at once.
"""

from collections.abc import Iterable, Sequence
from typing import Final

_FREE: Final = 0
_OWNED: Final = 1
_CACHED: Final = 2
_NAMES: Final = ("free", "owned", "cached")


class OutOfPages(Exception):
    """More pages were wanted than are free or evictable; nothing was allocated or evicted."""

    def __init__(self, wanted: int, available: int) -> None:
        super().__init__(f"{wanted} pages wanted, {available} free or evictable")
        self.wanted = wanted
        self.available = available


class PagePool:
    def __init__(self, num_pages: int) -> None:
        assert num_pages > 0, f"num_pages must be positive, got {num_pages}"
        self.num_pages = num_pages
        self._state = bytearray(num_pages)
        # A stack: the page given back last, likely still in a processor cache, is taken first.
        self._free = list(range(num_pages - 1, -1, -1))
        self._num_cached = 0

    @property
    def num_free(self) -> int:
        return len(self._free)

    @property
    def num_cached(self) -> int:
        return self._num_cached

    @property
    def num_owned(self) -> int:
        return self.num_pages - len(self._free) - self._num_cached

    def take(self, count: int) -> list[int]:
        """Free to owned: `count` pages, which must be free."""
        assert 0 <= count <= len(self._free), f"{count} pages of {len(self._free)} free ones"
        start = len(self._free) - count
        pages = self._free[start:]
        del self._free[start:]
        pages.reverse()
        self._move(pages, _FREE, _OWNED)
        return pages

    def free(self, pages: Sequence[int]) -> None:
        """Owned to free."""
        self._move(pages, _OWNED, _FREE)
        self._free.extend(pages)

    def adopt(self, pages: Sequence[int]) -> None:
        """Owned to cached: the tree has them now."""
        self._move(pages, _OWNED, _CACHED)
        self._num_cached += len(pages)

    def reclaim(self, pages: Sequence[int]) -> None:
        """Cached to free: the tree has let them go."""
        self._move(pages, _CACHED, _FREE)
        self._num_cached -= len(pages)
        self._free.extend(pages)

    def _move(self, pages: Iterable[int], source: int, target: int) -> None:
        state = self._state
        for page in pages:
            assert 0 <= page < self.num_pages, f"page {page} is not one of {self.num_pages}"
            assert state[page] == source, (
                f"page {page} is {_NAMES[state[page]]}; only a page that is {_NAMES[source]} "
                f"can become {_NAMES[target]}"
            )
            state[page] = target

    def check_integrity(self, cached: Iterable[int]) -> None:
        """Assert that the tree's pages are exactly `cached`, and each page in one state."""
        held = sorted(cached)
        assert held == [p for p, state in enumerate(self._state) if state == _CACHED]
        assert sorted(self._free) == [p for p, state in enumerate(self._state) if state == _FREE]
        assert self._num_cached == len(held)
        assert self.num_owned == self._state.count(_OWNED)
