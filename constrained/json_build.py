"""From the shape of a JSON schema to automaton parts; knows nothing of schema syntax.

outlines-core lowers the scalar types (and the lengths of strings) to regexes. What it cannot say
or gets wrong is built here: objects (its regex for optional properties is quadratic), arrays, fixed
values (its regex for 1,000 of them takes seconds), bounds (ignored there), patterns (pasted into
the string without JSON's escapes there), formats, and untyped values.

Whitespace is that of Python's `json.dumps`: one space after each ',' and ':' and nowhere else. It
is what models write on one line, it cannot run on, and it leaves every key and bracket forced.
"""

import json
from functools import lru_cache, singledispatchmethod
from importlib import import_module
from typing import Final

from .determinize import determinize
from .dfa import conjunction
from .errors import GrammarError
from .json_check import TYPES, check_schema
from .json_shape import (
    Anything,
    Array,
    Bounded,
    Formatted,
    JsonType,
    Leaf,
    Map,
    Matching,
    Object,
    Shape,
    Union,
    Values,
)
from .json_strings import ANY_CHARACTER, escaped_character
from .nfa import FINAL, Nfa
from .regex import add_regex, add_search
from .spec import JsonSchema

_SCALARS: Final[tuple[JsonType, ...]] = ("null", "boolean", "number", "string")


def add_schema(nfa: Nfa, spec: JsonSchema, then: int) -> int:
    """The state from which a JSON value that fits the schema leads to `then`."""
    return _Builder(nfa).add(check_schema(spec), then)


@lru_cache(maxsize=256)
def leaf_regex(schema: str) -> str:
    """The regex of a scalar type, by outlines-core."""
    build = import_module("outlines_core.json_schema").build_regex_from_schema
    return str(build(schema, ""))


class _Builder:
    def __init__(self, nfa: Nfa) -> None:
        self._nfa = nfa

    @singledispatchmethod
    def add(self, shape: Shape, then: int) -> int:
        """The state that reads `shape` and goes on to `then`."""
        raise AssertionError(shape)

    @add.register
    def _(self, shape: Leaf, then: int) -> int:
        return self._leaf(shape.schema, then)

    @add.register
    def _(self, shape: Bounded, then: int) -> int:
        return add_regex(self._nfa, shape.regex, then)

    @add.register
    def _(self, shape: Formatted, then: int) -> int:
        return add_regex(self._nfa, f'"{shape.regex}"', then)

    @add.register
    def _(self, shape: Matching, then: int) -> int:
        content = Nfa(self._nfa.meter)
        try:
            found = add_search(content, shape.pattern, escaped_character, ANY_CHARACTER)
            dfa = determinize(content, found)
        except GrammarError as error:
            raise type(error)(f"{shape.pointer}: {error}") from error
        if shape.min_length or shape.max_length is not None:
            length = Nfa(self._nfa.meter)
            bounds = determinize(length, _lengths(length, shape.min_length, shape.max_length))
            dfa = conjunction(dfa, bounds, self._nfa.meter)
        if dfa.is_empty:
            raise GrammarError(f"{shape.pointer}: no string of an allowed length matches")
        quote = self._nfa.text(b'"', then)
        return self._nfa.text(b'"', self._nfa.embed(dfa, quote))

    @add.register
    def _(self, shape: Values, then: int) -> int:
        return self._nfa.one_of((text.encode() for text in shape.texts), then)

    @add.register
    def _(self, shape: Union, then: int) -> int:
        return self._nfa.either([self.add(option, then) for option in shape.options])

    @add.register
    def _(self, shape: Object, then: int) -> int:
        """Two rows of states, before and after the first property; values are shared by both."""
        empty = rest = self._nfa.text(b"}", then)
        for item in reversed(shape.properties):
            value = self.add(item.value, rest)
            here = self._nfa.text(f"{json.dumps(item.name, ensure_ascii=False)}: ".encode(), value)
            more = self._nfa.text(b", ", here)
            empty = here if item.required else self._nfa.either([here, empty])
            rest = more if item.required else self._nfa.either([more, rest])
        return self._nfa.text(b"{", empty)

    @add.register
    def _(self, shape: Map, then: int) -> int:
        after = self._nfa.loop()
        pair = self._leaf(_STRING, self._nfa.text(b": ", self.add(shape.values, after)))
        close = self._nfa.text(b"}", then)
        self._nfa.close_loop(after, self._nfa.text(b", ", pair), close)
        return self._nfa.text(b"{", self._nfa.either([pair, close]))

    @add.register
    def _(self, shape: Array, then: int) -> int:
        """After each number of items: one more, or the end where enough have come."""
        close = after = self._nfa.text(b"]", then)
        last, begin = len(shape.prefix), -1
        if shape.items is not None and shape.max_items is not None:
            last = shape.max_items
        elif shape.items is not None:
            last = max(shape.min_items, len(shape.prefix), 1)
            after = self._nfa.loop()
            begin = self.add(shape.items, after)
            self._nfa.close_loop(after, self._nfa.text(b", ", begin), close)
        for index in reversed(range(last)):
            value = shape.prefix[index] if index < len(shape.prefix) else shape.items
            if index + 1 < last or index < len(shape.prefix) or begin < 0:
                begin = self.add(value, after)
            step = self._nfa.text(b", ", begin) if index else begin
            after = self._nfa.either([step, close]) if index >= shape.min_items else step
        return self._nfa.text(b"[", after)

    @add.register
    def _(self, shape: Anything, then: int) -> int:
        options = [self._leaf(_leaf_schema(k), then) for k in _SCALARS if k in shape.kinds]
        if shape.depth:
            inner = Anything(frozenset(TYPES), shape.depth - 1)
            if "array" in shape.kinds:
                options.append(self.add(Array((), inner, 0, None), then))
            if "object" in shape.kinds:
                options.append(self.add(Map(inner), then))
        return self._nfa.either(options)

    def _leaf(self, schema: str, then: int) -> int:
        return add_regex(self._nfa, leaf_regex(schema), then)


def _leaf_schema(kind: JsonType) -> str:
    return json.dumps({"type": kind})


_STRING: Final = _leaf_schema("string")


def _lengths(nfa: Nfa, least: int, most: int | None) -> int:
    """Between `least` and `most` characters of a JSON string, up to FINAL."""
    after = FINAL
    if most is None:
        after = nfa.loop()
        nfa.close_loop(after, escaped_character(nfa, ANY_CHARACTER, after), FINAL)
    for _ in range((most or least) - least):
        after = nfa.either([escaped_character(nfa, ANY_CHARACTER, after), FINAL])
    for _ in range(least):
        after = escaped_character(nfa, ANY_CHARACTER, after)
    return after
