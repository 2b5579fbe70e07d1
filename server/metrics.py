"""Counters and gauges in Prometheus' text format. Knows nothing of how they came about."""

from collections.abc import Iterable, Mapping
from typing import Any

from .generations import Counts

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
GROWING = frozenset(
    {
        "tokens_computed",
        "tokens_reused",
        "tokens_forced",
        "requests_finished",
        "requests_aborted",
        "preemptions",
        "steps",
    }
)
"""Those of the engine's statistics that never sink while it lives."""
OUTCOMES = ("finished", "aborted", "refused", "failed")


def exposition(counts: Counts, num_running: int, stats: Mapping[str, Any]) -> str:
    """The whole page. Every number among the engine's `stats` becomes a gauge, or a counter where
    it only grows; nested ones are joined by "_"."""
    lines = [
        *_header("sapwood_requests_total", "counter", "Generations by what became of them."),
        *(
            f'sapwood_requests_total{{outcome="{outcome}"}} {counts.requests[outcome]}'
            for outcome in OUTCOMES
        ),
    ]
    for name, help_text, value in (
        ("prompt_tokens", "Prompt tokens of finished samples.", counts.prompt_tokens),
        ("cached_tokens", "Prompt tokens whose KV was reused.", counts.cached_tokens),
        ("completion_tokens", "Tokens produced.", counts.completion_tokens),
        ("forced_tokens", "Tokens that a grammar dictated.", counts.forced_tokens),
    ):
        lines += _counter(f"sapwood_{name}", help_text, value)
    lines += _gauge("sapwood_requests_in_flight", "Generations in flight.", num_running)
    for name, number in _numbers("", stats):
        sample = _counter if name.rpartition(".")[2] in GROWING else _gauge
        joined = name.replace(".", "_")
        lines += sample(f"sapwood_engine_{joined}", f"Engine statistic {joined}.", number)
    return "\n".join(lines) + "\n"


def _header(name: str, kind: str, help_text: str) -> list[str]:
    return [f"# HELP {name} {help_text}", f"# TYPE {name} {kind}"]


def _counter(name: str, help_text: str, value: float) -> list[str]:
    name = f"{name}_total"
    return [*_header(name, "counter", help_text), f"{name} {value}"]


def _gauge(name: str, help_text: str, value: float) -> list[str]:
    name = name.removesuffix("_total")  # the ending that tells counters
    return [*_header(name, "gauge", help_text), f"{name} {value}"]


def _numbers(prefix: str, stats: Mapping[str, Any]) -> Iterable[tuple[str, float]]:
    for name, value in stats.items():
        if isinstance(value, Mapping):
            yield from _numbers(f"{prefix}{name}.", value)
        elif isinstance(value, bool | int | float):
            yield prefix + name, float(value) if isinstance(value, float) else int(value)
