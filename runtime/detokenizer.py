"""Output tokens to text, piece by piece. One Detokenizer per sample.

Owns: the bytes not yet shown: half a character, or what may be the begin of a stop. The text of all
pieces together is the text of all tokens up to the cut, less half a character at their end. Knows
no transport and no other sample.
"""

import codecs
from collections.abc import Sequence
from dataclasses import dataclass

from .holdback import HoldBack
from .protocol import FinishReason, SamplingParams
from .token_table import TokenTable


@dataclass(frozen=True)
class Ending:
    """The last piece of text; the tokens that end before the cut, or those of the prompt that the
    first of them was to replace; the text between these and the cut."""

    text: str
    kept_ids: tuple[int, ...]
    tail: str


class Detokenizer:
    def __init__(self, table: TokenTable, sampling: SamplingParams) -> None:
        self._table = table
        self._show_special = not sampling.skip_special_tokens
        strings, patterns = sampling.stop, sampling.stop_regex
        if sampling.no_stop_trim:  # the stop is shown, as early as it comes; not what it looks at
            strings, patterns = (), tuple(each for each in patterns if "(?=" in each)
        self._holdback = HoldBack(strings, patterns)
        self._ids: list[int] = []
        self._replaced: tuple[int, ...] = ()
        self._num_hidden = 0  # bytes of the first token that are no output
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._num_shown = 0  # characters

    def begin(self, replaced: Sequence[int]) -> int:
        """Before the first token: it also spells these tokens of the prompt, in whose place it
        stands. Returns how many of its bytes they are."""
        self._replaced = tuple(replaced)
        self._num_hidden = len(b"".join(self._table.pieces(replaced, show_special=True)))
        return self._num_hidden

    def _pieces(self, ids: Sequence[int]) -> list[bytes]:
        return self._table.pieces(ids, show_special=self._show_special)

    def push(self, token_ids: Sequence[int]) -> str:
        """The text that may be shown now."""
        data = b"".join(self._pieces(token_ids))
        if not self._ids:
            data = data[self._num_hidden :]
        self._ids += token_ids
        text = self._holdback.push(self._decoder.decode(data))
        self._num_shown += len(text)
        return text

    def finish(self, token_ids: Sequence[int], finish: FinishReason, cut: int | None) -> Ending:
        """The end, by the engine's word: `cut` bytes of the output remain (None: all)."""
        self._ids += token_ids
        ids = self._ids
        if isinstance(finish.matched, int) and ids and ids[-1] == finish.matched:
            ids = ids[:-1]  # an end token is no text
        pieces = self._pieces(ids)
        if ids:
            pieces[0] = pieces[0][self._num_hidden :]
        num_kept, kept = _keep(pieces, cut)
        tail = b"".join(pieces[num_kept:])
        if cut is not None and cut < len(kept) + len(tail):
            # What follows the cut has shown that a character cut short before it is none at all.
            tail_text = tail[: max(0, cut - len(kept))].decode("utf-8", "replace")
        else:
            tail_text = _whole_characters(tail)
        whole = kept.decode("utf-8", "replace") + tail_text
        kept_ids = tuple(ids[:num_kept]) or self._replaced
        return Ending(whole[self._num_shown :], kept_ids, tail_text)


def _keep(pieces: Sequence[bytes], cut: int | None) -> tuple[int, bytes]:
    """The most leading tokens that end before the cut and between two characters; their bytes."""
    num_kept = len(pieces)
    size = sum(map(len, pieces))
    while num_kept and cut is not None and size > cut:
        num_kept -= 1
        size -= len(pieces[num_kept])
    data = b"".join(pieces[:num_kept])
    while num_kept and _is_cut(data):
        num_kept -= 1
        data = data[: len(data) - len(pieces[num_kept])]
    return num_kept, data


def _whole_characters(data: bytes) -> str:
    """The text without an incomplete last character, which the next token might have completed."""
    return codecs.getincrementaldecoder("utf-8")("replace").decode(data)


def _is_cut(data: bytes) -> bool:
    """Whether the last character is incomplete."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    decoder.decode(data[-3:])
    return decoder.getstate()[0] != b""
