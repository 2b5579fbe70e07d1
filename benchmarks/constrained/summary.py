"""The figures of all engines, as plain values and as tables of Markdown.

Owns: which figures there are and how they are taken together. Knows no engine but that ours is one
column among them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from corpus import KEYWORDS, Case
from engine_process import Observed
from verdict import Verdict, judge


@dataclass(frozen=True)
class Judged:
    case: Case
    seen: Observed
    verdict: Verdict

    @classmethod
    def of(cls, case: Case, seen: Observed) -> "Judged":
        return cls(case, seen, judge(case, seen))


@dataclass
class Run:
    """One engine's column."""

    version: str
    judged: list[Judged] = field(default_factory=list)


def figures(judged: Sequence[Judged], limit_seconds: float) -> dict[str, float | None]:
    """Shares of all cases in per cent, times in seconds; None where nothing was measured."""
    verdicts = [each.verdict for each in judged]
    compiled = [verdict for verdict in verdicts if verdict.compiled]
    times = [limit_seconds if each.seen.over_limit else each.seen.seconds for each in judged]
    first = [seconds for seconds in times if seconds is not None]
    cold = _nanoseconds(judged, "cold_ns")
    warm = _nanoseconds(judged, "warm_ns")
    rows = [
        each.seen.walked["batch_row_ns"]
        for each in judged
        if each.seen.walked.get("batch_row_ns") is not None
    ]
    return {
        "cases": float(len(verdicts)),
        "compiled": _percent(len(compiled), len(verdicts)),
        "right": _percent(sum(v.right for v in verdicts), len(verdicts)),
        "right_of_compiled": _percent(sum(v.right for v in verdicts), len(compiled)),
        "lax": _percent(sum(v.accepts_invalid for v in verdicts), len(verdicts)),
        **_quantiles("first_mask", first, (50, 99)),
        **_quantiles("cold_mask", cold, (50, 99, 99.9)),
        **_quantiles("warm_mask", warm, (50, 99, 99.9)),
        "mean_mask": float(np.mean(cold)) if len(cold) else None,
        "batch_row": 1e-9 * float(np.mean(rows)) if rows else None,
        **_forced(judged, "free"),
        **_forced(judged, "printed"),
        **_forced(judged, "fixed"),
    }


def _percent(part: int, whole: int) -> float | None:
    return 100 * part / whole if whole else None


def _nanoseconds(judged: Sequence[Judged], name: str) -> Any:
    """In seconds, of all cases together."""
    return 1e-9 * np.array([ns for each in judged for ns in each.seen.walked.get(name, ())], float)


def _quantiles(name: str, values: Any, which: Sequence[float]) -> dict[str, float | None]:
    return {
        f"{name}_p{q:g}": float(np.percentile(values, q)) if len(values) else None for q in which
    }


def _forced(judged: Sequence[Judged], whitespace: str) -> dict[str, float | None]:
    """`forced_*`: of all tokens; `undone_*`: of those that the engine would have appended."""
    parts = [each.seen.jumped[whitespace] for each in judged if whitespace in each.seen.jumped]
    total, forced, undone = (
        sum(part[name] for part in parts) for name in ("tokens", "forced", "undone")
    )
    return {
        f"forced_{whitespace}": _percent(forced, total),
        f"undone_{whitespace}": _percent(undone, forced + undone) if forced + undone else None,
    }


# --- tables --------------------------------------------------------------------------------------


def duration(seconds: float | None) -> str:
    """Three digits with the unit that suits."""
    if seconds is None:
        return "-"
    for unit, scale in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if seconds >= scale or unit == "us":
            return (
                f"{seconds / scale:.3g} {unit}"
                if seconds < 100 * scale
                else (f"{seconds / scale:,.0f} {unit}")
            )
    raise AssertionError


def percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f} %"


def _count(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}"


_CORRECT: Final[Sequence[tuple[str, Callable[[float | None], str], Sequence[str]]]] = (
    ("compiled", percent, ("compiled",)),
    ("right", percent, ("right",)),
    ("right, of those that it compiled", percent, ("right_of_compiled",)),
    ("accepts something invalid", percent, ("lax",)),
)
_TIMES: Final[Sequence[tuple[str, Callable[[float | None], str], Sequence[str]]]] = (
    ("time to first mask p50 / p99", duration, ("first_mask_p50", "first_mask_p99")),
    (
        "mask, first walk, p50 / p99 / p99.9",
        duration,
        ("cold_mask_p50", "cold_mask_p99", "cold_mask_p99.9"),
    ),
    (
        "mask, walked again, p50 / p99 / p99.9",
        duration,
        ("warm_mask_p50", "warm_mask_p99", "warm_mask_p99.9"),
    ),
    ("mask, mean over whole documents", duration, ("mean_mask",)),
    ("mask, a row of 64 filled in one call, warm", duration, ("batch_row",)),
    ("jump-forward, free whitespace: forced / undone again", percent, ("forced_free",)),
    ("jump-forward, as printers lay out: forced / undone again", percent, ("forced_printed",)),
    ("jump-forward, fixed whitespace: forced / undone again", percent, ("forced_fixed",)),
)


def markdown(
    facts: Mapping[str, str],
    runs: Mapping[str, Run],
    absent: Mapping[str, str],
    limit_seconds: float,
) -> str:
    parts = ["\n".join(f"- {name}: {value}" for name, value in facts.items())]
    of_schemas = _split(runs, lambda case: case.file != KEYWORDS)
    of_keywords = _split(runs, lambda case: case.file == KEYWORDS)
    if any(of_schemas.values()):
        parts.append(_table(runs, of_schemas, [*_CORRECT, *_TIMES], "schemas", limit_seconds))
    if any(of_keywords.values()):
        parts.append(_table(runs, of_keywords, _CORRECT, "keyword cases", limit_seconds))
    notes = [f"- {name}: not measured, {why}" for name, why in absent.items()]
    notes += [
        f"- {name}: no call that fills many rows"
        for name, judged in of_schemas.items()
        if judged and figures(judged, limit_seconds)["batch_row"] is None
    ]
    if notes:
        parts.append("\n".join(notes))
    return "\n\n".join(parts) + "\n"


def _split(runs: Mapping[str, Run], wanted: Callable[[Case], bool]) -> dict[str, list[Judged]]:
    return {name: [each for each in run.judged if wanted(each.case)] for name, run in runs.items()}


def _table(
    runs: Mapping[str, Run],
    judged: Mapping[str, Sequence[Judged]],
    lines: Sequence[tuple[str, Callable[[float | None], str], Sequence[str]]],
    what: str,
    limit_seconds: float,
) -> str:
    columns = {name: figures(each, limit_seconds) for name, each in judged.items()}
    counts = [_count(column["cases"]) for column in columns.values()]
    rows = [
        [what, *(f"{name} {run.version}" for name, run in runs.items())],
        ["---"] * (1 + len(runs)),
        ["cases", *counts],
    ]
    for title, shown, names in lines:
        row = [title]
        for column in columns.values():
            cells = [shown(column[name]) for name in names]
            if names[0].startswith("forced_"):
                cells.append(shown(column[names[0].replace("forced", "undone")]))
            row.append(" / ".join(cells))
        rows.append(row)
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def wrong(run: Run) -> str:
    """The cases that the engine was not right about, and what it did."""
    lines = []
    for each in run.judged:
        where = f"{each.case.file}: {each.case.name}"
        if not each.verdict.compiled:
            lines.append(f"{where}\n    refused: {each.verdict.refused}")
        elif each.verdict.problems:
            lines.append("\n    ".join([where, *each.verdict.problems]))
    return "\n".join(lines)
