"""Rules about constraints: whether they can be met, and what stops an output under them."""

from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any, Final

from ....runtime.constraint_facts import ConstraintFacts, constraint_facts
from ....runtime.errors import InvalidRequest
from ....runtime.protocol import Constraint, JsonSchema, Regex, dtype_constraint
from ....runtime.stop_patterns import compile_stop_pattern
from ...trace import graph as g
from ..findings import Found, Rule
from ..subject import Subject

_KINDS: Final = ("regex", "json_schema", "dtype", "constraint")


@lru_cache(maxsize=256)
def _facts(constraint: Constraint) -> ConstraintFacts:
    return constraint_facts(constraint)


def _impossible(subject: Subject) -> Iterator[Found]:
    """A regex or schema that cannot be read, that no text satisfies, or that takes too long to
    compile is refused when the program runs. It is compiled here as an engine would, under the same
    limits."""
    for gen, option in _constrained(subject):
        try:
            constraint = _constraint(option)
        except ValueError as error:
            yield Found(gen.place, f"{option.name}: {error}")
            continue
        fault = None if constraint is None else _facts(constraint).fault
        if fault is not None:
            yield Found(gen.place, f"{option.name}: {fault.message}")
    for vertex in subject.graph.walk():
        if isinstance(vertex, g.Generate):
            for pattern in _texts(vertex.option("stop_regex")):
                try:
                    compile_stop_pattern(pattern)
                except InvalidRequest as error:
                    yield Found(vertex.place, str(error))


def _unreachable_stop(subject: Subject) -> Iterator[Found]:
    """Under a constraint a stop text ends the output only where the text before it is complete and
    the constraint lets the stop text follow. One that can nowhere follow never ends anything: let
    the constraint allow it, or leave it away."""
    for gen, option in _constrained(subject):
        try:
            constraint = _constraint(option)
        except ValueError:
            continue  # the rule above tells
        for text in _texts(gen.option("stop")):
            if constraint is not None and _facts(constraint).stops_at(text) is False:
                yield Found(gen.place, f"{option.name} lets stop text {text!r} follow nowhere")


def _texts(option: g.Option | None) -> list[str]:
    """Of an option that is a text or a list of texts; none where they are not known."""
    if option is None or not option.is_known:
        return []
    values = option.value if isinstance(option.value, list | tuple) else [option.value]
    return [text for text in values if isinstance(text, str) and text]


def _constrained(subject: Subject) -> Iterator[tuple[g.Generate, g.Option]]:
    """Each gen with a constraint that is known."""
    for vertex in subject.graph.walk():
        if isinstance(vertex, g.Generate):
            for name in _KINDS:
                option = vertex.option(name)
                if option is not None and option.is_known:
                    yield vertex, option
            if vertex.verb == "gen_int":
                yield vertex, g.Option("dtype", "int", True, "int")


def _constraint(option: g.Option) -> Constraint | None:
    """Raises ValueError where it is none."""
    value: Any = option.value
    match option.name:
        case "regex" if isinstance(value, str):
            pattern = Regex(value)
            pattern.check()
            return pattern
        case "json_schema" if isinstance(value, str | Mapping):
            return JsonSchema.of(value)
        case "dtype" if isinstance(value, str):
            return dtype_constraint(value)
    return value if isinstance(value, Constraint) else None


RULES: Final = (
    Rule("SW012", "impossible-constraint", "error", _impossible),
    Rule("SW013", "unreachable-stop", "warning", _unreachable_stop),
)
