"""Launches that differ as a server's steps do, in how much there is of everything: one kernel each
has to serve them all, or it would be compiled anew while requests wait."""

from unittest import mock

import torch

from sapwood.kernels.adjust_logits import Adjustments
from sapwood.kernels.adjust_logits.triton_kernel import adjust_logits_triton
from sapwood.kernels.kv_pages import KVPages
from sapwood.kernels.logprobs.triton_kernel import token_logprobs_triton
from sapwood.kernels.paged_attention import paged_attention, plan_attention
from sapwood.kernels.quant_linear.triton_kernel import quant_linear_triton
from sapwood.kernels.quant_weight import QuantWeight
from sapwood.kernels.rms_norm.triton_kernel import add_rms_norm_triton
from sapwood.kernels.rotate_store.triton_kernel import rotate_and_store_triton
from sapwood.kernels.sample.triton_kernel import draw_triton

BF16 = torch.bfloat16
SIZES = 1, 2, 16, 17


def launch_add_rms_norm() -> None:
    for rows in SIZES:
        x = torch.empty(rows, 576, dtype=BF16)
        add_rms_norm_triton(x, torch.empty(rows, 576), x[0], 1e-5)


def launch_rotate_and_store() -> None:
    for tokens in SIZES:
        qkv, cos = torch.empty(tokens, 15, 64, dtype=BF16), torch.empty(tokens, 64)
        pages = torch.empty(8, 16, 3, 64, dtype=BF16)
        slots = torch.empty(tokens, dtype=torch.int64)
        rotate_and_store_triton(qkv, cos, cos, KVPages(pages, pages), slots, None)


def launch_paged_attention() -> None:
    pages = torch.zeros(32, 16, 3, 64, dtype=BF16)
    for rows in SIZES:
        contexts = [257 + row for row in range(rows)]
        table = torch.zeros((rows, 20), dtype=torch.int32)
        with mock.patch("sapwood.kernels.implementation.is_triton", lambda x: True):
            plan = plan_attention(
                [1] * rows, contexts, table, 16, group=3, window=None, dtype=BF16, device="cpu"
            )
            q = torch.zeros(rows, 9, 64, dtype=BF16)
            paged_attention(q, KVPages(pages, pages), plan, scale=0.1)


def launch_quant_linear() -> None:
    numbers = torch.empty((576, 96 * 8), dtype=torch.int32)
    weight = QuantWeight(numbers, torch.empty((576, 96), dtype=torch.float16), None, 8)
    for rows in (2, 3, 16):
        quant_linear_triton(torch.empty(rows, weight.inputs, dtype=BF16), weight, None, BF16)


def launch_adjust_logits() -> None:
    for size in SIZES:
        ints = [torch.empty(size, dtype=torch.int32) for _ in range(5)]
        floats = [torch.empty(size) for _ in range(4)]
        adjusted = Adjustments(*ints[:3], size - 1, *floats[:3], *ints[3:], floats[3])
        adjust_logits_triton(torch.empty(size, 49_152), adjusted)


def launch_draw() -> None:
    for rows in SIZES:
        floats = [torch.empty(rows) for _ in range(3)]
        places = torch.empty(rows, dtype=torch.int32)
        drawn = torch.empty(rows, dtype=torch.int64)
        draw_triton(
            *(torch.empty(rows, 49_152), floats[0], places, *floats[1:]),
            streams=drawn,
            positions=drawn,
            masks=torch.empty(8, 1_536, dtype=torch.int32),
            places=places,
        )


def launch_logprobs() -> None:
    for top in (0, *SIZES):
        pair = torch.empty(top + 1, dtype=torch.int64)
        token_logprobs_triton(torch.empty(top + 1, 49_152), pair, pair, top)
