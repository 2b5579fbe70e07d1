"""`EngineLoop`: builds the engine's parts and owns their order. One call of `step` is one turn of
the engine. Imports no torch: that is a backend's.

Runs on whatever thread or process calls it (one at a time); `local` and `engine_process` are the
shells around it.
"""

import logging
from pathlib import Path
from typing import Any

from .._native import NativeUnavailable
from ..constrained import GrammarCompiler
from ..radix_cache import PrefixCache
from .admission import Admission
from .advance import Advancer
from .backend import Backend, Flight, Runner
from .batch import Batch
from .config import EngineConfig, ResolvedConfig, resolve, resolve_schedule
from .device import choose_device
from .errors import EngineError, InvalidRequest, Overloaded, SapwoodError
from .models.source import resolve_model
from .protocol import ControlAction, EngineInfo
from .scheduler import Scheduler
from .tokenizer import TokenizerFiles, load_tokenizer
from .wire import Failed, FromEngine, TokenRequest

_log = logging.getLogger(__name__)


class EngineLoop:
    """schedule -> launch -> draw -> collect -> commit, and the requests' way in and out.

    Where the runner overlaps, a step is planned and launched while the one before it is in flight;
    that one is collected and committed next, and what is to be drawn in the new one is said after
    that. So at most two are in flight, and the device has work while this thread plans and reports:

        device  | forward 1 | draw 1 | forward 2 ........... | draw 2 | forward 3 ...
        thread    plan 2, launch 2   | commit 1 | draw 2, plan 3, launch 3 | commit 2 ...

    Pages that a commit frees may be given out again at once, though a step is in flight that reads
    or writes them: steps run in order of launch, and whoever is given a page writes it in a later
    one. Where a step in flight still writes a page that came into the tree, it writes behind the
    tokens that the tree knows of it.
    """

    def __init__(
        self,
        info: EngineInfo,
        admission: Admission,
        scheduler: Scheduler,
        backend: Backend,
        runner: Runner,
        cache: PrefixCache,
        compiler: GrammarCompiler,
        max_waiting: int,
    ) -> None:
        self.info = info
        self._admission = admission
        self._scheduler = scheduler
        self._backend = backend
        self._runner = runner
        self._cache = cache
        self._compiler = compiler
        self._max_waiting = max_waiting
        self._in_flight: tuple[Batch, Flight] | None = None
        self._arrivals = 0
        self._refusals: list[FromEngine] = []

    @property
    def has_work(self) -> bool:
        return bool(self._refusals or self._in_flight) or self._scheduler.has_work

    @property
    def only_compiling(self) -> bool:
        """Nothing to compute until a grammar is ready: the shell should sleep a little between
        steps."""
        return not (self._refusals or self._in_flight) and self._scheduler.only_compiling

    def submit(self, request: TokenRequest) -> None:
        """Take a request in. A bad one, or one too many, is answered by `Failed` at the next
        step."""
        self._arrivals += 1
        try:
            if self._scheduler.num_waiting >= self._max_waiting:
                raise Overloaded(
                    f"{self._scheduler.num_waiting} requests are waiting already; try again later"
                )
            self._scheduler.submit(self._admission.admit(request, self._arrivals))
        except SapwoodError as error:
            self._refusals.append(Failed(request.id, error))
        except Exception as error:  # our mistake, but this request's alone
            _log.exception("request %s could not be taken in", request.id)
            refusal = EngineError(f"this request could not be taken in: {error!r}")
            self._refusals.append(Failed(request.id, refusal))

    def abort(self, id: str) -> None:
        """Forget the request and free what it holds; nothing more is said of it."""
        self._scheduler.abort(id)

    def step(self) -> list[FromEngine]:
        """One turn. Returns what callers are to hear; nothing when there is nothing to do."""
        messages, self._refusals = self._refusals, []
        batch = self._scheduler.schedule()
        if not batch.spans and self._in_flight:
            messages += self._land()
            batch = self._scheduler.schedule()
        if not batch.spans:
            return messages + self._scheduler.take_outbox()
        flight = self._runner.launch(batch)
        messages += self._land()  # the step before, while this one runs
        flight.draw(self._scheduler.draws(batch))
        self._in_flight = batch, flight
        if not self._runner.overlaps:
            messages += self._land()
        return messages + self._scheduler.take_outbox()

    def _land(self) -> list[FromEngine]:
        """Wait for the step in flight, if any, and take it in."""
        if self._in_flight is None:
            return []
        (batch, flight), self._in_flight = self._in_flight, None
        return self._scheduler.commit(batch, flight.collect())

    def control(self, action: ControlAction) -> dict[str, Any]:
        if action == "flush_cache":
            return {"flushed_pages": self._cache.evict_all()}
        if action == "check_integrity":
            self._scheduler.check_integrity()
            return {"ok": True}
        self._backend.check()
        return self._stats()

    def _stats(self) -> dict[str, Any]:
        cache, scheduler = self._cache, self._scheduler
        counters = scheduler.counters
        return {
            "pages_total": cache.num_pages,
            "pages_free": cache.num_free,
            "pages_used": cache.num_locked + cache.num_owned,
            "pages_evictable": cache.num_evictable,
            "page_size": self.info.page_size,
            "tokens_computed": counters.computed_tokens,
            "tokens_reused": counters.reused_tokens,
            "tokens_forced": counters.forced_tokens,
            "tokens_drafted": counters.drafted_tokens,
            "tokens_accepted": counters.accepted_tokens,
            "requests_running": scheduler.num_running,
            "requests_waiting": scheduler.num_waiting,
            "requests_finished": counters.finished_requests,
            "requests_aborted": counters.aborted_requests,
            "preemptions": counters.preemptions,
            "steps": counters.steps,
        }

    def close(self) -> None:
        self._compiler.close()
        try:
            if self._in_flight is not None:  # the device is not left at work on what is torn down
                self._in_flight[1].collect()
        finally:
            self._backend.close()


