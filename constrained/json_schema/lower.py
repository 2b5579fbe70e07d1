"""The way from a schema to a rule, in one place."""

from ..pushdown.builder import Builder
from ..spec import JsonSchema, parse_json
from .cases import Cases
from .constraints import term
from .document import Document
from .emit import Emitter
from .evaluate import Evaluator
from .spacing import Spacing
from .strings import matches


def add_schema(builder: Builder, spec: JsonSchema) -> int:
    """The rule of the JSON texts that fit a schema.

    Raises Unsupported or GrammarError with the JSON pointer of what is wrong.
    """
    document = Document(parse_json(spec.schema))
    evaluator = Evaluator(document, matches)
    cases = Cases(document, evaluator, builder.meter.check_time)
    spacing = Spacing(builder, spec.whitespace, integer_fraction=spec.integer_fraction)
    emitter = Emitter(
        builder,
        cases,
        evaluator,
        spacing,
        ordered=spec.key_order == "schema",
        integer_fraction=spec.integer_fraction,
        open_objects=spec.open_objects,
    )
    rule = emitter.rule(term(document.root))
    emitter.finish()
    return rule
