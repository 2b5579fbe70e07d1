"""The samples of a vendor's streamed answer, as chunks.

Owns: the rule that a sample's finish comes last and with the token counts, which vendors tell at
the end of the stream.
"""

from collections.abc import Iterator

from ...runtime.errors import EngineError
from ...runtime.protocol import Chunk, FinishKind, FinishReason, Usage

_KINDS = {
    "stop": FinishKind.STOP,
    "end_turn": FinishKind.STOP,
    "stop_sequence": FinishKind.STOP,
    "length": FinishKind.LENGTH,
    "max_tokens": FinishKind.LENGTH,
}


class Samples:
    """`text` and `finish` as the answer comes, `end` once it is complete."""

    def __init__(self, n: int) -> None:
        self._finishes: list[FinishReason | None] = [None] * n
        self.usage = Usage(0, 0, 0, 0)

    def text(self, index: int, text: str) -> Chunk:
        return Chunk(index, text, (), self.usage)

    def finish(self, index: int, reason: str, matched: str | None = None) -> None:
        kind = _KINDS.get(reason)
        if kind is None:
            raise EngineError(f"the model ended its answer for another reason: {reason}")
        self._finishes[index] = FinishReason(kind, matched)

    def count(self, prompt: int, completion: int, cached: int = 0) -> None:
        """Tokens of all samples together: vendors do not tell them apart."""
        self.usage = Usage(prompt, cached, completion, 0)

    def end(self) -> Iterator[Chunk]:
        for index, finish in enumerate(self._finishes):
            if finish is None:
                raise EngineError("the answer ended before the model had finished")
            yield Chunk(index, "", (), self.usage, finish=finish)