def build_loop(config: EngineConfig, files: TokenizerFiles | None = None) -> EngineLoop:
    """Load the model and set everything up. `files`: where the caller has loaded them already.

    Raises ModelError or InvalidRequest with one clear line."""
    path = resolve_model(config.model.model)
    if files is None:
        files = load_tokenizer(path)
    backend = choose_backend(path, config)
    try:
        resolved = resolve(
            config,
            dtype=backend.dtype,
            checkpoint_context=backend.config.context_length,
            bytes_per_token=backend.bytes_per_token,
            free_bytes=backend.free_bytes(resolve_schedule(config.schedule, backend.device)),
            device=backend.device,
        )
        return assemble(backend, files, resolved)
    except BaseException:
        backend.close()
        raise


def choose_backend(path: Path, config: EngineConfig) -> Backend:
    """Load the model where this machine computes it fastest: on its GPU, or in native code, or in
    torch where neither can be had, which one line says. Raises ModelError; InvalidRequest where an
    option does not go with the device."""
    device = choose_device(config.device)
    if device == "cpu":
        _refuse_fp8(config)
    if config.device.tensor_parallel > 1:
        if device == "cpu":
            _refuse_small_integers(config, "several processes compute through torch")
        from .parallel.backend import ParallelBackend

        return ParallelBackend.load(path, config, device)
    if device == "cuda":
        from .torch_backend import TorchBackend

        return TorchBackend.load(path, config, "cuda")
    from .native_backend import NativeBackend

    try:
        return NativeBackend.load(path, config)
    except NativeUnavailable as error:
        reason = str(error)
    _refuse_small_integers(config, f"there is none: {reason}")
    _log.warning("no native code (%s): torch computes, several times slower", reason)
    from .torch_backend import TorchBackend

    return TorchBackend.load(path, config, "cpu")


def _refuse_fp8(config: EngineConfig) -> None:
    for name, value in (("dtype", config.model.dtype), ("kv_dtype", config.cache.kv_dtype)):
        if value == "fp8":
            raise InvalidRequest(
                f"{name}: fp8 is for a GPU, and this engine runs on the CPU", field=name
            )


def _refuse_small_integers(config: EngineConfig, reason: str) -> None:
    """As weights, which torch doesn't multiply on a CPU."""
    dtype = config.model.dtype
    if dtype in ("int8", "q4"):
        raise InvalidRequest(
            f"dtype: {dtype} on a CPU is for native code, and {reason}", field="dtype"
        )


def assemble(backend: Backend, files: TokenizerFiles, resolved: ResolvedConfig) -> EngineLoop:
    """An engine from a loaded model. Tests bring a backend of their own."""
    arch = backend.config
    runner = backend.build(resolved)
    schedule = resolved.schedule
    num_pages, page_size = resolved.num_pages, resolved.page_size
    vocabulary = files.vocabulary.padded(arch.vocab_size)
    cache = PrefixCache(num_pages, page_size)
    compiler = GrammarCompiler(vocabulary, cache_bytes=resolved.grammar_mib << 20)
    advancer = Advancer(
        vocabulary.token_bytes, files.special_bytes, files.eos_ids, schedule.jump_forward
    )
    return EngineLoop(
        info=EngineInfo(
            model=files.model_name,
            context_length=resolved.context_length,
            vocab_size=arch.vocab_size,
            max_tokens_in_cache=num_pages * page_size,
            page_size=page_size,
            dtype=resolved.dtype,
            chat_template=files.chat_template,
            special_tokens=dict(files.special),
            eos_ids=files.eos_ids,
        ),
        admission=Admission(
            vocabulary, resolved.context_length, num_pages * page_size, files.eos_ids
        ),
        scheduler=Scheduler(
            *(cache, compiler, advancer, schedule, files.eos_ids),
            backend.row_cost,
            overlaps=runner.overlaps,
        ),
        backend=backend,
        runner=runner,
        cache=cache,
        compiler=compiler,
        max_waiting=schedule.max_waiting,
    )
