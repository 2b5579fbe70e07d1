"""The small ops, linear maps and draws in bfloat16 against float64 on odd shapes."""

import numpy as np
import torch
import torch.nn.functional as F

from sapwood.kernels.gated_activation import gated_activation
from sapwood.kernels.kv_pages import KVPages
from sapwood.kernels.logprobs import token_logprobs
from sapwood.kernels.quant_linear import quant_linear
from sapwood.kernels.quant_rows import quant_rows
from sapwood.kernels.quant_weight import quantize
from sapwood.kernels.rms_norm import add_rms_norm
from sapwood.kernels.rotary import RotaryAngles
from sapwood.kernels.rotate_store import rotate_and_store
from sapwood.kernels.sample import sample
from sapwood.kernels.sample.reference import draw_reference

from .correctness import BOUND
from .device import Device
from .report import Table

Pair = tuple[torch.Tensor, torch.Tensor]  # what came, what was wanted


def _error(pair: Pair) -> float:
    got, wanted = pair[0].double(), pair[1].double()
    return float((got - wanted).abs().max() / wanted.abs().max().clamp(min=1e-30))


class _Ops:
    def __init__(self, device: Device) -> None:
        self._device = device.torch_device
        self._dtype = torch.bfloat16 if device.is_gpu else torch.float16

    def random(self, *shape: int) -> torch.Tensor:
        return torch.randn(shape, device=self._device).to(self._dtype)

    def add_rms_norm(self, tokens: int, size: int) -> Pair:
        x, weight = self.random(tokens, size), self.random(size)
        total = torch.randn(tokens, size, device=self._device)
        summed = total.double() + x.double()
        scale = torch.rsqrt(summed.square().mean(-1, keepdim=True) + 1e-5)
        return add_rms_norm(x, total, weight, 1e-5), summed * scale * weight.double()

    def gated_activation(self, tokens: int, size: int) -> Pair:
        gate_up = self.random(tokens, 2 * size)
        gate, up = gate_up.double().chunk(2, dim=1)
        return gated_activation(gate_up), F.silu(gate) * up

    def rotated_queries(self, tokens: int, size: int) -> Pair:
        size += size % 2
        qkv = self.random(tokens, 7, size)
        k, v = (torch.zeros(-(-tokens // 4), 4, 2, size, device=self._device) for _ in "kv")
        pages = KVPages(k.to(self._dtype), v.to(self._dtype))
        places = torch.arange(tokens, device=self._device)
        frequencies = (10_000.0 ** -(np.arange(0, size, 2) / size)).astype(np.float32)
        cos, sin = RotaryAngles(frequencies, device=self._device).at(places * 37)
        q = qkv[:, :3].double()
        wanted = q * cos.double()[:, None] + q.roll(size // 2, -1) * sin.double()[:, None]
        return rotate_and_store(qkv, cos, sin, pages, places), wanted

    def quantised_map(self, tokens: int, size: int, bits: int) -> Pair:
        inputs = -(-size // 32) * 32
        weight = quantize(torch.randn(size, inputs, device=self._device), bits)
        x = self.random(tokens, inputs)
        exact = quant_rows(weight, None, torch.float32).double()
        return quant_linear(x, weight), x.double() @ exact.T

    def logprobs(self, tokens: int, size: int) -> Pair:
        logits = torch.randn(tokens, size, device=self._device) * 5
        rows = torch.arange(tokens, device=self._device)
        chosen = rows % size
        wanted = torch.log_softmax(logits.double(), -1)[rows, chosen]
        return token_logprobs(logits, rows, chosen, 0).of_tokens, wanted

    def draws(self, tokens: int, size: int) -> Pair:
        logits = torch.randn(tokens, size, device=self._device) * 2
        full = {"device": self._device}
        limits = (
            torch.full((tokens,), 0.9, **full),
            torch.full((tokens,), 40, **full),
            torch.full((tokens,), 0.95, **full),
            torch.full((tokens,), 0.01, **full),
            torch.rand(tokens, dtype=torch.float64, **full),
        )
        return sample(logits, *limits), draw_reference(logits, *limits)


def table(device: Device) -> Table:
    table = Table(
        "Correctness of the other ops",
        ("op", "shapes", "largest error", "worst shape"),
        f"Bound: {BOUND}; draws must be the reference's own tokens.",
    )
    ops = _Ops(device)
    tokens = (1, 2, 5, 17, 64, 65, 257) if device.is_gpu else (1, 5)
    sizes = (32, 33, 96, 577, 4_096, 14_337) if device.is_gpu else (32, 33)
    for name, op, bound in (
        ("add_rms_norm", ops.add_rms_norm, BOUND),
        ("gated_activation", ops.gated_activation, BOUND),
        ("rotate_and_store, queries", lambda t, s: ops.rotated_queries(t, min(s, 256)), BOUND),
        ("quant_linear, 8 bits", lambda t, s: ops.quantised_map(t, s, 8), BOUND),
        ("quant_linear, 4 bits", lambda t, s: ops.quantised_map(t, s, 4), BOUND),
        ("log-probabilities", ops.logprobs, 1e-5),
        ("draws", ops.draws, 0.0),
    ):
        errors = {(count, size): _error(op(count, size)) for count in tokens for size in sizes}
        worst = max(errors, key=lambda shape: errors[shape])
        table.add(name, str(len(errors)), f"{errors[worst]:.2e}", str(worst))
        assert errors[worst] <= bound, f"{name} is wrong by {errors[worst]} for {worst}"
    return table
