"""What calls in a program's source do: verbs of the language, methods of states, helpers.

Owns: the meaning of everything that can be called. A helper of the user's is read where it is
called, as if it stood there; whatever else takes a state takes it out of sight.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Final

from ...runtime.protocol import Ebnf, JsonSchema, Lark, Regex, StructuralTag
from . import graph as g
from .arguments import Arguments, Given, options, plain
from .expressions import Expressions
from .folding import PURE_METHODS, conversion, method
from .states import group_method, state_method
from .values import (
    Dotted,
    GroupRef,
    Helper,
    Index,
    Known,
    Many,
    Method,
    Opaque,
    ProgramRef,
    Said,
    Several,
    StateRef,
    Value,
    Zipped,
    as_text,
    is_known,
    name_of,
    said,
    unordered,
    volatile,
)
from .volatile import UNORDERED_METHODS, disorder, reason

Inline = Callable[[Expressions, Helper, Arguments], Value | None]
"""Reads a helper's body where it is called; None where it is too deep."""

_ROLES: Final = ("system", "user", "assistant")
# They look at a state or its branches, and do nothing else with it.
_HARMLESS: Final = frozenset(
    "print str repr len type isinstance id bool getattr hasattr setattr super".split()
)
_CONSTRAINTS: Final = {"Lark": Lark, "Ebnf": Ebnf, "Regex": Regex}


class CallReader:
    def __init__(self, inline: Inline) -> None:
        self._inline = inline

    def call(self, reader: Expressions, callee: Value, arguments: Arguments) -> Value:
        match callee:
            case Dotted() if callee.verb is not None:
                return self._verb(reader, callee, arguments)
            case Dotted(name) if name.startswith("builtins."):
                return self._builtin(reader, name.removeprefix("builtins."), arguments)
            case Dotted(name):
                return self._library(reader, name, arguments)
            case Method(StateRef(line), name):
                return state_method(reader, line, name, arguments)
            case Method(GroupRef(group), name):
                return group_method(reader, group, name, arguments)
            case Method(ProgramRef(name), how) if how in ("run", "run_batch", "arun"):
                return _program(reader, name, arguments)
            case Method(ProgramRef() as program, "bind" | "compile"):
                return program
            case ProgramRef(name):
                return _program(reader, name, arguments)
            case Method(owner, name):
                return self._method(reader, owner, name, arguments)
            case Helper():
                read = self._inline(reader, callee, arguments)
                return self._unknown(reader, arguments) if read is None else read
            case _:
                return self._unknown(reader, arguments, callee)

    # --- the language ----------------------------------------------------------------------------

    def _verb(self, reader: Expressions, callee: Dotted, arguments: Arguments) -> Value:
        verb, place = callee.verb or "", arguments.place
        if verb in ("gen", "gen_int", "gen_string", "select"):
            return Said((_asked(verb, arguments),))
        if verb in _ROLES:
            inner = arguments.get(0, "expr")
            body = () if inner is None else said(inner.value, inner.source, place).items
            return Said((g.Role(verb, body, place),))
        role, _, end = verb.rpartition("_")
        if role in _ROLES and end in ("begin", "end"):
            return Said(((g.RoleBegin if end == "begin" else g.RoleEnd)(role, place),))
        if verb in ("image", "video"):
            sources = [given.source for given in arguments.positional]
            return Said((g.Media(verb, ", ".join(sources), place),))
        if verb == "separate_reasoning":
            return _reasoning(arguments)
        constraint = _constraint(callee.name.split("."), arguments)
        return constraint or self._unknown(reader, arguments)

    # --- the user's code -------------------------------------------------------------------------

    def _builtin(self, reader: Expressions, name: str, arguments: Arguments) -> Value:
        values = tuple(given.value for given in arguments.positional)
        match name, values:
            case "range", _:
                return Index(arguments.source, reader.lines.frame)
            case "enumerate", (one, *_):
                return Zipped((Index(arguments.source, reader.lines.frame), one))
            case "zip", _:
                return Zipped(values)
            case "list" | "tuple" | "reversed" | "iter", (GroupRef() | Many() | Several() as one,):
                return one
            case "str", (one,):
                return Said(as_text(one, arguments.source, arguments.place))
            case "sorted", (one, *_):
                return Opaque(arguments.source, volatile(one))
            case "len" | "int" | "float" | "bool", (Known(plain_value),):
                converted = conversion(name, plain_value)
                if converted is not None:
                    return converted
        if name in _HARMLESS:
            why = reason(f"builtins.{name}", len(values))
            return Opaque(arguments.source, why or volatile(*values))
        return self._library(reader, f"builtins.{name}", arguments)

    def _library(self, reader: Expressions, name: str, arguments: Arguments) -> Value:
        values = arguments.values
        if name == "random.shuffle":
            _shuffle(reader, arguments)
        why = reason(name, len(values))
        mess = disorder(name) or unordered(*values)
        if name == "json.dumps" and values and not isinstance(values[0], Known):
            sorts = arguments.named.get("sort_keys")
            is_sorted = sorts is not None and not is_known(sorts.value, False)
            mess = None if is_sorted else mess or "the order of a dict's keys"
        made = self._unknown(reader, arguments)
        assert isinstance(made, Opaque)
        return replace(made, volatile=why or made.volatile, unordered=mess)

    def _method(self, reader: Expressions, owner: Value, name: str, arguments: Arguments) -> Value:
        values = arguments.values
        if isinstance(owner, Known) and name in PURE_METHODS:
            folded = method(owner, name, arguments)
            if folded is not None:
                return folded
        if name in ("append", "extend", "add", "insert") and isinstance(
            owner, Many | Several | Known
        ):
            return Opaque(arguments.source)  # `statements` sees to what the list holds now
        made = self._unknown(reader, arguments, owner)
        assert isinstance(made, Opaque)
        mess = UNORDERED_METHODS.get(name) or (
            unordered(owner, *values) if name != "sort" else None
        )
        return replace(made, unordered=mess)

    def _unknown(
        self, reader: Expressions, arguments: Arguments, callee: Value | None = None
    ) -> Value:
        for line in _lines_in(arguments.values):
            reader.lines.add(line, g.Escape(arguments.source, arguments.place))
        own = () if callee is None else (callee,)
        return Opaque(arguments.source, volatile(*own, *arguments.values))


