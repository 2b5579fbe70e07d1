"""Findings as SARIF 2.1.0 (OASIS), which code hosts show beside the lines."""

import json
from collections.abc import Sequence
from pathlib import PurePath
from typing import Any, Final

from .findings import Finding, Rule

_SCHEMA: Final = "https://json.schemastore.org/sarif-2.1.0.json"
_HELP: Final = "docs/lint.md"


def as_sarif(findings: Sequence[Finding], rules: Sequence[Rule], version: str) -> str:
    """rules: those that were asked."""
    driver = {
        "name": "sapwood lint",
        "version": version,
        "rules": [_rule(rule) for rule in rules],
    }
    numbers = {rule.code: at for at, rule in enumerate(rules)}
    results = [_result(finding, numbers[finding.code]) for finding in findings]
    run = {"tool": {"driver": driver}, "columnKind": "unicodeCodePoints", "results": results}
    return json.dumps({"$schema": _SCHEMA, "version": "2.1.0", "runs": [run]}, indent=2) + "\n"


def _rule(rule: Rule) -> dict[str, Any]:
    return {
        "id": rule.code,
        "name": "".join(word.capitalize() for word in rule.name.split("-")),
        "shortDescription": {"text": rule.name.replace("-", " ")},
        "fullDescription": {"text": rule.why},
        "help": {"text": f"{_HELP}, {rule.code}"},
        "defaultConfiguration": {"level": rule.level},
    }


def _result(finding: Finding, number: int) -> dict[str, Any]:
    region = {"startLine": finding.line, "startColumn": finding.column}
    path = PurePath(finding.file)
    uri = path.as_uri() if path.is_absolute() else path.as_posix()
    return {
        "ruleId": finding.code,
        "ruleIndex": number,
        "level": finding.level,
        "message": {"text": finding.message},
        "locations": [
            {"physicalLocation": {"artifactLocation": {"uri": uri}, "region": region}},
        ],
    }
