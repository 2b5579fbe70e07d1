"""The table of keywords in docs/constrained.md: what each accepts and refuses, as our engine says.

    python benchmarks/constrained/keyword_table.py     # prints it

Owns: the choice of examples from keyword_cases.json. A test compares the table with the page.
"""

import json
from collections.abc import Iterator
from pathlib import Path

from sapwood.constrained import CompileLimits, JsonSchema
from sapwood.constrained.json_schema.cases import KEYWORDS
from sapwood.constrained.lower import lower
from sapwood.constrained.pushdown.machine import DEAD, Machine

CASES = Path(__file__).with_name("keyword_cases.json")
_LONGEST = 60


def table() -> str:
    lines = ["| keyword | schema | accepts | refuses |", "|---|---|---|---|", *_rows()]
    return "\n".join(lines)


def _rows() -> Iterator[str]:
    groups = [g for g in json.loads(CASES.read_text()) if isinstance(g["schema"], dict)]
    for keyword in sorted(KEYWORDS, key=str.lower):
        # First those that have the keyword at the top, then those that have it below.
        for group in sorted(groups, key=lambda g: keyword not in g["schema"]):
            schema = group["schema"]
            if f'"{keyword}"' not in json.dumps(schema):
                continue
            shown = {k: v for k, v in schema.items() if k != "$schema"}
            machine = _machine(schema)
            accepted = [t["data"] for t in group["tests"] if _accepts(machine, t["data"])]
            refused = [t["data"] for t in group["tests"] if not _accepts(machine, t["data"])]
            # Values of another type pass most keywords; the last ones tell more.
            if accepted and refused and len(json.dumps(shown)) <= 2 * _LONGEST:
                cells = [f"`{keyword}`", _code(shown), _code(_telling(accepted, refused[0]))]
                yield f"| {' | '.join([*cells, _code(refused[0])])} |"
                break


def _telling(accepted: list[object], refused: object) -> object:
    """An accepted value of the type of the refused one, if there is one."""
    alike = [value for value in accepted if type(value) is type(refused)]
    return (alike or accepted)[0]


def _machine(schema: object) -> Machine:
    spec = JsonSchema.of(schema, key_order="any", integer_fraction=True)  # type: ignore[arg-type]
    return Machine(lower(spec, CompileLimits(seconds=60)))


def _accepts(machine: Machine, value: object) -> bool:
    here = machine.start
    for byte in json.dumps(value, ensure_ascii=False).encode():
        if here == DEAD:
            break
        here = machine.step(here, byte)
    return here != DEAD and machine.accepting(here)


def _code(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False).replace("|", "\\|")
    return f"`{text}`" if len(text) <= 2 * _LONGEST else f"`{text[: 2 * _LONGEST]}…`"


if __name__ == "__main__":
    print(table())
