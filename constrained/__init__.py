"""From a constraint to the set of allowed next tokens; knows nothing of logits or batches.

The constraints and errors are plain and load at once; the compiler and numpy load at first use.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from .errors import GrammarError, LimitExceeded, Unsupported
from .limits import CompileLimits
from .spec import (
    Choice,
    Constraint,
    Ebnf,
    JsonSchema,
    Lark,
    Regex,
    StructuralTag,
    Union,
    dtype_constraint,
)

if TYPE_CHECKING:
    from .compiled import CompiledGrammar
    from .compiler import GrammarCompiler
    from .state import GrammarState, Masking, fill_masks
    from .vocabulary import Vocabulary

__all__ = [
    "Choice",
    "CompileLimits",
    "CompiledGrammar",
    "Constraint",
    "Ebnf",
    "GrammarCompiler",
    "GrammarError",
    "GrammarState",
    "JsonSchema",
    "Lark",
    "LimitExceeded",
    "Masking",
    "Regex",
    "StructuralTag",
    "Union",
    "Unsupported",
    "Vocabulary",
    "dtype_constraint",
    "fill_masks",
]

_LAZY = {
    "CompiledGrammar": "compiled",
    "GrammarCompiler": "compiler",
    "GrammarState": "state",
    "Masking": "state",
    "fill_masks": "state",
    "Vocabulary": "vocabulary",
}


def __getattr__(name: str) -> object:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{_LAZY[name]}", __name__), name)
    globals()[name] = value
    return value