def _lines_in(values: tuple[Value, ...]) -> list:  # type: ignore[type-arg]
    found = []
    for value in values:
        match value:
            case StateRef(line):
                found.append(line)
            case GroupRef(group):
                found += [group.line("each")]
            case Several(items) | Zipped(items):
                found += _lines_in(items)
            case Many(item):
                found += _lines_in((item,))
    return found


def _asked(verb: str, arguments: Arguments) -> g.Generate | g.Choose:
    given = arguments.of_verb(verb)
    named = given.get("name")
    name = None if named is None else name_of(named.value)
    choices = given.get("choices")
    if choices is not None and not is_known(choices.value, None) and verb in ("gen", "select"):
        known = plain(choices.value)
        texts: tuple[str, ...] | None = None
        if known is not None and isinstance(known.value, list | tuple):
            texts = tuple(known.value) if all(isinstance(t, str) for t in known.value) else None
        return g.Choose(name, texts, choices.source, arguments.place)
    if arguments.rest:
        given["**"] = Given(Opaque("..."), "...")
    return g.Generate(verb, name, options(given), arguments.place)


def _reasoning(arguments: Arguments) -> Value:
    inner = arguments.get(0, "expr")
    items = () if inner is None else said(inner.value, inner.source, arguments.place).items
    own = [
        g.Assign(g.VarName((*one.name.parts, "_reasoning_content")), arguments.place)
        for one in g.walk(items)
        if isinstance(one, g.Generate | g.Choose) and one.name is not None
    ]
    return Said((*items, *own))


def _constraint(path: list[str], arguments: Arguments) -> Value | None:
    """A constraint that is made of constants, as the runtime has it."""
    given = [plain(value) for value in arguments.values]
    if not given or None in given or arguments.rest:
        return None
    values = [known.value for known in given[: len(arguments.positional)] if known is not None]
    named = {
        name: known.value
        for name, known in zip(arguments.named, given[len(values) :], strict=True)
        if known is not None
    }
    try:
        if path[-1] in _CONSTRAINTS:
            return Known(_CONSTRAINTS[path[-1]](*values, **named))
        if path[-2:] == ["JsonSchema", "of"]:
            return Known(JsonSchema.of(*values, **named))
        if path[-2:] == ["StructuralTag", "of"]:
            return Known(StructuralTag.of(*values, **named))
    except (TypeError, ValueError):  # the run will tell
        return None
    return None


def _program(reader: Expressions, name: str, arguments: Arguments) -> Value:
    reader.lines.add(reader.lines.main, g.Call(name, arguments.place))
    return Opaque(arguments.source)


def _shuffle(reader: Expressions, arguments: Arguments) -> None:
    if arguments.positional and arguments.positional[0].source in reader.names:
        name = arguments.positional[0].source
        reader.names[name] = Opaque(name, "a random draw")
