"""What the language needs of constraints before any request: a trial, and bounds as regexes.

Owns: that face of `constrained`, and when its compiler is loaded. Knows no type and no engine.
"""

from decimal import Decimal

from .protocol import Constraint

Bound = tuple[Decimal, bool]
"""A limit and whether it is excluded."""


def try_constraint(constraint: Constraint) -> None:
    """Raises GrammarError (a ValueError) where it cannot be honoured or accepts no text at all.

    Milliseconds for what people write, two seconds at most."""
    from ..constrained.errors import GrammarError
    from ..constrained.limits import CompileLimits
    from ..constrained.lower import lower
    from ..constrained.pushdown.machine import DEAD, Machine

    if Machine(lower(constraint, CompileLimits())).start == DEAD:
        raise GrammarError("it accepts no text at all")


def bounded_integer(low: Bound | None, high: Bound | None) -> str:
    """A regex of the integers within the bounds; raises GrammarError where there are none."""
    from ..constrained.json_schema.bounds import bounded_integer

    return bounded_integer(low, high)


def bounded_decimal(low: Bound | None, high: Bound | None) -> str:
    """A regex of decimals within the bounds; raises GrammarError where none can be written."""
    from ..constrained.json_schema.bounds import bounded_number

    return bounded_number(low, high)
