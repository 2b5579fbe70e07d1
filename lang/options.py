"""What `run` may be told besides a function's own arguments.

Owns: the names of those options and their checks. Knows no program and no run.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from ..runtime.errors import InvalidRequest
from .sampling import RUN_OPTIONS, Sampling

_WAYS: Final = {"stream", "backend", "use_thread"}
RUN_NAMES: Final = RUN_OPTIONS | _WAYS | {"timeout"}
BATCH_NAMES: Final = RUN_OPTIONS | {"backend", "timeout"}


@dataclass(frozen=True)
class RunOptions:
    """`threaded`: steps run beside the body; `timeout`: seconds for the whole run; `given`: what
    the caller said, but for the back end and the way to run."""

    defaults: Sampling = Sampling()
    stream: bool = False
    threaded: bool = True
    timeout: float | None = None
    backend: object | None = None
    given: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> "RunOptions":
        """From the keywords of `run`. InvalidRequest, naming the option."""
        return cls(
            defaults=Sampling.of_run({k: v for k, v in options.items() if k in RUN_OPTIONS}),
            stream=flag("stream", options.get("stream", False)),
            threaded=flag("use_thread", options.get("use_thread", True)),
            timeout=seconds("timeout", options.get("timeout")),
            backend=options.get("backend"),
            given={k: v for k, v in options.items() if k not in _WAYS},
        )


def seconds(name: str, value: object) -> float | None:
    """A time limit, or None for none."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise InvalidRequest(f"{name}: {value!r} is not a positive number of seconds", field=name)
    return float(value)


def flag(name: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise InvalidRequest(f"{name}: {value!r} is not true or false", field=name)
    return value


def per_item(options: Mapping[str, Any], size: int) -> list[Mapping[str, Any]]:
    """The options of each item of a batch: a list of seeds gives each its own."""
    seeds = options.get("seed")
    if not isinstance(seeds, list | tuple):
        return [options] * size
    if len(seeds) != size:
        raise InvalidRequest(f"seed: {len(seeds)} seeds for {size} items", field="seed")
    return [{**options, "seed": seed} for seed in seeds]
