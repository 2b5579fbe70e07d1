"""Random schemas: what their grammars accept and write, judged by `jsonschema`."""

import importlib.util
import json
import random
from pathlib import Path

from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from sapwood.constrained import CompileLimits, GrammarError, JsonSchema
from sapwood.constrained.lower import lower
from sapwood.constrained.pushdown.machine import DEAD, Machine

naive = importlib.util.module_from_spec(
    spec := importlib.util.spec_from_file_location("naive", Path(__file__).with_name("naive.py"))
)
spec.loader.exec_module(naive)

MANY = settings(deadline=None, suppress_health_check=list(HealthCheck))
WHITESPACE = {
    "spaced": {},
    "compact": {"separators": (",", ":")},
    "printed": {"indent": 1},
    "flexible": {"indent": 2},
}


def machine_of(schema: object, whitespace: str, key_order: str = "any") -> Machine:
    spec = JsonSchema.of(schema, whitespace=whitespace, key_order=key_order, integer_fraction=True)
    try:
        return Machine(lower(spec, CompileLimits()))
    except GrammarError as error:
        assert "#" in str(error)  # refused by name
        assume(False)
        raise


def puts_some_last(schema: object) -> bool:
    """Whether a property that breaks a schema may have to be the last: see `objects`."""
    text = json.dumps(schema)
    breaks = any(f'"{name}"' in text for name in ("not", "oneOf", "if", "contains"))
    return breaks and any(f'"{n}"' in text for n in ("additionalProperties", "patternProperties"))


@settings(MANY, max_examples=250)
@given(
    naive.SCHEMAS,
    st.lists(naive.VALUES, min_size=6, max_size=6),
    st.sampled_from(sorted(WHITESPACE)),
)
def test_a_value_is_accepted_where_it_is_valid(schema, values, whitespace):
    machine, judge = machine_of(schema, whitespace), naive.Judge(schema)
    for value in values:
        text = json.dumps(value, ensure_ascii=False, **WHITESPACE[whitespace])
        is_valid = judge.is_valid(value)
        if naive.accepts(machine, text) != is_valid:
            assert is_valid and puts_some_last(schema), text


@settings(MANY, max_examples=200)
@given(
    naive.SCHEMAS,
    st.integers(0, 2**32),
    st.sampled_from(sorted(WHITESPACE)),
    st.sampled_from(["schema", "any"]),
)
def test_whatever_is_written_is_valid(schema, seed, whitespace, key_order):
    machine, judge = machine_of(schema, whitespace, key_order), naive.Judge(schema)
    if machine.start == DEAD:
        return
    rng = random.Random(seed)
    for steps in (0, 8, 40):
        text = naive.write(machine, rng, steps)
        assert judge.is_valid(json.loads(text)), text
