"""From a constraint to the set of allowed next tokens; knows nothing of logits or batches.

The constraints and errors are plain and load at once; the compiler and its libraries (numpy,
interegular, outlines-core) load at first use.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from .errors import GrammarError, LimitExceeded, Unsupported
from .limits import CompileLimits
from .spec import Choice, Constraint, JsonSchema, Regex, dtype_constraint

if TYPE_CHECKING:
    from .compiled import CompiledGrammar
    from .compiler import GrammarCompiler
    from .state import GrammarState
    from .vocabulary import Vocabulary

__all__ = [
    "Choice",
    "CompileLimits",
    "CompiledGrammar",
    "Constraint",
    "GrammarCompiler",
    "GrammarError",
    "GrammarState",
    "JsonSchema",
    "LimitExceeded",
    "Regex",
    "Unsupported",
    "Vocabulary",
    "dtype_constraint",
]

_LAZY = {
    "CompiledGrammar": "compiled",
    "GrammarCompiler": "compiler",
    "GrammarState": "state",
    "Vocabulary": "vocabulary",
}


def __getattr__(name: str) -> object:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{_LAZY[name]}", __name__), name)
    globals()[name] = value
    return value
