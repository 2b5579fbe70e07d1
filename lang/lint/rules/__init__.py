"""All rules, in the order of their codes."""

from typing import Final

from . import asking, constraints, forks, roles, text, variables

RULES: Final = (
    *text.RULES,
    *asking.RULES,
    *variables.RULES,
    *constraints.RULES,
    *roles.RULES,
    *forks.RULES,
)
