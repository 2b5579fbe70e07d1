"""From a constraint to the program of its machine: the pipeline, in one place; no threads."""

from collections.abc import Iterator
from contextlib import contextmanager

from .errors import GrammarError, LimitExceeded, Unsupported
from .grammars.lower import add_grammar
from .json_schema.lower import add_schema
from .limits import CompileLimits, Meter
from .pushdown.builder import FINAL, Builder
from .pushdown.program import Program, finish
from .regexes.lower import add_regex
from .spec import Choice, Constraint, Ebnf, JsonSchema, Lark, Regex, StructuralTag, Union


def lower(spec: Constraint, limits: CompileLimits) -> Program:
    """Compile `spec` here and now; raises GrammarError (LimitExceeded past a limit)."""
    with described(spec):
        builder = Builder(Meter(limits))
        return finish(builder, _rule(builder, spec))


@contextmanager
def described(spec: Constraint) -> Iterator[None]:
    """Names the constraint in the error that goes wrong with it; all are GrammarErrors after."""
    try:
        yield
    except GrammarError as error:
        kind = type(error) if isinstance(error, LimitExceeded | Unsupported) else GrammarError
        raise kind(f"{describe(spec)}: {error}") from error
    except RecursionError as error:
        raise GrammarError(f"{describe(spec)}: it is nested too deeply") from error
    except UnicodeEncodeError as error:
        raise GrammarError(f"{describe(spec)}: it holds half a surrogate pair") from error
    except MemoryError as error:
        raise LimitExceeded(f"{describe(spec)}: there is not enough memory") from error


def _rule(builder: Builder, spec: Constraint) -> int:
    match spec:
        case Regex(pattern):
            return builder.rule(add_regex(builder, pattern, FINAL))
        case Choice(options):
            return builder.rule(builder.one_of((option.encode() for option in options), FINAL))
        case JsonSchema():
            return add_schema(builder, spec)
        case Ebnf() | Lark() | StructuralTag() | Union():
            return add_grammar(builder, spec, _rule)


def describe(spec: Constraint) -> str:
    """The constraint in a few words, for messages."""
    if isinstance(spec, Regex):
        return f"regex {_short(spec.pattern)}"
    if isinstance(spec, Choice):
        return f"choice of {len(spec.options)} options"
    if isinstance(spec, JsonSchema):
        return f"JSON schema {_short(spec.schema)}"
    if isinstance(spec, Union):
        return f"union of {len(spec.options)} constraints"
    kinds = {Ebnf: "EBNF grammar", Lark: "Lark grammar", StructuralTag: "structural tag"}
    return f"{kinds[type(spec)]} {_short(spec.text)}"


def _short(text: str) -> str:
    """As the user wrote it, backslashes too, but on one line and printable."""
    cut = text if len(text) <= 120 else text[:120] + "..."
    return "'" + "".join(c if c.isprintable() else repr(c)[1:-1] for c in cut) + "'"
