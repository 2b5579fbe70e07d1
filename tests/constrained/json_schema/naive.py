"""Random schemas, values near them, and the judge: `jsonschema` with exact multiples.

Owns: what is drawn. The judge is told apart from the grammar by its text: `json.loads` reads it.
"""

import json
from fractions import Fraction

from hypothesis import strategies as st
from jsonschema import Draft202012Validator, ValidationError
from jsonschema.validators import extend

from sapwood.constrained.pushdown.machine import DEAD, Machine


def _multiple_of(validator, of, value, schema):
    if validator.is_type(value, "number") and Fraction(repr(value)) % Fraction(repr(of)):
        yield ValidationError(f"{value!r} is not a multiple of {of}")


Judge = extend(Draft202012Validator, {"multipleOf": _multiple_of})


def accepts(machine: Machine, text: str) -> bool:
    here = machine.start
    for byte in text.encode():
        if here == DEAD:
            return False
        machine.begin_work()
        here = machine.step(here, byte)
    return here != DEAD and machine.accepting(here)


def write(machine: Machine, rng, steps: int) -> str:
    """So many random bytes (sooner where it must end), then the shortest way to the end."""
    here, out = machine.start, bytearray()
    telling = [machine.byte_class.index(each) for each in range(machine.num_classes)]
    while not (machine.accepting(here) and (steps <= 0 or rng.random() < 0.2)):
        after = []
        for byte in telling:
            machine.begin_work()  # each is a call of its own
            after.append((byte, machine.step(here, byte)))
        machine.begin_work()
        alive = [(byte, to) for byte, to in after if to != DEAD]
        if not alive:
            assert machine.accepting(here), bytes(out)
            break
        # Common signs rather than letters that lead far away.
        likely = [pair for pair in alive if pair[0] in b'{}[]",: ab01.-\\u6']
        if steps > 0:
            byte, here = rng.choice(likely or alive)
        else:
            byte, here = min(alive, key=lambda pair: machine.shortest(pair[1]))
        out.append(byte)
        steps -= 1
    return out.decode()


NAMES = st.sampled_from(["a", "b", "ab"])
TEXTS = st.sampled_from(["", "a", "b", "ab", "aab", "é"])
NUMBERS = st.sampled_from([0, 1, 2, 3, -1, 0.5, 1.5, 6])
SCALARS = st.none() | st.booleans() | NUMBERS | TEXTS
KEYS = st.sampled_from(["a", "b", "ab", "c", "aa"])
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=5,
)
COUNTS = st.integers(0, 3)
PATTERNS = st.sampled_from(["^a", "b$", "^(ab?)*$", "a.", "^b"])
TYPES = st.sampled_from(["null", "boolean", "integer", "number", "string", "array", "object"])

_PLAIN = {
    "type": TYPES | st.lists(TYPES, min_size=1, max_size=3, unique=True),
    "enum": st.lists(SCALARS, min_size=1, max_size=3) | st.lists(VALUES, min_size=1, max_size=3),
    "const": SCALARS,
    "minimum": NUMBERS,
    "maximum": NUMBERS,
    "exclusiveMinimum": NUMBERS,
    "exclusiveMaximum": NUMBERS,
    "multipleOf": st.sampled_from([1, 2, 3, 0.5, 1.5]),
    "minLength": COUNTS,
    "maxLength": COUNTS,
    "pattern": PATTERNS,
    "minItems": COUNTS,
    "maxItems": COUNTS,
    "uniqueItems": st.booleans(),
    "minProperties": COUNTS,
    "maxProperties": COUNTS,
    "required": st.lists(NAMES, max_size=2, unique=True),
    "dependentRequired": st.dictionaries(
        NAMES, st.lists(NAMES, max_size=2, unique=True), max_size=2
    ),
    "$ref": st.just("#/$defs/d"),
}


def _nested(inner):
    some = st.lists(inner, min_size=1, max_size=3)
    return {
        "allOf": some,
        "anyOf": some,
        "oneOf": some,
        "not": inner,
        "if": inner,
        "then": inner,
        "else": inner,
        "items": inner,
        "prefixItems": some,
        "contains": inner,
        "minContains": COUNTS,
        "maxContains": COUNTS,
        "unevaluatedItems": inner,
        "properties": st.dictionaries(NAMES, inner, max_size=3),
        "patternProperties": st.dictionaries(PATTERNS, inner, max_size=2),
        "additionalProperties": inner,
        "propertyNames": inner,
        "dependentSchemas": st.dictionaries(NAMES, inner, max_size=2),
        "unevaluatedProperties": inner,
    }


def _some_of(keywords):
    """Up to four keywords."""
    return st.lists(st.sampled_from(sorted(keywords)), min_size=1, max_size=4, unique=True).flatmap(
        lambda names: st.fixed_dictionaries({name: keywords[name] for name in names})
    )


# Kinds of keywords that meet each other more often than chance would have it.
_TOGETHER = [
    ["type", "properties", "required", "additionalProperties", "patternProperties"],
    ["properties", "patternProperties", "propertyNames", "minProperties", "maxProperties"],
    ["type", "items", "prefixItems", "minItems", "maxItems", "uniqueItems"],
    ["contains", "minContains", "maxContains", "items", "prefixItems", "maxItems"],
    ["if", "then", "else", "type", "properties"],
    ["allOf", "anyOf", "unevaluatedProperties", "properties", "additionalProperties"],
    ["anyOf", "unevaluatedItems", "prefixItems", "items"],
    ["not", "oneOf", "properties", "additionalProperties"],
    ["oneOf"],
    ["minLength", "maxLength", "pattern", "not", "enum"],
    ["minimum", "maximum", "exclusiveMinimum", "multipleOf", "not", "type"],
    ["dependentRequired", "dependentSchemas", "properties", "required", "maxProperties"],
]


def _grown(inner):
    every = _PLAIN | _nested(inner)
    groups = [_some_of({name: every[name] for name in group}) for group in _TOGETHER]
    return st.one_of(_some_of(every), *groups)


_TYPED = st.builds(dict, type=TYPES)
_SMALL = st.booleans() | _TYPED | st.builds(dict, const=SCALARS)
_CLOSED = st.fixed_dictionaries(
    {"properties": st.dictionaries(NAMES, _SMALL, max_size=3), "additionalProperties": _SMALL},
    optional={
        "type": st.just("object"),
        "required": st.lists(NAMES, max_size=2, unique=True),
        "patternProperties": st.dictionaries(PATTERNS, _SMALL, max_size=1),
    },
)
_LEAVES = st.booleans() | _some_of(_PLAIN) | _TYPED | _CLOSED
# What is referred to: it does not refer to itself.
_DEFINED = st.booleans() | _some_of({k: v for k, v in _PLAIN.items() if k != "$ref"}) | _TYPED
_ROOTS = st.recursive(_LEAVES, _grown, max_leaves=5).filter(lambda s: isinstance(s, dict))
SCHEMAS = st.builds(lambda root, d: {**root, "$defs": {"d": d}}, _ROOTS, _DEFINED)


def dumped(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)
