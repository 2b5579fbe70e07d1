"""Rules about what is asked of a model: limits of a gen, options of a choice, arguments' names."""

import difflib
import inspect
from collections.abc import Iterator
from typing import Final

from ... import api
from ...options import RUN_NAMES
from ...trace import graph as g
from ..findings import Found, Rule
from ..subject import Subject

_ENDS: Final = (
    *("max_tokens", "stop", "stop_regex", "stop_token_ids", "dtype", "regex", "json_schema"),
    *("constraint", "type", "**"),
)
_KNOWN: Final = frozenset(inspect.signature(api.gen).parameters)
_RUN_ENDS: Final = {"max_new_tokens", "max_tokens", "stop", "stop_regex", "stop_token_ids", "**"}
_SAYS: Final = (g.Constant, g.Argument, g.Variable, g.Computed, g.Generate, g.Choose)


def _unbounded(subject: Subject) -> Iterator[Found]:
    """Without `stop`, `max_tokens` or a constraint a model writes on, through the text that the
    program means to say next, until the default limit of 128 tokens cuts it anywhere. (As the last
    thing in an assistant's message it is fine: there the model ends its turn.)"""
    if subject.uses.options & _RUN_ENDS:
        return
    for gen in _open_gens(subject.graph.body, in_message=False):
        yield Found(gen.place, "this gen has neither stop nor max_tokens nor a constraint")


def _open_gens(block: g.Block, *, in_message: bool) -> Iterator[g.Generate]:
    for at, vertex in enumerate(block):
        if isinstance(vertex, g.Generate) and vertex.verb == "gen":
            is_last = not any(isinstance(one, _SAYS) for one in g.walk(block[at + 1 :]))
            # An argument that does not exist may have been meant as one of them.
            ends = any(one.name in _ENDS or one.name not in _KNOWN for one in vertex.options)
            if not ends and not (in_message and is_last):
                yield vertex
        inside = in_message or isinstance(vertex, g.Role | g.RoleBegin)
        if isinstance(vertex, g.RoleBegin):
            in_message = True
        elif isinstance(vertex, g.RoleEnd):
            in_message = False
        for inner in g.blocks(vertex):
            yield from _open_gens(inner, in_message=inside)


def _overlapping(subject: Subject) -> Iterator[Found]:
    """Where an option is the beginning of another, its likelihood holds that of the longer one, and
    a choice between them says little. The same holds of options that are equal, or that become the
    same tokens (looked at with --model). Let options begin differently, or number them."""
    for vertex in subject.graph.walk():
        if not isinstance(vertex, g.Choose) or vertex.choices is None:
            continue
        found = next(_overlaps(vertex.choices, subject), None)
        if found is not None:
            yield Found(vertex.place, found)


def _overlaps(choices: tuple[str, ...], subject: Subject) -> Iterator[str]:
    encode = subject.tokens.encode
    for at, one in enumerate(choices):
        for other in choices[at + 1 :]:
            short, long = sorted((one, other), key=len)
            if one == other:
                yield f"option {one!r} is given twice"
            elif long.startswith(short):
                yield f"option {short!r} is the beginning of option {long!r}"
            elif encode is not None and encode(one) == encode(other):
                yield f"options {one!r} and {other!r} become the same tokens"


def _unknown_option(subject: Subject) -> Iterator[Found]:
    """An argument that the verb does not have is a TypeError when the program comes to it."""
    for vertex in subject.graph.walk():
        if not isinstance(vertex, g.Generate):
            continue
        known = list(inspect.signature(getattr(api, vertex.verb)).parameters)
        for option in vertex.options:
            if option.name not in known and option.name != "**":
                near = difflib.get_close_matches(option.name, known, n=1)
                hint = f": did you mean {near[0]}?" if near else ""
                yield Found(vertex.place, f"{vertex.verb} has no argument {option.name!r}{hint}")


def _hidden_option(subject: Subject) -> Iterator[Found]:
    """A parameter with the name of one of run's options takes every value given by that name: the
    option itself cannot be set for this program. Give the parameter another name."""
    for parameter in subject.graph.parameters:
        if parameter.name in RUN_NAMES:
            yield Found(
                subject.graph.place,
                f"parameter {parameter.name!r} hides run's option of that name",
            )


RULES: Final = (
    Rule("SW003", "unbounded-gen", "warning", _unbounded),
    Rule("SW004", "overlapping-options", "warning", _overlapping),
    Rule("SW005", "unknown-argument", "error", _unknown_option),
    Rule("SW006", "hidden-option", "warning", _hidden_option),
)
