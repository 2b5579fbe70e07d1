"""Numbers between bounds as regexes, for whoever writes constraints of their own.

Owns: that face of `constrained`, and when it is loaded. Knows no type and no engine.
"""

from decimal import Decimal

Bound = tuple[Decimal, bool]
"""A limit and whether it is excluded."""


def bounded_integer(low: Bound | None, high: Bound | None) -> str:
    """The integers within the bounds; raises GrammarError where there are none."""
    from ..constrained.json_schema.bounds import bounded_integer

    return bounded_integer(low, high)


def bounded_decimal(low: Bound | None, high: Bound | None) -> str:
    """The decimals within the bounds; raises GrammarError where none can be written."""
    from ..constrained.json_schema.bounds import bounded_number

    return bounded_number(low, high)
