"""Models whose matrices are kept in small integers or 8-bit floats, by the definitions and through
Triton."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch

from sapwood.kernels.fp8_linear import Fp8Weight
from sapwood.kernels.paged_attention import plan_attention
from sapwood.kernels.quant_rows.reference import quant_rows_reference
from sapwood.kernels.quant_weight import Bits, QuantWeight, quantize
from sapwood.runtime.config import ComputeDtype
from sapwood.runtime.errors import InvalidRequest
from sapwood.runtime.models.config import LlamaConfig
from sapwood.runtime.models.layers import Embedding
from sapwood.runtime.models.llama import LlamaModel
from sapwood.runtime.models.matrices import Float8, Integers, Matrices, matrices_of
from sapwood.runtime.models.torch_tensors import TorchTensors
from sapwood.runtime.models.weights import expected_shapes, is_kept_quantized, open_checkpoint
from sapwood.runtime.torch_backend import check_fp8
from sapwood.runtime.torch_path.forward import ForwardInputs
from sapwood.runtime.torch_path.kv_cache import KVCache

PAGE_SIZE = 16


def config(*, tied: bool, inner: int = 96) -> LlamaConfig:
    return LlamaConfig(
        architecture="Qwen2ForCausalLM",
        vocab_size=131,
        hidden_size=64,
        intermediate_size=inner,
        num_layers=2,
        num_heads=4,
        num_kv_heads=2,
        head_dim=16,
        context_length=512,
        qkv_bias=True,
        tie_embeddings=tied,
    )


@dataclass(frozen=True)
class Random:
    """Random weights. `bits`: of what its matrices, float as they are, were once rounded to."""

    config: LlamaConfig
    bits: Bits | None = None
    names: list[str] = field(default_factory=list)

    def tensor(self, name: str, dtype: torch.dtype) -> torch.Tensor:
        self.names.append(name)
        shape = expected_shapes(self.config)[name]
        generator = torch.Generator().manual_seed(sum(name.encode()))
        values = torch.randn(shape, generator=generator) * (0.1 if len(shape) == 1 else 0.125)
        values += float("norm" in name)
        if self.bits is not None and len(shape) == 2 and shape[1] % 32 == 0:
            values = quant_rows_reference(quantize(values, self.bits), None, torch.float32)
        return values.to(dtype)


def logits(model: LlamaModel, ids: Sequence[int]) -> torch.Tensor:
    """Of all tokens but the last two computed together, and then of each of these."""
    arch = model.config
    num_pages = -(-len(ids) // PAGE_SIZE)
    sizes = (arch.num_layers, num_pages, PAGE_SIZE, arch.num_kv_heads, arch.head_dim)
    kv = KVCache(*sizes, model.dtype)
    table = torch.arange(num_pages, dtype=torch.int32).view(1, -1)
    found = []
    for start, end in ((0, len(ids) - 2), (len(ids) - 2, len(ids) - 1), (len(ids) - 1, len(ids))):
        plan = plan_attention(
            *([end - start], [end], table, PAGE_SIZE),
            group=arch.num_heads // arch.num_kv_heads,
            window=None,
            dtype=model.dtype,
            device="cpu",
        )
        positions = torch.arange(start, end)
        rows = torch.arange(end - start)
        inputs = ForwardInputs(torch.tensor(ids[start:end]), positions, positions, plan, rows)
        found.append(model.forward(inputs, kv))
    return torch.cat(found)


@pytest.fixture(params=["torch", "triton"], autouse=True)
def path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    torch.set_num_threads(1)
    if request.param == "triton":
        pytest.importorskip("triton")
        monkeypatch.setattr("sapwood.kernels.implementation.is_triton", lambda x: True)
    return str(request.param)


IDS = [3, 130, 7, 7, 64, 20, 99, 1, 0]


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("bits", [4, 8])
def test_a_quantised_model_is_the_dequantised_one(bits: Bits, tied: bool) -> None:
    arch = config(tied=tied)
    quantised = LlamaModel.load(Random(arch), torch.float32, matrices=Integers(None, bits))
    floats = LlamaModel.load(Random(arch, bits), torch.float32)
    got, wanted = logits(quantised, IDS), logits(floats, IDS)
    assert got.dtype is torch.float32
    assert (got - wanted).abs().max() <= 1e-5 * wanted.abs().max()
    assert quantised.weight_bytes < floats.weight_bytes / (3 if bits == 8 else 5)
    assert quantised.dtype is torch.float32


def test_rows_that_are_no_whole_groups_stay_floats() -> None:
    arch = config(tied=True, inner=80)
    source = Random(arch)
    model = LlamaModel.load(source, torch.float32, matrices=Integers(None, 8))
    floats = LlamaModel.load(Random(arch, 8), torch.float32)
    assert torch.allclose(logits(model, IDS), logits(floats, IDS), atol=1e-4)
    down = Integers(None, 8).read(
        source, ["model.layers.0.mlp.down_proj.weight"], torch.float32, "cpu"
    )
    assert isinstance(down, torch.Tensor)


def test_a_model_in_float8_is_near_the_exact_one() -> None:
    arch = config(tied=True)
    model = LlamaModel.load(Random(arch), torch.float32, matrices=Float8())
    exact = LlamaModel.load(Random(arch), torch.float32)
    got, wanted = logits(model, IDS), logits(exact, IDS)
    assert 1e-3 < (got - wanted).norm() / wanted.norm() < 0.15
    assert model.weight_bytes < exact.weight_bytes


def test_float8_is_for_the_layers_aligned_matrices() -> None:
    arch = config(tied=False, inner=88)
    layer = "model.layers.0.mlp"

    def read(*names: str) -> object:
        return Float8().read(Random(arch), names, torch.bfloat16, "cpu")

    assert isinstance(read(f"{layer}.gate_proj.weight", f"{layer}.up_proj.weight"), Fp8Weight)
    assert isinstance(read(f"{layer}.down_proj.weight"), torch.Tensor)  # 88 inputs
    assert isinstance(read("lm_head.weight"), torch.Tensor)
    with pytest.raises(TypeError, match="e4m3"):
        Embedding(Fp8Weight(torch.zeros(16, 16).to(torch.float8_e4m3fn), torch.ones(1, 16)))


@dataclass(frozen=True)
class Stored:
    """Two tensors [2, 32] as files store them."""

    storages: dict[str, str]

    def storage(self, name: str) -> str:
        return self.storages[name]

    def shape(self, name: str) -> tuple[int, ...]:
        return (2, 32)

    def raw(self, name: str) -> npt.NDArray[np.uint8]:
        size = {"Q8_0": 34, "Q4_0": 18, "Q4_1": 20}[self.storages[name]]
        rows = np.full((2, size), 3, np.uint8)
        rows[:, :4:2], rows[:, 1:4:2] = 0, 60  # scales of 1
        return rows

    def tensor(self, name: str, dtype: torch.dtype) -> torch.Tensor:
        return torch.linspace(-1, 1, 64).view(2, 32).to(dtype)


@pytest.mark.parametrize(
    ("first", "second", "dtype", "bits"),
    [
        ("Q8_0", "Q8_0", "stored", 8),
        ("Q4_1", "Q4_0", "stored", 4),
        ("Q8_0", "Q4_0", "stored", None),
        ("Q8_0", "F16", "stored", None),
        ("F16", "F16", "stored", None),
        ("Q8_0", "F16", "int8", 8),
        ("Q8_0", "Q4_1", "q4", 4),
        ("Q8_0", "Q8_0", "bfloat16", None),
    ],
)
def test_the_form_of_what_files_store(
    first: str, second: str, dtype: ComputeDtype, bits: Bits | None
) -> None:
    stored = Stored({"a": first, "b": second})
    matrix = matrices_of(dtype, stored).read(stored, ["a", "b"], torch.bfloat16, "cpu")  # type: ignore[arg-type]
    if bits is None:
        assert isinstance(matrix, torch.Tensor) and matrix.dtype is torch.bfloat16
        return
    assert isinstance(matrix, QuantWeight) and matrix.bits == bits
    assert (matrix.outputs, matrix.inputs) == (4, 32)
    # Kept are the numbers of a format with as many bits; its scales are ones, those of others not.
    kept = [name for name in (first, second) if (name == "Q8_0") == (bits == 8) and name[0] == "Q"]
    assert (matrix.scales == 1).all(dim=1).sum() == 2 * len(kept)


def test_the_default_models_own_numbers_are_kept(default_model: Path, path: str) -> None:
    if path == "triton":
        pytest.skip("nothing is multiplied")
    names = [f"model.layers.7.self_attn.{part}_proj.weight" for part in "qkv"]
    with open_checkpoint(default_model) as checkpoint:
        tensors = TorchTensors(checkpoint)
        assert is_kept_quantized(checkpoint)
        matrices: Matrices = matrices_of("stored", checkpoint)
        for part, bits in ((names, 4), (["model.embed_tokens.weight"], 8)):
            matrix = matrices.read(tensors, part, torch.bfloat16, "cpu")
            assert isinstance(matrix, QuantWeight) and matrix.bits == bits
            exact = torch.cat([tensors.tensor(name, torch.float32) for name in part])
            assert torch.equal(quant_rows_reference(matrix, None, torch.float32), exact)
            assert matrix.nbytes == sum(checkpoint.raw(name).nbytes for name in part)


@pytest.mark.slow
def test_the_default_model_as_it_is_stored(default_model: Path, path: str) -> None:
    if path == "triton":
        pytest.skip("too large for an interpreter")
    with open_checkpoint(default_model) as checkpoint:
        tensors = TorchTensors(checkpoint)
        stored = LlamaModel.load(tensors, torch.float32, matrices=matrices_of("stored", checkpoint))
        floats = LlamaModel.load(tensors, torch.float32)
    ids = [504, 2365, 282, 253, 5189, 314, 260, 1938]
    got, wanted = logits(stored, ids), logits(floats, ids)
    assert (got - wanted).abs().max() <= 1e-4 * wanted.abs().max()
    assert stored.weight_bytes < 100e6


def test_float8_is_refused_where_the_gpu_has_none() -> None:
    check_fp8("dtype", "H100", (9, 0))
    with pytest.raises(InvalidRequest, match=r"dtype: fp8 needs .* 8\.9, and A100 has 8\.0"):
        check_fp8("dtype", "A100", (8, 0))
