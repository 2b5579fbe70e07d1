"""Findings as text and as JSON. SARIF is `sarif`'s."""

import json
from collections.abc import Sequence
from dataclasses import asdict

from .findings import Finding


def as_text(findings: Sequence[Finding]) -> str:
    """One line each, and how many they are."""
    if not findings:
        return "no findings\n"
    number = "1 finding" if len(findings) == 1 else f"{len(findings)} findings"
    return "\n".join([*map(str, findings), number, ""])


def as_json(findings: Sequence[Finding]) -> str:
    return json.dumps([asdict(finding) for finding in findings], indent=2) + "\n"
