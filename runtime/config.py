"""How an engine is set up: three frozen records, defaults written once, every `auto` decided once
by `resolve`.

Knows no torch; what depends on the machine or the checkpoint is handed to `resolve` as plain
numbers.
"""

from dataclasses import dataclass, field, replace
from typing import Final, Literal, cast, get_args

from .errors import InvalidRequest

Dtype = Literal["auto", "float32", "fp32", "bfloat16", "bf16", "int8", "q4"]
# What a dtype may become. "stored": the checkpoint's own quantised formats, without loss.
ComputeDtype = Literal["float32", "bfloat16", "int8", "q4", "stored"]
KvDtype = Literal["auto", "int8"]
Policy = Literal["fcfs", "lpm"]

AUTO_CACHE_BYTES = 3 << 30  # `max_tokens` auto: a quarter of the free memory, at most this


@dataclass(frozen=True)
class ModelOptions:
    """`model`: a known name, a folder in Hugging Face format, a .gguf file or a hub id; None is the
    default model.

    `dtype`: of the weights. int8 and q4 are groups of 32 with a scale (q4: and a minimum),
    multiplied by 8-bit activations.
    `context_length` None: the checkpoint's. `num_threads` None: one for each core.
    """

    model: str | None = None
    dtype: Dtype = "auto"
    context_length: int | None = None
    num_threads: int | None = None


@dataclass(frozen=True)
class CacheOptions:
    """`max_tokens`: tokens of KV over all requests and the tree (None: from free memory), rounded
    up to whole pages. `kv_dtype` auto: float32 where the weights are, or else bfloat16; int8: bytes
    with a scale for each head and token, for nearly twice the tokens. `grammar_mib`: MiB of
    compiled constraints and their masks, kept for reuse."""

    max_tokens: int | None = None
    page_size: int = 16
    kv_dtype: KvDtype = "auto"
    grammar_mib: int = 256


@dataclass(frozen=True)
class ScheduleOptions:
    """`token_budget`: tokens of one step, prefill chunks and decodes together. `policy`: order of
    the waiting queue, first come first served or longest prefix match. `jump_forward`: append
    forced text without asking the model. `max_drafts`: tokens of one request that a step may guess
    from what was said before and check along, where that pays; 0: none. It never changes outputs.
    """

    token_budget: int = 512
    max_running: int = 128
    max_waiting: int = 8_192
    policy: Policy = "lpm"
    jump_forward: bool = True
    max_drafts: int = 12


@dataclass(frozen=True)
class EngineConfig:
    model: ModelOptions = field(default_factory=ModelOptions)
    cache: CacheOptions = field(default_factory=CacheOptions)
    schedule: ScheduleOptions = field(default_factory=ScheduleOptions)

    def __post_init__(self) -> None:
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
        _positive("token_budget", self.schedule.token_budget)
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


@dataclass(frozen=True)
class ResolvedConfig:
    """An EngineConfig with nothing left to decide."""

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


def resolve(
    config: EngineConfig,
    *,
    dtype: ComputeDtype,
    checkpoint_context: int,
    bytes_per_token: int,
    free_bytes: int,
) -> ResolvedConfig:
    """Decide every `auto` but the dtype, which the backend has decided. `bytes_per_token`: KV of
    one token over all layers; `free_bytes`: memory left for it."""
    context = config.model.context_length or checkpoint_context
    if context > checkpoint_context:
        raise InvalidRequest(
            f"context_length: {context} is more than the checkpoint's {checkpoint_context}",
            field="context_length",
        )
    max_tokens = config.cache.max_tokens
    if max_tokens is None:
        room = min(free_bytes // 4, AUTO_CACHE_BYTES)
        max_tokens = max(room // bytes_per_token, config.cache.page_size)
    schedule = config.schedule
    return ResolvedConfig(
        dtype=dtype,
        context_length=context,
        num_pages=-(-max_tokens // config.cache.page_size),
        page_size=config.cache.page_size,
        schedule=replace(schedule, max_running=min(schedule.max_running, schedule.token_budget)),
        grammar_mib=config.cache.grammar_mib,
    )
