"""Figures of draws and log-probabilities, beside one pass over the logits."""

import torch

from sapwood.kernels.logprobs import token_logprobs
from sapwood.kernels.sample import sample
from sapwood.kernels.sample.reference import draw_reference

from .device import Device, Limits
from .report import Table, microseconds, share

_LIMITS = {  # temperature, top_k, top_p, min_p
    "greedy": (0.0, -1, 1.0, 0.0),
    "temperature": (0.8, -1, 1.0, 0.0),
    "top_k 50": (0.8, 50, 1.0, 0.0),
    "top_p 0.9": (0.8, -1, 0.9, 0.0),
    "top_k 50, top_p 0.9, min_p 0.02": (0.8, 50, 0.9, 0.02),
}


def table(device: Device, limits: Limits) -> Table:
    table = Table(
        "Draws and log-probabilities",
        ("op", "rows x vocabulary", "time", "of one pass at copy bandwidth", "torch, by sorting"),
        "One pass: the logits' bytes at copy bandwidth. Above 100 % means that many passes.",
    )
    shapes = ((1, 128_256), (128, 128_256), (128, 49_152)) if device.is_gpu else ((2, 300),)
    for rows, vocab in shapes:
        place = device.torch_device
        logits = torch.randn(rows, vocab, device=place) * 3
        one_pass = logits.nbytes / limits.bandwidth
        uniforms = torch.rand(rows, dtype=torch.float64, device=place)
        for name, values in _LIMITS.items():
            temperature, top_k, top_p, min_p = (
                torch.full((rows,), value, device=place) for value in values
            )
            arguments = (logits, temperature, top_k, top_p, min_p, uniforms)
            seconds = device.seconds(lambda a=arguments: sample(*a))
            sorting = device.seconds(lambda a=arguments: draw_reference(*a)) if values[0] else 0.0
            table.add(
                f"draw, {name}",
                f"{rows} x {vocab:,}",
                microseconds(seconds),
                share(seconds, one_pass),
                microseconds(sorting) if sorting else "-",
            )
        _add_logprobs(table, device, logits, one_pass)
    return table


def _add_logprobs(table: Table, device: Device, logits: torch.Tensor, one_pass: float) -> None:
    rows = torch.arange(len(logits), device=logits.device)
    for top in (0, 20):
        seconds = device.seconds(lambda top=top: token_logprobs(logits, rows, rows, top))
        by_softmax = device.seconds(lambda top=top: _plain(logits, max(top, 1)))
        table.add(
            f"log-probability, and the {top} likeliest" if top else "log-probability",
            f"{len(logits)} x {logits.shape[1]:,}",
            microseconds(seconds),
            share(seconds, one_pass),
            microseconds(by_softmax),
        )


def _plain(logits: torch.Tensor, top: int) -> object:
    return torch.log_softmax(logits, -1).topk(top)
