"""The bytes of every token: the one table that text is made from, on both sides of the wire.

Owns: token id -> bytes. Knows no request and no tokenizer beyond its vocabulary.
"""

from collections.abc import Iterable, Mapping, Sequence

from .protocol import TokenLogprob
from .tokenizer import TokenizerFiles


class TokenTable:
    """`token_bytes[t]`: the bytes of token t, None for special tokens; `special`: those's texts."""

    def __init__(self, token_bytes: Sequence[bytes | None], special: Mapping[int, bytes]) -> None:
        hidden = [data or b"" for data in token_bytes]
        shown = list(hidden)
        for token, text in special.items():
            if token_bytes[token] is None:
                shown[token] = text
        self._hidden, self._shown = hidden, shown
        self.max_bytes = max(map(len, shown))  # of one token

    @classmethod
    def of(cls, files: TokenizerFiles) -> "TokenTable":
        return cls(files.vocabulary.token_bytes, files.special_bytes)

    def pieces(self, ids: Iterable[int], *, show_special: bool) -> list[bytes]:
        """The bytes of each token; a special token's are empty unless shown. A row that pads the
        model's vocabulary beyond the tokenizer's has none."""
        table = self._shown if show_special else self._hidden
        size = len(table)
        return [table[id] if id < size else b"" for id in ids]

    def spell(self, logprobs: Iterable[TokenLogprob]) -> tuple[TokenLogprob, ...]:
        """The same log-probabilities with every token's bytes beside it."""
        return tuple(
            TokenLogprob(
                entry.token_id,
                entry.logprob,
                entry.top,
                piece=self.pieces([entry.token_id], show_special=True)[0],
                top_pieces=tuple(self.pieces([id for id, _ in entry.top], show_special=True)),
            )
            for entry in logprobs
        )
