"""Gathers the chunks of one generation's samples until every sample has finished.

Owns: the check that the client kept its word. Pure but for its own lists; one per request.
"""

from ..runtime.errors import EngineError
from ..runtime.native_format import MetaInfo
from ..runtime.protocol import Chunk, GenerateRequest
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

    def value(self) -> tuple[str | list[str], Meta]:
        """(text, meta info) of the only sample, or lists of them in sample order."""
        texts = ["".join(chunk.text for chunk in sample) for sample in self.samples]
        metas = [meta.as_dict() for meta in self.metas]
        return (texts[0], metas[0]) if len(texts) == 1 else (texts, metas)

    def first_text(self) -> str:
        return "".join(chunk.text for chunk in self.samples[0])

    def continuation(self) -> tuple[tuple[int, ...], str]:
        """(ids, tail) from which the program goes on after the first sample."""
        first, last = self.samples[0][0], self.samples[0][-1]
        if first.prompt_ids is None:
            raise EngineError("the first chunk of a generation did not carry its prompt's ids")
        return first.prompt_ids + last.kept_ids, last.tail
