"""Compiled grammars by constraint, kept within a budget of bytes, least recently used out first.

Owns: what is kept and what a refusal is remembered for. Compiles nothing. For any thread.
"""

import sys
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass, fields
from typing import Final

from .compiled import CompiledGrammar
from .errors import LimitExceeded
from .spec import Constraint

# A constraint that passed the limits is refused unseen for so long; not for ever, for a busy
# machine can be to blame.
_REFUSAL_SECONDS: Final = 60.0
_REFUSALS_SHARE: Final = 16  # of the budget, for the texts of what was refused


@dataclass(frozen=True)
class _Refusal:
    kind: type[LimitExceeded]
    message: str
    until: float
    num_bytes: int


class GrammarCache:
    """most_bytes: of all that is kept; what is in use is never dropped, so that it may take more;
    most: grammars, and refusals."""

    def __init__(self, most_bytes: int, most: int) -> None:
        self._most_bytes = most_bytes
        self._most = most
        self._grammars: OrderedDict[Constraint, CompiledGrammar] = OrderedDict()
        self._sizes: dict[Constraint, int] = {}  # of each as it was last asked
        self._total = 0  # of them all
        self._refusals: OrderedDict[Constraint, _Refusal] = OrderedDict()
        self._lock = threading.Lock()

    def find(self, spec: Constraint) -> CompiledGrammar | None:
        with self._lock:
            grammar = self._grammars.get(spec)
            if grammar is not None:
                self._grammars.move_to_end(spec)
            return grammar

    def refusal(self, spec: Constraint) -> LimitExceeded | None:
        """A new exception: one that is raised again and again would gather tracebacks."""
        with self._lock:
            known = self._refusals.get(spec)
        if known is None or time.monotonic() >= known.until:
            return None
        return known.kind(known.message)

    def keep(self, spec: Constraint, grammar: CompiledGrammar) -> None:
        size = _size(spec, grammar)
        with self._lock:
            self._refusals.pop(spec, None)
            self._grammars[spec] = grammar
            self._grammars.move_to_end(spec)
            self._note(spec, size)
            self._drop()

    def refuse(self, spec: Constraint, error: LimitExceeded) -> None:
        until = time.monotonic() + _REFUSAL_SECONDS
        with self._lock:
            self._refusals[spec] = _Refusal(type(error), str(error), until, spec_bytes(spec))
            self._refusals.move_to_end(spec)
            total = sum(refusal.num_bytes for refusal in self._refusals.values())
            while len(self._refusals) > self._most or total * _REFUSALS_SHARE > self._most_bytes:
                total -= self._refusals.popitem(last=False)[1].num_bytes

    def trim(self) -> None:
        """Drop what has not been used for longest, as far as the budget asks for it.

        Grammars grow while they are used: so this is to be called now and then, not by a thread
        that has no time, for each grammar is asked how large it is.
        """
        with self._lock:
            grammars = list(self._grammars.items())
        sizes = {spec: _size(spec, grammar) for spec, grammar in grammars}
        with self._lock:
            for spec, size in sizes.items():
                if spec in self._grammars:
                    self._note(spec, size)
            self._drop()

    def _note(self, spec: Constraint, size: int) -> None:
        self._total += size - self._sizes.get(spec, 0)
        self._sizes[spec] = size

    def _drop(self) -> None:
        """What is over the budget, by the sizes as they were last asked."""
        if self._total <= self._most_bytes and len(self._grammars) <= self._most:
            return
        for spec in list(self._grammars)[:-1]:  # the last was asked for just now
            if self._total <= self._most_bytes and len(self._grammars) <= self._most:
                return
            if not self._grammars[spec].is_in_use:
                del self._grammars[spec]
                self._total -= self._sizes.pop(spec)

    @property
    def num_bytes(self) -> int:
        with self._lock:
            grammars = list(self._grammars.items())
        return sum(_size(spec, grammar) for spec, grammar in grammars)


def _size(spec: Constraint, grammar: CompiledGrammar) -> int:
    return grammar.num_bytes + spec_bytes(spec)


def spec_bytes(spec: Constraint) -> int:
    """About how much memory the text of a constraint takes."""
    return sum(_value_bytes(getattr(spec, field.name)) for field in fields(spec))


def _value_bytes(value: object) -> int:
    if isinstance(value, tuple):
        return sys.getsizeof(value) + sum(map(_value_bytes, value))
    if isinstance(value, Constraint):
        return spec_bytes(value)
    return sys.getsizeof(value)
