"""`ServerArgs`: what a server of ours is started with, by SGLang's names where both have one.

Owns: the options, their refusals, and the command line that they make.
"""

import sys
from dataclasses import dataclass, fields
from typing import Any, Final, Self

from ...runtime.errors import InvalidRequest

# Field -> the option of `sapwood serve`.
_FLAGS: Final = {
    "model_path": "--model",
    "host": "--host",
    "port": "--port",
    "api_key": "--api-key",
    "served_model_name": "--served-model-name",
    "dtype": "--dtype",
    "context_length": "--context-length",
    "max_total_tokens": "--max-tokens-in-cache",
    "kv_cache_dtype": "--kv-dtype",
    "max_drafts": "--max-drafts",
    "num_threads": "--threads",
    "device": "--device",
    "mem_fraction_static": "--memory-fraction",
    "tp_size": "--tensor-parallel",
}
_SWITCHES: Final = {"disable_cuda_graph": "--no-cuda-graphs"}


@dataclass(frozen=True)
class ServerArgs:
    """None stands for the server's own default. `model_path`: as `Engine(model=...)`. `port` 0: any
    free one. `max_total_tokens`: size of the KV cache."""

    model_path: str | None = None
    host: str = "127.0.0.1"
    port: int = 30000
    api_key: str | None = None
    served_model_name: str | None = None
    dtype: str = "auto"
    context_length: int | None = None
    max_total_tokens: int | None = None
    kv_cache_dtype: str = "auto"
    max_drafts: int | None = None
    num_threads: int | None = None
    device: str = "auto"
    mem_fraction_static: float | None = None
    tp_size: int = 1
    disable_cuda_graph: bool = False

    @classmethod
    def of(cls, *args: Any, **options: Any) -> Self:
        """Raises InvalidRequest that names an option which our server has not."""
        known = [option.name for option in fields(cls)]
        for name, value in options.items():
            if name not in known:
                raise InvalidRequest(
                    f"{name}: {value!r}: our server has no such option, but {', '.join(known)}",
                    field=name,
                )
        if len(args) > len(known):
            raise TypeError(f"ServerArgs takes {len(known)} values at most, got {len(args)}")
        twice = set(known[: len(args)]) & set(options)
        if twice:
            raise TypeError(f"{sorted(twice)[0]} is given twice")
        return cls(*args, **options)

    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    def command(self) -> list[str]:
        """What starts the server."""
        options = [
            word
            for name, flag in _FLAGS.items()
            if (value := getattr(self, name)) is not None
            for word in (flag, str(value))
        ]
        options += [flag for name, flag in _SWITCHES.items() if getattr(self, name)]
        package = __name__.partition(".")[0]
        return [sys.executable, "-P", "-m", package, "serve", *options]
