"""The pushdown machine in C++: the Python face of `pushdown.cpp`.

Owns: the library, and the lifetimes of what it hands out. The headers beside it own the parts:
`interner`, `program`, `collection` and `machine` (the Python modules of the same names, in C++),
`vocabulary` (a byte trie) and `grammar` (rows, the way to the end in tokens).
"""

import ctypes
import weakref
from array import array
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Final

import numpy as np

from ... import _native
from ..errors import LimitExceeded
from ..vocabulary import Vocabulary
from .machine import DEAD
from .program import Program
from .token_machine import Row

_FAILED: Final = -3
_ROOM: Final = 4096
NO_BUDGET: Final = -1

_INT: Final = ctypes.c_int
_POINTER: Final = ctypes.c_void_p
_SIGNATURES: Final[dict[str, tuple[object, list[object]]]] = {
    "error": (ctypes.c_char_p, []),
    "vocabulary_new": (_POINTER, [_POINTER, _POINTER, _INT, _POINTER, _INT]),
    "vocabulary_free": (None, [_POINTER]),
    "grammar_new": (_POINTER, [_POINTER, _POINTER, _POINTER, ctypes.c_double]),
    "grammar_free": (None, [_POINTER]),
    "grammar_start": (_INT, [_POINTER]),
    "grammar_size": (_INT, [_POINTER]),
    "grammar_bytes": (ctypes.c_int64, [_POINTER]),
    "grammar_row_number": (ctypes.c_int64, [_POINTER, _INT, _INT]),
    "grammar_step": (_INT, [_POINTER, _INT, ctypes.c_char_p, _INT]),
    "grammar_accept": (_INT, [_POINTER, _INT, _INT]),
    "grammar_accepting": (_INT, [_POINTER, _INT]),
    "grammar_is_end": (_INT, [_POINTER, _INT]),
    "grammar_needed": (_INT, [_POINTER, _INT]),
    "grammar_next_bytes": (_INT, [_POINTER, _INT, _POINTER]),
    "grammar_forced": (_INT, [_POINTER, _INT, _POINTER, _INT, _POINTER]),
    "grammar_crosses": (_INT, [_POINTER, _INT, ctypes.c_char_p, _INT, _INT]),
    "grammar_fill_beyond": (_INT, [_POINTER, _INT, ctypes.c_char_p, _INT, _INT, _POINTER]),
    "fill": (_INT, [_POINTER, _INT, _INT, _POINTER]),
    "fill_rows": (_INT, [_POINTER, _INT, _POINTER, ctypes.c_int64]),
}


@cache
def library() -> ctypes.CDLL:
    """Raises NativeUnavailable."""
    loaded = _native.load("pushdown", [Path(__file__).with_name("pushdown.cpp")])
    for name, (result, arguments) in _SIGNATURES.items():
        function = getattr(loaded, f"sapwood_{name}")
        function.restype, function.argtypes = result, arguments
    return loaded


_tries: "weakref.WeakKeyDictionary[Vocabulary, _Trie]" = weakref.WeakKeyDictionary()


class _Trie:
    """A vocabulary on the other side."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        texts = [text or b"" for text in vocabulary.token_bytes]
        begin = np.cumsum([0, *map(len, texts)], dtype=np.int64)
        ends = np.array(vocabulary.eos_ids, np.int32)
        self.handle = library().sapwood_vocabulary_new(
            b"".join(texts), begin.ctypes.data, len(texts), ends.ctypes.data, len(ends)
        )
        if not self.handle:
            raise last_error()
        # At the end of the process threads may still be at work here; then nothing is freed.
        weakref.finalize(self, library().sapwood_vocabulary_free, self.handle).atexit = False


def load_trie(vocabulary: Vocabulary) -> _Trie:
    """The vocabulary's, made once. Raises NativeUnavailable."""
    found = _tries.get(vocabulary)
    if found is None:
        found = _tries.setdefault(vocabulary, _Trie(vocabulary))
    return found


