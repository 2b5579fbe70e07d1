"""A device that runs out of memory, or dies: the same answers in smaller steps, or a clear end."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from sapwood.runtime.errors import EngineDied, EngineError
from sapwood.runtime.local import LocalClient
from sapwood.runtime.models.llama import LlamaModel
from sapwood.runtime.protocol import GenerateRequest, Ids, LogprobOptions, SamplingParams
from sapwood.runtime.tokenizer import TokenizerFiles
from sapwood.runtime.torch_path.device_errors import is_fatal, is_out_of_memory
from sapwood.runtime.torch_path.forward import ForwardInputs
from sapwood.runtime.torch_path.kv_cache import KVCache

MakeDriver = Callable[..., Any]
TEXTS = ["the root of a tree " * 4, "sap", "the root of a tree " * 3 + "is wood", "leaf " * 20]


class Failing:
    """A model with memory for `most` tokens a step, and for `most_logits` rows of logits; or that
    raises `error` at its `dies`-th step."""

    def __init__(
        self,
        model: LlamaModel,
        most: int = 1 << 20,
        most_logits: int = 1 << 20,
        error: Exception | None = None,
        dies: int = 0,
    ) -> None:
        self.config, self.device, self.dtype = model.config, model.device, model.dtype
        self.num_steps = self.num_refused = 0
        self._model, self._most, self._most_logits = model, most, most_logits
        self._error, self._dies = error, dies

    def forward(self, inputs: ForwardInputs, kv: KVCache) -> torch.Tensor:
        self.num_steps += 1
        if self._error is not None and self.num_steps >= self._dies:
            raise self._error
        if len(inputs.token_ids) > self._most or len(inputs.logit_rows) > self._most_logits:
            self.num_refused += 1
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return self._model.forward(inputs, kv)


def answers(driver: Any) -> list[tuple[list[int], Any, Any]]:
    ids = [driver.submit(text, max_tokens=12, ignore_eos=True) for text in TEXTS]
    scores = LogprobOptions(0, 2)
    ids.append(driver.submit(TEXTS[0][:50], max_tokens=3, logprobs=scores))
    ids.append(driver.submit("warm", max_tokens=12, temperature=1.0, stream=3, ignore_eos=True))
    done = driver.run()
    assert all(done[id].num_ends == 1 and done[id].error is None for id in ids)
    return [(done[id].token_ids, done[id].finish, done[id].prompt_logprobs) for id in ids]


@pytest.mark.parametrize("overlaps", [False, True])
@pytest.mark.parametrize("most", [1, 2, 5, 16, 60])
def test_without_memory_for_a_step_it_is_computed_in_pieces(
    make_driver: MakeDriver, tiny_model: LlamaModel, most: int, overlaps: bool
) -> None:
    model = Failing(tiny_model, most)
    found = answers(make_driver(model=model, overlaps=overlaps))
    assert model.num_refused > 0
    expected = answers(make_driver())
    for one, other in zip(found, expected, strict=True):
        assert one[:2] == other[:2]
        assert (one[2] is None) == (other[2] is None)
        if one[2] is not None:
            assert [each.token_id for each in one[2]] == [each.token_id for each in other[2]]
            assert [each.logprob or 0.0 for each in one[2]] == pytest.approx(
                [each.logprob or 0.0 for each in other[2]], abs=1e-4
            )


@pytest.mark.parametrize("overlaps", [False, True])
def test_a_request_without_memory_waits_and_is_tried_in_smaller_steps(
    make_driver: MakeDriver,
    tiny_model: LlamaModel,
    overlaps: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The runner can cut no span here: the scheduler has to."""
    from sapwood.runtime.torch_path.step_arrays import StepArrays

    def refuse(arrays: StepArrays) -> Any:
        raise torch.OutOfMemoryError("no piece is small enough")

    monkeypatch.setattr(StepArrays, "halves", refuse)
    driver = make_driver(model=Failing(tiny_model, most=7), overlaps=overlaps)
    assert [one[:2] for one in answers(driver)] == [one[:2] for one in answers(make_driver())]
    assert driver.loop.control("stats")["preemptions"] > 0


def test_a_token_that_no_memory_is_left_for_fails_its_request(
    make_driver: MakeDriver, tiny_model: LlamaModel
) -> None:
    driver = make_driver(model=Failing(tiny_model, most=0))
    ids = [driver.submit(text) for text in TEXTS]
    done = driver.run()
    for id in ids:
        assert isinstance(done[id].error, EngineError) and done[id].num_ends == 1
        assert "do not fit in memory" in str(done[id].error)


FATAL = [
    torch.AcceleratorError("CUDA error: an illegal memory access was encountered"),
    RuntimeError("Triton Error [CUDA]: misaligned address"),
]


@pytest.mark.parametrize("error", FATAL, ids=str)
@pytest.mark.parametrize("overlaps", [False, True])
@pytest.mark.timeout(60)
def test_when_the_device_dies_every_caller_hears_of_it(
    make_driver: MakeDriver,
    tiny_model: LlamaModel,
    byte_files: TokenizerFiles,
    error: Exception,
    overlaps: bool,
) -> None:
    model = Failing(tiny_model, error=error, dies=4)
    loop = make_driver(model=model, overlaps=overlaps).loop
    client = LocalClient(lambda: loop, byte_files)
    try:
        params = SamplingParams(max_tokens=50, temperature=0.0, ignore_eos=True)
        requests = [GenerateRequest((Ids(tuple(text.encode())),), params) for text in TEXTS]
        for stream in [client.generate(request) for request in requests]:
            with pytest.raises(EngineDied, match="illegal memory|misaligned"):
                list(stream)
    finally:
        client.close()
    assert model.num_steps == 4  # no span is tried again on a dead device


@pytest.mark.parametrize(
    ("error", "short", "fatal"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), True, False),
        (torch.AcceleratorError("CUDA error: out of memory"), True, False),
        (RuntimeError("cuBLAS error: CUBLAS_STATUS_ALLOC_FAILED when calling"), True, False),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), True, False),
        (RuntimeError("NCCL error: unhandled system error"), False, True),
        (RuntimeError("CUDA driver error: device not ready"), False, True),
        (RuntimeError("CUDA driver error: out of memory"), True, False),
        (FATAL[0], False, True),
        (FATAL[1], False, True),
        (RuntimeError("shape mismatch"), False, False),
        (ValueError("out of memory"), False, False),
        (KeyError("CUDA error"), False, False),
    ],
)
def test_what_errors_of_a_device_mean(error: Exception, short: bool, fatal: bool) -> None:
    assert (is_out_of_memory(error), is_fatal(error)) == (short, fatal)
