"""Samples as the native API shows them: text, output ids and meta info."""

from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

from ..runtime.protocol import Chunk, GenerateRequest
from .answers import Answer


@dataclass
class Sample:
    """One sample of one prompt. Written only by `add` and `abort`.

    `place`: its place in the answer, samples of one prompt side by side. `seconds`: from the start
    to its end.
    """

    request: GenerateRequest
    place: int
    answer: Answer = field(default_factory=Answer)
    begin: float = field(default_factory=perf_counter)
    seconds: float | None = None
    is_aborted: bool = False

    def add(self, chunk: Chunk) -> None:
        self.answer.add(chunk)
        if chunk.finish is not None:
            self.seconds = perf_counter() - self.begin

    def abort(self) -> None:
        self.is_aborted = True
        self.seconds = perf_counter() - self.begin


def samples(requests: list[GenerateRequest]) -> list[list[Sample]]:
    """The samples of every request, with nothing in them yet."""
    table: list[list[Sample]] = []
    place = 0
    for request in requests:
        places = range(place, place + request.sampling.n)
        table.append([Sample(request, one) for one in places])
        place += request.sampling.n
    return table


def sample_object(sample: Sample, *, with_prompt_ids: bool) -> dict[str, Any]:
    """What is known of the sample so far."""
    answer = sample.answer
    shown: dict[str, Any] = {
        "text": answer.text,
        "output_ids": answer.token_ids,
        "meta_info": _meta(sample),
    }
    if with_prompt_ids:
        shown["prompt_token_ids"] = list(answer.prompt_ids)
    return shown
