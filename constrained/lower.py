"""From a constraint to its finished automaton: the pipeline, in one place; counted, no threads."""

from .automaton import Automaton, build_tables
from .determinize import determinize
from .errors import GrammarError, LimitExceeded, Unsupported
from .json_build import add_schema
from .limits import CompileLimits, Meter
from .minimize import minimize
from .nfa import FINAL, Nfa
from .regex import add_regex
from .spec import Choice, Constraint, JsonSchema, Regex


def lower(spec: Constraint, limits: CompileLimits) -> Automaton:
    """Compile `spec` here and now; raises GrammarError (LimitExceeded past a limit)."""
    try:
        meter = Meter(limits)
        nfa = Nfa(meter)
        dfa = determinize(nfa, _start(nfa, spec))
        if dfa.is_empty:
            raise GrammarError("it accepts no text at all")
        return build_tables(minimize(dfa, meter), meter)
    except GrammarError as error:
        kind = type(error) if isinstance(error, LimitExceeded | Unsupported) else GrammarError
        raise kind(f"{describe(spec)}: {error}") from error
    except RecursionError as error:
        raise GrammarError(f"{describe(spec)}: it is nested too deeply") from error
    except UnicodeEncodeError as error:
        raise GrammarError(f"{describe(spec)}: it holds half a surrogate pair") from error


def describe(spec: Constraint) -> str:
    """The constraint in a few words, for messages."""
    if isinstance(spec, Regex):
        return f"regex {_short(spec.pattern)}"
    if isinstance(spec, Choice):
        return f"choice of {len(spec.options)} options"
    return f"JSON schema {_short(spec.schema)}"


def _short(text: str) -> str:
    """As the user wrote it, backslashes too, but on one line and printable."""
    cut = text if len(text) <= 120 else text[:120] + "..."
    return "'" + "".join(c if c.isprintable() else repr(c)[1:-1] for c in cut) + "'"


def _start(nfa: Nfa, spec: Constraint) -> int:
    if isinstance(spec, Regex):
        return add_regex(nfa, spec.pattern, FINAL)
    if isinstance(spec, Choice):
        return nfa.one_of((option.encode() for option in spec.options), FINAL)
    assert isinstance(spec, JsonSchema), spec
    return add_schema(nfa, spec, FINAL)
