"""The benchmark's table of keywords, case by case."""

import json
from pathlib import Path

import pytest

import sapwood
from sapwood.constrained import CompileLimits, JsonSchema
from sapwood.constrained.lower import lower
from sapwood.constrained.pushdown.machine import DEAD, Machine

TABLE = Path(sapwood.__file__).parent / "benchmarks" / "constrained" / "keyword_cases.json"
GROUPS = {group["description"]: group for group in json.loads(TABLE.read_text())}


def accepts(machine: Machine, text: str) -> bool:
    here = machine.start
    for byte in text.encode():
        if here == DEAD:
            return False
        machine.begin_work()
        here = machine.step(here, byte)
    return here != DEAD and machine.accepting(here)


@pytest.mark.parametrize("name", GROUPS)
def test_what_is_valid_is_accepted_and_nothing_else(name):
    group = GROUPS[name]
    spec = JsonSchema.of(group["schema"], key_order="any", integer_fraction=True)
    machine = Machine(lower(spec, CompileLimits()))
    for case in group["tests"]:
        text = json.dumps(case["data"], ensure_ascii=False)
        assert accepts(machine, text) == case["valid"], case["description"]
