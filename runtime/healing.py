"""Token healing: a prompt that ends inside a would-be token, and what may take that token's place.

Owns: which tokens at a text's end are tentative, and what may be drawn instead of them. Knows no
request and no batch.

    "The capital of Fra"    The| capital| of| Fra       the tokenizer's own tokens
                                            |~~~|       tentative: there are tokens that go on
                            The| capital| of| France    drawn in its place; the output is "nce"

Token after token, the model chooses between the tentative token itself, which then belongs to the
prompt as if nothing had been asked, and any token that spells all the tentative text that is left
and goes on. So the prompt's text never changes, and what follows it is at worst what would follow
without healing. Other spellings of the tentative text are not on offer: the tokenizer would not
write them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..constrained import GrammarState, Vocabulary


def num_tentative(ids: Sequence[int], text: str, vocabulary: Vocabulary) -> int:
    """How many of the last `ids` are tentative; `text` is what was said last, and they lie in it.

    As many as possible: a would-be token may have become several. Never the first of `ids`, for
    something must stand before what is drawn. None where the tokens do not spell the text.
    """
    end = text[-vocabulary.longest :].encode()
    spelled, found = b"", 0
    for count, token in enumerate(reversed(ids[1:]), start=1):
        piece = vocabulary.token_bytes[token] if token < vocabulary.size else None
        spelled = (piece or b"") + spelled
        if not piece or len(spelled) >= vocabulary.longest or not end.endswith(spelled):
            break
        if len(vocabulary.beginning(spelled, and_more=True)):
            found = count
    return found


@dataclass(frozen=True, eq=False)
class Tentative:
    """The prompt's last tokens, in whose place another may be drawn; never empty."""

    ids: tuple[int, ...]
    vocabulary: Vocabulary

    @property
    def text(self) -> bytes:
        return b"".join(self.vocabulary.token_bytes[token] or b"" for token in self.ids)

    def after(self, count: int) -> "Tentative | None":
        """What is left when the first `count` belong to the prompt."""
        return Tentative(self.ids[count:], self.vocabulary) if count < len(self.ids) else None


@dataclass(frozen=True, eq=False)
class Healing:
    """What may be drawn where tentative tokens stand: the first of them, or one that spells more
    than all of them. Of that, `grammar` allows what is more; without a grammar it must not go on
    with one of `stops`, for nothing shall end an output before it begins."""

    tentative: Tentative
    grammar: GrammarState | None
    stops: tuple[str, ...] = ()

    def fill_mask(self, row: NDArray[np.int32], budget: int | None = None) -> None:
        """See `GrammarState.fill_mask`. `budget`: of output tokens, of which a tentative one is
        none."""
        if self.grammar is not None:
            self.grammar.fill_mask_beyond(self.tentative.text, row, budget)
        else:
            row[:] = self._longer(len(row))
        own = self.tentative.ids[0]
        row.view(np.uint32)[own // 32] |= np.uint32(1 << own % 32)

    def _longer(self, num_words: int) -> NDArray[np.int32]:
        vocabulary, text = self.tentative.vocabulary, self.tentative.text
        allowed = np.zeros(num_words * 32, np.bool_)
        allowed[vocabulary.beginning(text, and_more=True)] = True
        for stop in self.stops:
            allowed[vocabulary.beginning(text + stop.encode())] = False
        words: NDArray[np.int32] = np.packbits(allowed, bitorder="little").view(np.int32)
        return words
