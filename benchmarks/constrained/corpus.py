"""The schemas of the benchmark, each with documents that are valid and some that are not.

Owns: the shape of `schemas/*.json` (a list of {name, schema, valid, invalid} each) and of
`keyword_cases.json` (the shape of the JSON-Schema-Test-Suite), both as cases. Knows no engine. The
documents were checked by jsonschema (tests/benchmarks/test_constrained_corpus.py).
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

HERE: Final = Path(__file__).parent
KEYWORDS: Final = "keyword_cases"


@dataclass(frozen=True)
class Case:
    """One schema. `file`: the stem of the file that it comes from."""

    file: str
    name: str
    schema: Any
    valid: tuple[Any, ...]
    invalid: tuple[Any, ...]


def schema_files() -> list[str]:
    return sorted(path.stem for path in (HERE / "schemas").glob("*.json"))


def load(files: Iterable[str] | None = None) -> list[Case]:
    """The cases of these files; by default of all schemas and then of all keywords."""
    wanted = [*schema_files(), KEYWORDS] if files is None else list(files)
    return [case for file in wanted for case in _cases(file)]


def _cases(file: str) -> Iterator[Case]:
    if file == KEYWORDS:
        for group in keyword_groups():
            tests = group["tests"]
            valid = tuple(test["data"] for test in tests if test["valid"])
            invalid = tuple(test["data"] for test in tests if not test["valid"])
            yield Case(file, group["description"], group["schema"], valid, invalid)
        return
    for entry in json.loads((HERE / "schemas" / f"{file}.json").read_text()):
        yield Case(
            file, entry["name"], entry["schema"], tuple(entry["valid"]), tuple(entry["invalid"])
        )


def keyword_groups() -> list[dict[str, Any]]:
    groups: list[dict[str, Any]] = json.loads((HERE / f"{KEYWORDS}.json").read_text())
    return groups
