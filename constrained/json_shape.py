"""What a JSON schema allows, as a small frozen tree; knows neither schemas' syntax nor automata.

`json_check` makes it from a schema, refusing what it cannot say; `json_build` makes an automaton of
it. A `$ref` used twice is one shape object used twice.
"""

import json
from dataclasses import dataclass
from typing import Final, Literal

from .errors import Unsupported

JsonType = Literal["null", "boolean", "integer", "number", "string", "array", "object"]


@dataclass(frozen=True, eq=False)
class Leaf:
    """A value of one scalar type; `schema` is the JSON text that outlines-core lowers."""

    kind: JsonType
    schema: str


@dataclass(frozen=True, eq=False)
class Bounded:
    """A number between two bounds, given as a regex of its text."""

    kind: Literal["integer", "number"]
    regex: str


@dataclass(frozen=True, eq=False)
class Formatted:
    """A string whose content matches a regex of plain characters (dates, UUIDs)."""

    regex: str


@dataclass(frozen=True, eq=False)
class Matching:
    """A string in which `pattern` is found, of a bounded length in characters."""

    pattern: str
    min_length: int
    max_length: int | None
    pointer: str


@dataclass(frozen=True, eq=False)
class Values:
    """One of these values, each as its JSON text."""

    texts: tuple[str, ...]
    kinds: frozenset[JsonType]


@dataclass(frozen=True, eq=False)
class Anything:
    """Any value of these types, arrays and objects nested at most `depth` deep."""

    kinds: frozenset[JsonType]
    depth: int


@dataclass(frozen=True, eq=False)
class Array:
    """`prefix` items, then `items` (None: no more) so that the length is within the bounds."""

    prefix: tuple["Shape", ...]
    items: "Shape | None"
    min_items: int
    max_items: int | None


@dataclass(frozen=True, eq=False)
class Property:
    name: str
    value: "Shape"
    required: bool


@dataclass(frozen=True, eq=False)
class Object:
    """Exactly these properties, in this order, the optional ones present or not."""

    properties: tuple[Property, ...]


@dataclass(frozen=True, eq=False)
class Map:
    """Any number of properties of any names, all with such values."""

    values: "Shape"


@dataclass(frozen=True, eq=False)
class Union:
    """A value of any of these."""

    options: tuple["Shape", ...]


Shape = Leaf | Bounded | Formatted | Matching | Values | Anything | Array | Object | Map | Union


def types_of(value: object) -> frozenset[JsonType]:
    """The types of a value parsed from JSON: an integer is a number too, and so is 1.0."""
    if isinstance(value, bool):
        return frozenset(("boolean",))
    if isinstance(value, int) or (isinstance(value, float) and value.is_integer()):
        return frozenset(("integer", "number"))
    for python, kind in _PYTHON_TYPES:
        if isinstance(value, python):
            return frozenset((kind,))
    raise AssertionError(value)


_PYTHON_TYPES: Final[tuple[tuple[type, JsonType], ...]] = (
    (float, "number"),
    (str, "string"),
    (list, "array"),
    (dict, "object"),
    (type(None), "null"),
)


def kinds(shape: Shape) -> frozenset[JsonType]:
    """The JSON types that a value of `shape` may have; an integer counts as a number too."""
    if isinstance(shape, Leaf | Bounded):
        return frozenset((shape.kind, "number")) if shape.kind == "integer" else _one(shape.kind)
    if isinstance(shape, Formatted | Matching):
        return _one("string")
    if isinstance(shape, Array):
        return _one("array")
    if isinstance(shape, Object | Map):
        return _one("object")
    if isinstance(shape, Union):
        return frozenset().union(*map(kinds, shape.options))
    return shape.kinds


_INTEGER: Final = Leaf("integer", json.dumps({"type": "integer"}))


def of_types(shape: Shape, types: frozenset[JsonType]) -> Shape | None:
    """The values of `shape` that are of one of `types`; None where there are none.

    Raises Unsupported for bounded numbers where only integers are wanted.
    """
    wanted = types | {"integer"} if "number" in types else types
    if isinstance(shape, Union):
        kept = [narrowed for o in shape.options if (narrowed := of_types(o, types)) is not None]
        return Union(tuple(kept)) if kept else None
    if isinstance(shape, Anything):
        common = shape.kinds & wanted
        if "integer" in common and "number" not in common:  # not told apart within Anything
            others = common - {"integer"}
            rest = (Anything(others, shape.depth),) if others else ()
            return Union((*rest, _INTEGER))
        return Anything(common, shape.depth) if common else None
    if isinstance(shape, Values):
        texts = tuple(t for t in shape.texts if types_of(json.loads(t)) & types)
        of_texts = frozenset[JsonType]().union(*(types_of(json.loads(t)) for t in texts))
        return Values(texts, of_texts) if texts else None
    if isinstance(shape, Leaf | Bounded):
        if shape.kind == "number" and "number" not in types and "integer" in types:
            if isinstance(shape, Bounded):
                raise Unsupported("a number with bounds is not supported under the type integer")
            return _INTEGER
        return shape if shape.kind in wanted else None
    return shape if kinds(shape) & types else None


def _one(kind: JsonType) -> frozenset[JsonType]:
    return frozenset((kind,))


def are_disjoint(a: Shape, b: Shape) -> bool:
    """Whether it is certain that no value that `a` generates fits the schema behind `b`, nor the
    reverse: other types, other fixed values, or objects told apart by a fixed required property.
    """
    if isinstance(a, Union):
        return all(are_disjoint(option, b) for option in a.options)
    if isinstance(b, Union):
        return are_disjoint(b, a)
    if not kinds(a) & kinds(b):
        return True
    if isinstance(a, Values) and isinstance(b, Values):
        return not set(a.texts) & set(b.texts) and not _numeric(a) & _numeric(b)
    if isinstance(a, Object) and isinstance(b, Object):
        tags = {p.name: p.value for p in a.properties if p.required}
        return any(
            isinstance(p.value, Values)
            and isinstance(tags.get(p.name), Values)
            and are_disjoint(tags[p.name], p.value)
            for p in b.properties
            if p.required
        )
    return False


def _numeric(values: Values) -> frozenset[JsonType]:
    """Equal numbers may be spelled in two ways, so two sets with numbers may overlap."""
    return values.kinds & {"number"}
