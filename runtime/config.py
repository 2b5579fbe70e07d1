"""How an engine is set up: four frozen records, defaults written once, every `auto` decided once
by `resolve`.

Knows no torch; what depends on the machine or the checkpoint is handed to `resolve` as plain
numbers.
"""

from dataclasses import dataclass, field, fields, replace
from typing import Final, Literal, cast, get_args

from .errors import InvalidRequest

Dtype = Literal["auto", "float32", "fp32", "bfloat16", "bf16", "int8", "q4", "fp8"]
# What a dtype may become. "stored": the checkpoint's own quantised formats, without loss.
ComputeDtype = Literal["float32", "bfloat16", "int8", "q4", "stored", "fp8"]
KvDtype = Literal["auto", "int8", "fp8"]
Policy = Literal["fcfs", "lpm"]
Device = Literal["auto", "cpu", "cuda"]
ComputeDevice = Literal["cpu", "cuda"]

AUTO_CACHE_BYTES = 3 << 30  # `max_tokens` auto: a quarter of the free memory, at most this
# `token_budget` auto. Chunks of 512 keep a processor busy and a decode waiting a fifth of a second;
# a GPU needs thousands of tokens for its matrix units to be what limits it.
TOKEN_BUDGETS: Final[dict[ComputeDevice, int]] = {"cpu": 512, "cuda": 8_192}


@dataclass(frozen=True)
class ModelOptions:
    """`model`: a known name, a folder in Hugging Face format, a .gguf file or a hub id; None is the
    default model.

    `dtype`: of the weights. int8 and q4 are groups of 32 with a scale (q4: and a minimum),
    multiplied by 8-bit activations on a CPU and by bfloat16 ones on a GPU. fp8, on GPUs from
    compute capability 8.9 on: e4m3, a scale for each output and each activation's token. auto: a
    quantized file's own numbers, or else bfloat16, or float32 where that is as fast.
    `context_length` None: the checkpoint's. `num_threads` None: one for each core.
    """

    model: str | None = None
    dtype: Dtype = "auto"
    context_length: int | None = None
    num_threads: int | None = None


@dataclass(frozen=True)
class CacheOptions:
    """`max_tokens`: tokens of KV over all requests and the tree, rounded up to whole pages (None:
    from free memory, of a GPU's what `memory_fraction` leaves). `kv_dtype` auto: float32 where the
    weights are, or else bfloat16; int8 and, on GPUs that have it, fp8 (e4m3): bytes with a scale
    for each head and token, for nearly twice the tokens. `grammar_mib`: MiB of compiled constraints
    and their masks, kept for reuse."""

    max_tokens: int | None = None
    page_size: int = 16
    kv_dtype: KvDtype = "auto"
    grammar_mib: int = 256


@dataclass(frozen=True)
class ScheduleOptions:
    """`token_budget`: tokens of one step, prefill chunks and decodes together (None: 512, on a GPU
    8,192). `policy`: order of the waiting queue, first come first served or longest prefix match.
    `jump_forward`: append forced text without asking the model. `max_drafts`: tokens of one request
    that a step may guess from what was said before and check along, where that pays; 0: none. It
    never changes outputs.
    """

    token_budget: int | None = None
    max_running: int = 128
    max_waiting: int = 8_192
    policy: Policy = "lpm"
    jump_forward: bool = True
    max_drafts: int = 12


@dataclass(frozen=True)
class DeviceOptions:
    """`device` auto: the GPU, where this machine has one that torch can use. The others are for a
    GPU alone, and refused elsewhere.

    `memory_fraction`: of all the GPU's memory, what weights, activations and the KV cache may take
    together (None: 0.9). `cuda_graphs`: record the launches of a step once and replay them (None:
    yes). `deterministic`: the work of a request is cut as it would be were it alone; without, by
    how much there is of all. (In neither case do the library's matrix products promise equal bits
    for every number of rows.)

    `tensor_parallel`: how many GPUs compute the model together, each holding its share of every
    layer; with device cpu, how many processes (through torch: for tests, native code is faster).
    """

    device: Device = "auto"
    memory_fraction: float | None = None
    cuda_graphs: bool | None = None
    deterministic: bool = True
    tensor_parallel: int = 1

    @property
    def given(self) -> dict[str, object]:
        """The options for a GPU alone that are not as they would be without a word."""
        default = DeviceOptions()
        names = [
            each.name for each in fields(self) if each.name not in ("device", "tensor_parallel")
        ]
        found = {name: getattr(self, name) for name in names}
        return {n: value for n, value in found.items() if value != getattr(default, n)}


