"""A tiny random Llama over a byte tokenizer: the whole engine, in milliseconds a step."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace

import pytest
import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from sapwood.runtime.backend import Backend
from sapwood.runtime.config import ResolvedConfig, ScheduleOptions, resolve_schedule
from sapwood.runtime.loop import EngineLoop, assemble
from sapwood.runtime.models.config import LlamaConfig
from sapwood.runtime.models.llama import LlamaModel
from sapwood.runtime.protocol import (
    FinishReason,
    LogprobOptions,
    SamplingParams,
    TokenLogprob,
    Usage,
)
from sapwood.runtime.tokenizer import TokenizerFiles
from sapwood.runtime.torch_backend import TorchBackend
from sapwood.runtime.torch_path.runner import Model, ModelRunner
from sapwood.runtime.wire import Failed, FromEngine, Probe, TokenChunk, TokenRequest

EOS = 256

CONFIG = LlamaConfig(
    architecture="LlamaForCausalLM",
    vocab_size=257,
    hidden_size=32,
    intermediate_size=64,
    num_layers=2,
    num_heads=4,
    num_kv_heads=2,
    head_dim=8,
    context_length=2_048,
    tie_embeddings=True,
)


def byte_tokenizer() -> TokenizerFiles:
    """Token t < 256 is byte t (through the byte-level alphabet); 256 is the end of text."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    alphabet = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    plain = [chr(b) for b in (*range(33, 127), *range(161, 173), *range(174, 256))]
    others = iter(letter for letter in letters if letter not in plain)
    order = [chr(b) if chr(b) in plain else next(others) for b in range(256)]
    tokenizer = Tokenizer(models.BPE({letter: i for i, letter in enumerate(order)}, []))
    tokenizer.pre_tokenizer = alphabet
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken("<|end|>", special=True)])
    return TokenizerFiles(
        tokenizer=tokenizer,
        chat_template=None,
        special={"eos_token": "<|end|>"},
        bos_id=None,
        eos_ids=(EOS,),
        add_bos=False,
        model_name="tiny",
        context_length=CONFIG.context_length,
        special_token_ids=(EOS,),
    )


@dataclass
class Answer:
    """Everything that an engine said about one request."""

    token_ids: list[int] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)
    prompt_logprobs: tuple[TokenLogprob, ...] | None = None
    finish: FinishReason | None = None
    cut: int | None = None
    usage: Usage | None = None
    error: Exception | None = None
    num_ends: int = 0


class Driver:
    """An EngineLoop stepped by hand, with `check_integrity` after every step."""

    def __init__(self, loop: EngineLoop) -> None:
        self.loop = loop
        self.answers: dict[str, Answer] = {}

    def submit(
        self,
        prompt: Iterable[int] | str,
        *,
        id: str | None = None,
        stream: int = 0,
        logprobs: LogprobOptions | None = None,
        namespace: str = "",
        tentative: int = 0,
        probe: Probe | None = None,
        **sampling: object,
    ) -> str:
        ids = tuple(prompt.encode()) if isinstance(prompt, str) else tuple(prompt)
        id = id or f"r{len(self.answers)}"
        params = SamplingParams(**{"temperature": 0.0, "max_tokens": 16, **sampling})  # type: ignore[arg-type]
        self.answers[id] = Answer()
        self.loop.submit(
            TokenRequest(id, ids, params, stream, logprobs, namespace, tentative, probe)
        )
        return id

    def step(self) -> list[FromEngine]:
        messages = self.loop.step()
        for message in messages:
            self._take(message)
        self.loop.control("check_integrity")
        return messages

    def _take(self, message: FromEngine) -> None:
        assert isinstance(message, TokenChunk | Failed)
        answer = self.answers[message.id]
        assert answer.num_ends == 0, f"{message.id} was answered after its end"
        if isinstance(message, Failed):
            answer.error = message.error
            answer.num_ends += 1
            return
        answer.token_ids += message.token_ids
        answer.logprobs += message.logprobs
        answer.usage = message.usage
        if message.prompt_logprobs is not None:
            assert answer.prompt_logprobs is None
            answer.prompt_logprobs = message.prompt_logprobs
        if message.finish is not None:
            answer.finish, answer.cut = message.finish, message.cut
            answer.num_ends += 1

    def run(self, max_steps: int = 20_000) -> dict[str, Answer]:
        for _ in range(max_steps):
            if not self.loop.has_work:
                stats = self.loop.control("stats")
                assert stats["pages_used"] == 0, "pages are still held after the last request"
                assert stats["pages_free"] + stats["pages_evictable"] == stats["pages_total"]
                return self.answers
            self.step()
        raise AssertionError(f"not finished after {max_steps} steps")

    def answer(self, prompt: Iterable[int] | str, **options: object) -> Answer:
        """Submit one request and run until everything is done."""
        id = self.submit(prompt, **options)  # type: ignore[arg-type]
        self.run()
        return self.answers[id]


class Overlapping(TorchBackend):
    """Steps are planned and launched while the one before is in flight, as on a GPU."""

    def build(self, resolved: ResolvedConfig) -> ModelRunner:
        runner = super().build(resolved)
        runner.overlaps = True
        return runner


@pytest.fixture(scope="session")
def drive() -> Callable[[EngineLoop], Driver]:
    """drive(loop) -> Driver, of a loop that is the test's own."""
    return Driver


@pytest.fixture(scope="session")
def tiny_model() -> LlamaModel:
    torch.set_num_threads(1)
    return LlamaModel.random(CONFIG, torch.float32, seed=7)


@pytest.fixture(scope="session")
def byte_files() -> TokenizerFiles:
    return byte_tokenizer()


@pytest.fixture
def make_driver(
    tiny_model: LlamaModel, byte_files: TokenizerFiles
) -> Iterator[Callable[..., Driver]]:
    """make_driver(num_pages=..., token_budget=..., ...) -> Driver.

    `backend`: what makes one of a model and a dtype; `overlaps`: where there is none."""
    loops: list[EngineLoop] = []

    def make(
        num_pages: int = 512,
        page_size: int = 16,
        overlaps: bool = False,
        model: Model = tiny_model,
        backend: Callable[..., Backend] | None = None,
        **schedule: object,
    ) -> Driver:
        chosen = replace(ScheduleOptions(max_running=32), **schedule)  # type: ignore[arg-type]
        options = resolve_schedule(chosen, "cpu")
        resolved = ResolvedConfig("float32", CONFIG.context_length, num_pages, page_size, options)
        made = backend or (Overlapping if overlaps else TorchBackend)
        loop = assemble(made(model, "float32"), byte_files, resolved)
        loops.append(loop)
        return Driver(loop)

    yield make
    for loop in loops:
        loop.close()