class NativeTokenMachine:
    """See `TokenMachine`."""

    def __init__(self, program: Program, vocabulary: Vocabulary, seconds: float = 60.0) -> None:
        self._library = library()
        self._trie = load_trie(vocabulary)
        arrays = program.arrays
        data = np.concatenate([array.reshape(-1) for array in arrays])
        sizes = np.array([array.size for array in arrays], np.int64)
        self.handle = self._library.sapwood_grammar_new(
            data.ctypes.data, sizes.ctypes.data, self._trie.handle, seconds
        )
        if not self.handle:
            raise last_error()
        weakref.finalize(self, self._library.sapwood_grammar_free, self.handle).atexit = False
        self._accept: Final = self._library.sapwood_grammar_accept
        self.start: Final = self._checked(self._library.sapwood_grammar_start(self.handle))

    @property
    def num_configurations(self) -> int:
        return self._checked(self._library.sapwood_grammar_size(self.handle))

    @property
    def num_bytes(self) -> int:
        found: int = self._library.sapwood_grammar_bytes(self.handle)
        return found

    def step(self, configuration: int, text: bytes) -> int:
        return self._checked(
            self._library.sapwood_grammar_step(self.handle, configuration, text, len(text))
        )

    def accept(self, configuration: int, token: int) -> int:
        reached: int = self._accept(self.handle, configuration, token)
        return reached if reached >= DEAD else self._checked(reached)

    def accepting(self, configuration: int) -> bool:
        return bool(
            self._checked(self._library.sapwood_grammar_accepting(self.handle, configuration))
        )

    def is_end(self, configuration: int) -> bool:
        return bool(self._checked(self._library.sapwood_grammar_is_end(self.handle, configuration)))

    def needed(self, configuration: int) -> int:
        return self._checked(self._library.sapwood_grammar_needed(self.handle, configuration))

    def next_bytes(self, configuration: int) -> list[int]:
        flags = np.empty(256, np.bool_)
        self._checked(
            self._library.sapwood_grammar_next_bytes(self.handle, configuration, flags.ctypes.data)
        )
        found: list[int] = np.flatnonzero(flags).tolist()
        return found

    def forced(self, configuration: int) -> tuple[bytes, int]:
        room, end = _ROOM, ctypes.c_int()
        while True:
            out = ctypes.create_string_buffer(room)
            length = self._checked(
                self._library.sapwood_grammar_forced(
                    self.handle, configuration, out, room, ctypes.byref(end)
                )
            )
            if length <= room:
                return out.raw[:length], end.value
            room = length

    def crosses(self, configuration: int, text: bytes, place: int) -> bool:
        return bool(
            self._checked(
                self._library.sapwood_grammar_crosses(
                    self.handle, configuration, text, len(text), place
                )
            )
        )

    def fill(self, configuration: int, budget: int | None, row: Row) -> None:
        self.filler(row)(configuration, budget)

    def filler(self, row: Row) -> Callable[[int, int | None], None]:
        call, handle, address = self._library.sapwood_fill, self.handle, row.ctypes.data

        def fill(configuration: int, budget: int | None) -> None:
            if call(handle, configuration, NO_BUDGET if budget is None else budget, address):
                raise last_error()

        return fill

    def row_number(self, configuration: int, budget: int | None) -> int:
        limit = NO_BUDGET if budget is None else budget
        found: int = self._library.sapwood_grammar_row_number(self.handle, configuration, limit)
        return found

    def fill_beyond(self, configuration: int, before: bytes, budget: int | None, row: Row) -> None:
        limit = NO_BUDGET if budget is None else budget
        self._checked(
            self._library.sapwood_grammar_fill_beyond(
                self.handle, configuration, before, len(before), limit, row.ctypes.data
            )
        )

    def _checked(self, result: int) -> int:
        if result == _FAILED:
            raise last_error()
        return result


def last_error() -> LimitExceeded:
    """Why this thread's last call failed."""
    return LimitExceeded(library().sapwood_error().decode())


def fill_rows(jobs: Sequence[int], rows: Row) -> int:
    """Many rows in one call. Returns how many were filled: at the first that fails it ends.

    jobs: four numbers each: a machine's handle, a configuration, a budget or NO_BUDGET, and the
    place of its row; rows: int32 [any, num_words], each row contiguous.
    """
    numbers = array("q", jobs)
    count = len(numbers) // 4
    done: int = library().sapwood_fill_rows(
        numbers.buffer_info()[0], count, rows.ctypes.data, rows.strides[0] // rows.itemsize
    )
    return done
