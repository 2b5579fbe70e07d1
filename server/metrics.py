"""Counters and gauges in Prometheus' text format. Knows nothing of how they came about."""

from collections.abc import Iterable, Mapping
from typing import Any

from .generations import Counts

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
OUTCOMES = ("finished", "aborted", "refused", "failed")


def exposition(counts: Counts, num_running: int, stats: Mapping[str, Any]) -> str:
    """The whole page. Every number among the engine's `stats` becomes a gauge, nested ones joined
    by "_"."""
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
        metric = f"sapwood_{name}_total"
        lines += [*_header(metric, "counter", help_text), f"{metric} {value}"]
    lines += _gauge("sapwood_requests_in_flight", "Generations in flight.", num_running)
    for name, number in _numbers("", stats):
        lines += _gauge(f"sapwood_engine_{name}", f"Engine statistic {name}.", number)
    return "\n".join(lines) + "\n"


def _header(name: str, kind: str, help_text: str) -> list[str]:
    return [f"# HELP {name} {help_text}", f"# TYPE {name} {kind}"]


def _gauge(name: str, help_text: str, value: float) -> list[str]:
    return [*_header(name, "gauge", help_text), f"{name} {value}"]


def _numbers(prefix: str, stats: Mapping[str, Any]) -> Iterable[tuple[str, float]]:
    for name, value in stats.items():
        if isinstance(value, Mapping):
            yield from _numbers(f"{prefix}{name}_", value)
        elif isinstance(value, bool | int | float):
            yield prefix + name, float(value) if isinstance(value, float) else int(value)
