"""From a constraint of `spec` to its rule, in one place."""

from collections.abc import Callable

from ..pushdown.builder import FINAL, Builder
from ..spec import (
    Constraint,
    Ebnf,
    GrammarConstraint,
    JsonSchema,
    Lark,
    Regex,
    StructuralTag,
    Union,
)
from . import formats, gbnf, lark, tags
from .rules import RulesLowering
from .tag_lowering import TagLowering
from .tree import Grammar

AddConstraint = Callable[[Builder, Constraint], int]
"""Adds the rule of any constraint, those of this package too; passed in, for it knows us."""


def add_grammar(builder: Builder, spec: GrammarConstraint, add_constraint: AddConstraint) -> int:
    """The rule of the texts that satisfy a constraint.

    Raises GrammarError, with line and column or the path of what is wrong.
    """

    def add_grammar_of(grammar: Grammar) -> int:
        def add_schema(schema: str) -> int:
            return add_constraint(builder, JsonSchema.of(schema))

        return RulesLowering(builder, grammar, add_schema).lower()

    def add_embedded(constraint: JsonSchema | Regex | formats.Ebnf) -> int:
        if isinstance(constraint, formats.Ebnf):
            return add_grammar_of(gbnf.parse(constraint.grammar))
        return add_constraint(builder, constraint)

    match spec:
        case Ebnf(text):
            return add_grammar_of(gbnf.parse(text))
        case Lark(text):
            return add_grammar_of(lark.parse(text))
        case StructuralTag(text):
            return TagLowering(builder, add_embedded).lower(tags.parse(text))
        case Union(options):
            rules = dict.fromkeys(add_constraint(builder, option) for option in options)
            return builder.rule(builder.either(builder.call(rule, FINAL) for rule in rules))
