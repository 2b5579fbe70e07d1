"""Gathers the chunks of one generation's samples until every sample has finished.

Owns: the check that the client kept its word. Pure but for its own lists; one per request.
"""

from typing import Any

from ..runtime.errors import EngineError
from ..runtime.native_format import MetaInfo
from ..runtime.protocol import Chunk, FinishReason, GenerateRequest
from .typed import Decoder
from .variables import Meta


class Collector:
    """`add` in order of arrival; complete once each sample has its finish. Made when the request
    is sent: latencies count from then."""

    def __init__(self, request: GenerateRequest) -> None:
        n = request.sampling.n
        self.samples: list[list[Chunk]] = [[] for _ in range(n)]
        self.metas = [MetaInfo(request.request_id, request.logprobs) for _ in range(n)]
        self._unfinished = n

    def add(self, chunk: Chunk) -> None:
        if not 0 <= chunk.index < len(self.samples):
            raise EngineError(f"a chunk of sample {chunk.index} of {len(self.samples)} arrived")
        sample = self.samples[chunk.index]
        if sample and sample[-1].finish is not None:
            raise EngineError(f"a chunk of sample {chunk.index} arrived after its finish")
        sample.append(chunk)
        self.metas[chunk.index].add(chunk)
        self._unfinished -= chunk.finish is not None

    @property
    def complete(self) -> bool:
        return self._unfinished == 0

    def value(self, decoder: Decoder | None = None) -> tuple[Any, Meta]:
        """(value, meta info) of the only sample, or lists of them in sample order.

        A value is the text, or with a decoder what it reads there; the meta info then has the text
        as "text". Raises DecodeError.
        """
        values: list[Any] = []
        metas: list[dict[str, Any]] = []
        for sample, meta in zip(self.samples, self.metas, strict=True):
            text = "".join(chunk.text for chunk in sample)
            facts = meta.as_dict()
            values.append(text if decoder is None else decoder.decode(text, _finish(sample)))
            metas.append(facts if decoder is None else facts | {"text": text})
        return (values[0], metas[0]) if len(values) == 1 else (values, metas)

    def first_text(self) -> str:
        return "".join(chunk.text for chunk in self.samples[0])

    def continuation(self) -> tuple[tuple[int, ...], str]:
        """(ids, tail) from which the program goes on after the first sample."""
        first, last = self.samples[0][0], self.samples[0][-1]
        if first.prompt_ids is None:
            raise EngineError("the first chunk of a generation did not carry its prompt's ids")
        return first.prompt_ids + last.kept_ids, last.tail


def _finish(sample: list[Chunk]) -> FinishReason:
    finish = sample[-1].finish
    assert finish is not None, "a sample is read before its end"
    return finish