@dataclass(frozen=True)
class EngineConfig:
    model: ModelOptions = field(default_factory=ModelOptions)
    cache: CacheOptions = field(default_factory=CacheOptions)
    schedule: ScheduleOptions = field(default_factory=ScheduleOptions)
    device: DeviceOptions = field(default_factory=DeviceOptions)

    def __post_init__(self) -> None:
        _choice("device", self.device.device, get_args(Device))
        _fraction("memory_fraction", self.device.memory_fraction)
        _flag("cuda_graphs", self.device.cuda_graphs, optional=True)
        _flag("deterministic", self.device.deterministic)
        _positive("tensor_parallel", self.device.tensor_parallel)
        _choice("dtype", self.model.dtype, get_args(Dtype))
        _choice("kv_dtype", self.cache.kv_dtype, get_args(KvDtype))
        _choice("policy", self.schedule.policy, ("fcfs", "lpm"))
        _positive("context_length", self.model.context_length, optional=True)
        _positive("num_threads", self.model.num_threads, optional=True)
        _positive("max_tokens_in_cache", self.cache.max_tokens, optional=True)
        _positive("page_size", self.cache.page_size)
        if self.cache.page_size & (self.cache.page_size - 1):
            raise InvalidRequest(
                f"page_size: {self.cache.page_size} is not a power of two", field="page_size"
            )
        _positive("grammar_mib", self.cache.grammar_mib)
        _positive("token_budget", self.schedule.token_budget, optional=True)
        _positive("max_running", self.schedule.max_running)
        _positive("max_waiting", self.schedule.max_waiting)
        _positive("max_drafts", self.schedule.max_drafts, or_zero=True)


def _choice(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise InvalidRequest(f"{name}: {value!r} is none of {', '.join(allowed)}", field=name)


def _positive(
    name: str, value: int | None, *, optional: bool = False, or_zero: bool = False
) -> None:
    if value is None and optional:
        return
    if isinstance(value, bool) or not isinstance(value, int) or value < (0 if or_zero else 1):
        wanted = "neither 0 nor a positive integer" if or_zero else "not a positive integer"
        raise InvalidRequest(f"{name}: {value!r} is {wanted}", field=name)


def _fraction(name: str, value: float | None) -> None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if value is not None and not (is_number and 0 < value <= 1):
        raise InvalidRequest(f"{name}: {value!r} is not above 0 and at most 1", field=name)


def _flag(name: str, value: bool | None, *, optional: bool = False) -> None:
    if not isinstance(value, bool) and not (optional and value is None):
        raise InvalidRequest(f"{name}: {value!r} is neither True nor False", field=name)


def _check_room(config: EngineConfig, wanted: int, free: int) -> None:
    """A GPU has no memory but its own."""
    if wanted <= free:
        return
    left = f"of the GPU's memory {max(free, 0) / 2**30:.2f} GiB are left for keys and values"
    tokens = config.cache.max_tokens
    if tokens is not None:
        message = f"max_tokens_in_cache: {tokens} tokens take {wanted / 2**30:.2f} GiB; {left}"
        raise InvalidRequest(message, field="max_tokens_in_cache")
    raise InvalidRequest(f"memory_fraction: {left}, too little", field="memory_fraction")


@dataclass(frozen=True)
class ResolvedConfig:
    """An EngineConfig with nothing left to decide. `schedule.token_budget` is a number."""

    dtype: ComputeDtype
    context_length: int
    num_pages: int
    page_size: int
    schedule: ScheduleOptions
    grammar_mib: int = CacheOptions.grammar_mib

    @property
    def pages_per_request(self) -> int:
        """How long a row of the page table is: a page more than the longest request fills."""
        longest = min(self.context_length, self.num_pages * self.page_size)
        return -(-longest // self.page_size) + 1


_ALIASES: Final[dict[Dtype, ComputeDtype]] = {"fp32": "float32", "bf16": "bfloat16"}


def resolve_dtype(
    dtype: Dtype, *, bfloat16_is_fast: bool, keeps_quantized: bool = False
) -> ComputeDtype:
    """`keeps_quantized`: the checkpoint is quantised, and in a way that can be computed with."""
    if dtype == "auto":
        if keeps_quantized:
            return "stored"
        return "bfloat16" if bfloat16_is_fast else "float32"
    return _ALIASES[dtype] if dtype in _ALIASES else cast(ComputeDtype, dtype)


def resolve_schedule(schedule: ScheduleOptions, device: ComputeDevice) -> ScheduleOptions:
    """With a `token_budget`, and no more running requests than it has tokens."""
    budget = schedule.token_budget or TOKEN_BUDGETS[device]
    return replace(schedule, token_budget=budget, max_running=min(schedule.max_running, budget))


def resolve(
    config: EngineConfig,
    *,
    dtype: ComputeDtype,
    checkpoint_context: int,
    bytes_per_token: int,
    free_bytes: int,
    device: ComputeDevice = "cpu",
) -> ResolvedConfig:
    """Decide every `auto` but the dtype and the device, which are decided already.
    `bytes_per_token`: KV of one token over all layers; `free_bytes`: memory left for it, of which a
    cache on the CPU takes a part and one on a GPU all."""
    context = config.model.context_length or checkpoint_context
    if context > checkpoint_context:
        raise InvalidRequest(
            f"context_length: {context} is more than the checkpoint's {checkpoint_context}",
            field="context_length",
        )
    page_size = config.cache.page_size
    on_gpu = device == "cuda"
    room = free_bytes if on_gpu else min(free_bytes // 4, AUTO_CACHE_BYTES)
    max_tokens = config.cache.max_tokens
    if max_tokens is None:
        max_tokens = max(room // bytes_per_token // page_size, 1) * page_size
    num_pages = -(-max_tokens // page_size)
    if on_gpu:
        _check_room(config, num_pages * page_size * bytes_per_token, free_bytes)
    return ResolvedConfig(
        dtype=dtype,
        context_length=context,
        num_pages=num_pages,
        page_size=page_size,
        schedule=resolve_schedule(config.schedule, device),
        grammar_mib=config.cache.grammar_mib,
    )
