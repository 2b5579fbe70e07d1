"""`Engine`: the runtime in one process, as users hold it.

Owns: the arguments and answers of the public calls. The work is the client's and the engine's;
torch is imported when an Engine is built, not before.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from types import TracebackType
from typing import Any, Literal, TypeGuard, overload

from .client import Client, Event, Stream
from .config import (
    CacheOptions,
    Device,
    DeviceOptions,
    Dtype,
    EngineConfig,
    KvDtype,
    ModelOptions,
    Policy,
    ScheduleOptions,
)
from .errors import InvalidRequest
from .local import LocalClient
from .models.source import resolve_model
from .native_format import NativeAnswer, sampling_from_dict
from .protocol import (
    EngineInfo,
    GenerateRequest,
    Ids,
    LogprobOptions,
    Prompt,
    SamplingParams,
    as_prompt,
)
from .shell import Loop
from .templated import TemplatedClient
from .templates import get_chat_template
from .tokenizer import TokenizerFiles, load_tokenizer

Sampling = SamplingParams | dict[str, Any] | None
Answer = dict[str, Any]
"""{"text", "output_ids", "meta_info"}."""


class Engine:
    """The model on a thread of this process. A context manager, and a back end for programs.

    `model` (or `model_path`, the same): see `ModelOptions`; the other options are those of
    `EngineConfig`'s records, `max_tokens_in_cache` is `CacheOptions.max_tokens`, and
    `chat_template_name` one of `templates`, in the place of the model's own.
    """

    def __init__(
        self,
        model: str | None = None,
        *,
        model_path: str | Path | None = None,
        dtype: Dtype = "auto",
        context_length: int | None = None,
        num_threads: int | None = None,
        max_tokens_in_cache: int | None = None,
        page_size: int = CacheOptions.page_size,
        kv_dtype: KvDtype = CacheOptions.kv_dtype,
        token_budget: int | None = ScheduleOptions.token_budget,
        max_running: int = ScheduleOptions.max_running,
        max_waiting: int = ScheduleOptions.max_waiting,
        policy: Policy = ScheduleOptions.policy,
        jump_forward: bool = ScheduleOptions.jump_forward,
        max_drafts: int = ScheduleOptions.max_drafts,
        grammar_mib: int = CacheOptions.grammar_mib,
        device: Device = DeviceOptions.device,
        memory_fraction: float | None = DeviceOptions.memory_fraction,
        cuda_graphs: bool | None = DeviceOptions.cuda_graphs,
        deterministic: bool = DeviceOptions.deterministic,
        tensor_parallel: int = DeviceOptions.tensor_parallel,
        chat_template_name: str | None = None,
    ) -> None:
        """Raises ModelError or InvalidRequest, one clear line each."""
        if model is not None and model_path is not None:
            raise InvalidRequest(
                "model_path: it is the same as model; give one", field="model_path"
            )
        if model is None and model_path is not None:
            model = str(model_path)
        config = EngineConfig(
            ModelOptions(model, dtype, context_length, num_threads),
            CacheOptions(max_tokens_in_cache, page_size, kv_dtype, grammar_mib),
            ScheduleOptions(
                token_budget, max_running, max_waiting, policy, jump_forward, max_drafts
            ),
            DeviceOptions(device, memory_fraction, cuda_graphs, deterministic, tensor_parallel),
        )
        template = None if chat_template_name is None else get_chat_template(chat_template_name)
        path = resolve_model(config.model.model)
        local = replace(config, model=replace(config.model, model=str(path)))
        files = load_tokenizer(path)
        client = LocalClient(lambda: _build(local, files), files)
        self._client: Client = client if template is None else TemplatedClient(client, template)

    @property
    def client(self) -> Client:
        """The narrow interface underneath, for programs and servers."""
        return self._client

    @overload
    def generate(
        self,
        prompt: str | Sequence[str] | None = None,
        sampling_params: Sampling | Sequence[Sampling] = None,
        *,
        input_ids: Sequence[int] | Sequence[Sequence[int]] | None = None,
        return_logprob: bool = False,
        logprob_start_len: int = -1,
        top_logprobs_num: int = 0,
        return_text_in_logprobs: bool = False,
        heal: bool = False,
        stream: Literal[False] = False,
    ) -> Answer | list[Answer]: ...

    @overload
    def generate(
        self,
        prompt: str | Sequence[str] | None = None,
        sampling_params: Sampling | Sequence[Sampling] = None,
        *,
        input_ids: Sequence[int] | Sequence[Sequence[int]] | None = None,
        return_logprob: bool = False,
        logprob_start_len: int = -1,
        top_logprobs_num: int = 0,
        return_text_in_logprobs: bool = False,
        heal: bool = False,
        stream: Literal[True],
    ) -> Iterator[Answer]: ...

    def generate(
        self,
        prompt: str | Sequence[str] | None = None,
        sampling_params: Sampling | Sequence[Sampling] = None,
        *,
        input_ids: Sequence[int] | Sequence[Sequence[int]] | None = None,
        return_logprob: bool = False,
        logprob_start_len: int = -1,
        top_logprobs_num: int = 0,
        return_text_in_logprobs: bool = False,
        heal: bool = False,
        stream: bool = False,
    ) -> Answer | list[Answer] | Iterator[Answer]:
        """SGLang's call. One prompt (or one list of ids) gives one answer; a list of them, or
        `n` > 1, a list in the order of the prompts, each with its samples.

        `sampling_params`: one for all prompts or a list with one for each. `heal`: where a text
        ends inside a would-be token, the model chooses that token; `text` is what follows the
        prompt, `output_ids` begin with that token, and `prompt_tokens` counts those before it.
        `stream`: an iterator of answers so far, each with the whole text from its start; with
        several, `index` says which of the list it is.
        """
        prompts, is_batch = _prompts(prompt, input_ids)
        samplings = _samplings(sampling_params, len(prompts))
        logprobs = None
        if return_logprob:
            logprobs = LogprobOptions(logprob_start_len, top_logprobs_num, return_text_in_logprobs)
        requests = [
            GenerateRequest(each, sampling, logprobs, heal=heal)
            for each, sampling in zip(prompts, samplings, strict=True)
        ]
        is_single = not is_batch and requests[0].sampling.n == 1
        answers = _Answers(self._client, requests, with_index=not is_single)
        if stream:
            return answers.stream()
        finished = answers.wait()
        return finished[0] if is_single else finished

    def stats(self) -> dict[str, Any]:
        """Pages free, used and evictable; tokens computed, reused and forced; requests."""
        return self._client.control("stats")

    def flush_cache(self) -> dict[str, Any]:
        """Drop every cached page that no running request uses."""
        return self._client.control("flush_cache")

    def check_integrity(self) -> dict[str, Any]:
        """Raises AssertionError where the owners of pages and requests disagree."""
        return self._client.control("check_integrity")

    def info(self) -> EngineInfo:
        return self._client.info()

    def close(self) -> None:
        """Stop; what runs ends with EngineDied. Safe to call twice."""
        self._client.close()

    shutdown = close

    def __enter__(self) -> "Engine":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _build(config: EngineConfig, files: TokenizerFiles) -> Loop:
    from .loop import build_loop  # what computes: only when an engine is built

    return build_loop(config, files)


def _prompts(
    prompt: str | Sequence[str] | None, input_ids: Sequence[int] | Sequence[Sequence[int]] | None
) -> tuple[list[Prompt], bool]:
    """The prompts, and whether they came as a list."""
    if (prompt is None) == (input_ids is None):
        raise InvalidRequest("prompt: give a text (or texts), or else input_ids", field="prompt")
    if prompt is not None:
        if isinstance(prompt, str):
            return [as_prompt(prompt)], False
        if not _is_list(prompt):
            raise InvalidRequest(
                f"prompt: {prompt!r} is neither a text nor a list of texts", field="prompt"
            )
        for text in prompt:
            if not isinstance(text, str):
                raise InvalidRequest(f"prompt: {text!r} is not a text", field="prompt")
        return [as_prompt(text) for text in prompt], True
    if not _is_list(input_ids):
        raise InvalidRequest(f"input_ids: {input_ids!r} is not a list of ids", field="input_ids")
    is_batch = any(_is_list(ids) for ids in input_ids)
    return [_ids(ids) for ids in (input_ids if is_batch else [input_ids])], is_batch


def _is_list(value: object) -> TypeGuard[Sequence[Any]]:
    return isinstance(value, Sequence) and not isinstance(value, str | bytes | bytearray)


def _ids(ids: object) -> Prompt:
    if not _is_list(ids):
        raise InvalidRequest(f"input_ids: {ids!r} is not a list of ids", field="input_ids")
    for id in ids:
        if isinstance(id, bool) or not isinstance(id, int):
            raise InvalidRequest(f"input_ids: {id!r} is not an integer", field="input_ids")
    return (Ids(tuple(ids)),)


def _samplings(given: Sampling | Sequence[Sampling], num_prompts: int) -> list[SamplingParams]:
    if given is None or isinstance(given, SamplingParams | dict):
        return [_sampling(given)] * num_prompts
    if not _is_list(given):
        raise InvalidRequest(
            f"sampling_params: {given!r} is neither SamplingParams, nor a dict, nor a list of them",
            field="sampling_params",
        )
    if len(given) != num_prompts:
        raise InvalidRequest(
            f"sampling_params: a list of {len(given)} for {num_prompts} prompts",
            field="sampling_params",
        )
    return [_sampling(each) for each in given]


def _sampling(given: Sampling) -> SamplingParams:
    if isinstance(given, SamplingParams):
        return given
    if given is None:
        return SamplingParams()
    if not isinstance(given, dict):
        raise InvalidRequest(
            f"sampling_params: {given!r} is neither SamplingParams nor a dict",
            field="sampling_params",
        )
    return sampling_from_dict(given)


class _Answers:
    """The answers to several requests at once, numbered prompt by prompt, sample by sample."""

    def __init__(
        self, client: Client, requests: Sequence[GenerateRequest], *, with_index: bool
    ) -> None:
        self._client = client
        self._requests = requests
        self._with_index = with_index
        self._events: SimpleQueue[tuple[int, Event]] = SimpleQueue()
        self._answers: list[NativeAnswer] = []
        self._streams: list[Stream] = []

    def _start(self) -> None:
        started = time.perf_counter()
        for request in self._requests:
            stream = self._client.generate(request)
            self._streams.append(stream)
            stream.subscribe(partial(self._hear, len(self._answers)))
            self._answers += [
                NativeAnswer(request.request_id, request.logprobs, started)
                for _ in range(request.sampling.n)
            ]

    def _hear(self, first: int, event: Event) -> None:
        """Dispatcher thread. `first`: the number of the request's first answer."""
        self._events.put((first, event))

    def stream(self) -> Iterator[Answer]:
        """The requests start with the first answer asked for, so that an iterator which nobody
        reads runs nothing."""
        try:
            self._start()
            for index in self._changes():
                answer = self._answers[index].as_dict()
                yield answer | {"index": index} if self._with_index else answer
        finally:
            self.close()

    def wait(self) -> list[Answer]:
        try:
            self._start()
            for _ in self._changes():
                pass
        finally:
            self.close()
        return [answer.as_dict() for answer in self._answers]

    def _changes(self) -> Iterator[int]:
        """The number of the answer that has grown, until all have ended; raises their error."""
        num_open = len(self._answers)
        while num_open:
            first, event = self._events.get()
            if isinstance(event, BaseException):
                raise event
            index = first + event.index
            self._answers[index].add(event)
            num_open -= event.finish is not None
            yield index

    def close(self) -> None:
        for stream in self._streams:
            stream.close()
