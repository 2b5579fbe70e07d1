"""Texts to token ids, where only some of the text may parse into special tokens.

Owns: the rule that user text never becomes a special token, and that neighbouring texts are
tokenized as the one text that they make. Knows no request and no limits.
"""

import json
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, Literal

from tokenizers import AddedToken, Encoding, Tokenizer

from .protocol import Text

Place = Literal["first", "after special", "after ids"]
"""Where a text stands. Tokenizers of the sentencepiece kind put a space before the first text, some
also after a special token; after ids, which some text must have ended in, none may."""

_EMPTY: Final[dict[str, Any]] = {
    "version": "1.0",
    "added_tokens": [],
    "model": {"type": "BPE", "vocab": {}, "merges": []},
}
"""A tokenizer that knows no token, as its library writes it."""


@dataclass(frozen=True)
class _Found:
    """A special token in a text: its number in the encoding, its id and its characters."""

    at: int
    id: int
    start: int
    end: int


class TextTokenizer:
    """Thread-safe; the tokenizer releases the interpreter lock while it works.

    Equal to `tokenizer.encode(whole text, add_special_tokens=False)` wherever no special token's
    text lies in text that may not hold one.
    """

    def __init__(self, tokenizer: Tokenizer, special_ids: Collection[int]) -> None:
        self._tokenizer = tokenizer
        added: dict[int, AddedToken] = tokenizer.get_added_tokens_decoder()
        self._special = {id: added[id] for id in special_ids if id in added}
        self._special_ids = frozenset(self._special)

    def encode(self, texts: Sequence[Text], *, after_ids: bool = False) -> list[int]:
        """`after_ids`: tokens precede the text (but a BOS, before which nothing stands)."""
        whole = "".join(part.text for part in texts)
        if not whole:
            return []
        encoding = self._tokenizer.encode(whole, add_special_tokens=False)
        ids: list[int] = encoding.ids
        found = self._find_special(whole, encoding, ids)
        if not self._lie_within(whole, found, _special_regions(texts)):
            return self._encode_apart(texts, after_ids)
        if not (after_ids and self._adds_prefix):
            return ids
        at, end = (found[0].at, found[0].start) if found else (len(ids), len(whole))
        return self._plain(whole[:end], "after ids") + ids[at:]

    # --- special tokens -----------------------------------------------------------------------

    def _find_special(self, text: str, encoding: Encoding, ids: list[int]) -> list[_Found]:
        if self._special_ids.isdisjoint(ids):
            return []
        found = []
        for at, id in enumerate(ids):
            if id not in self._special_ids:
                continue
            start, end = encoding.token_to_chars(at) or (0, 0)  # none only beyond the encoding
            token = self._special[id]
            # A character that the vocabulary lacks is no special token, though it gets one's id.
            if token.normalized or text[start:end].strip() == token.content:
                found.append(_Found(at, id, start, end))
        return found

    def _lie_within(
        self, text: str, found: Iterable[_Found], regions: Sequence[tuple[int, int]]
    ) -> bool:
        """Whether every special token lies in a region; the spaces that some swallow may not."""
        for token in found:
            matched = text[token.start : token.end]
            start = token.start + len(matched) - len(matched.lstrip())
            end = token.end - len(matched) + len(matched.rstrip())
            if not any(low <= start and end <= high for low, high in regions):
                return False
        return True

    # --- text that holds a special token's text without being one -----------------------------

    def _encode_apart(self, texts: Sequence[Text], after_ids: bool) -> list[int]:
        ids: list[int] = []
        place: Place = "after ids" if after_ids else "first"
        for piece in self._cut(texts):
            if isinstance(piece, int):
                ids.append(piece)
                place = "after special"
            else:
                ids += self._plain(piece, place)
        return ids

    def _cut(self, texts: Sequence[Text]) -> list[str | int]:
        """The text as plain strings and special token ids in turn."""
        whole = "".join(part.text for part in texts)
        pieces: list[str | int] = []
        done = 0
        for low, high in _special_regions(texts):
            region = whole[low:high]
            encoding = self._tokenizer.encode(region, add_special_tokens=False)
            for token in self._find_special(region, encoding, encoding.ids):
                before = whole[done : low + token.start]
                pieces += [before.rstrip() if self._special[token.id].lstrip else before, token.id]
                done = low + token.end
                if self._special[token.id].rstrip:
                    done = len(whole) - len(whole[done:].lstrip())
        pieces.append(whole[done:])
        return [piece for piece in pieces if piece != ""]

    def _plain(self, text: str, place: Place) -> list[int]:
        """`text` as ordinary tokens, whatever it spells."""
        if not text:
            return []
        tokenizer = self._variants[place]
        encoding = tokenizer.encode(text, add_special_tokens=False)
        ids: list[int] = encoding.ids
        found = self._find_special(text, encoding, ids)
        if not found or len(self._special[found[0].id].content) == 1:
            return ids
        # A model of the unigram kind holds special tokens as ordinary pieces; broken in two, none
        # is left to find.
        split = found[0].start + 1
        return self._plain(text[:split], place) + self._plain(text[split:], "after ids")

    # --- variants -----------------------------------------------------------------------------

    @cached_property
    def _adds_prefix(self) -> bool:
        """Whether the tokenizer writes a space that the text does not hold."""
        return self._steps("after ids") != self._steps("first")

    @cached_property
    def _variants(self) -> dict[Place, Tokenizer]:
        places: tuple[Place, ...] = ("first", "after special", "after ids")
        built: dict[str, Tokenizer] = {}
        variants: dict[Place, Tokenizer] = {}
        for place in places:
            steps = self._steps(place)
            text = json.dumps(steps)
            if text not in built:
                built[text] = self._variant(steps)
            variants[place] = built[text]
        return variants

    def _steps(self, place: Place) -> dict[str, Any]:
        """What the tokenizer does before its model, as JSON, for texts that stand at this place."""
        parts = {
            "normalizer": self._tokenizer.normalizer,
            "pre_tokenizer": self._tokenizer.pre_tokenizer,
        }
        return {
            name: None if part is None else _without_prefix(json.loads(part.__getstate__()), place)
            for name, part in parts.items()
        }

    def _variant(self, steps: dict[str, Any]) -> Tokenizer:
        """The tokenizer with other steps before its model, and blind to special tokens.

        The model is shared: to write it out and read it in again takes a third of a second.
        """
        variant: Tokenizer = Tokenizer.from_str(json.dumps(_EMPTY | steps))
        variant.model = self._tokenizer.model
        variant.post_processor = self._tokenizer.post_processor  # it trims what a token spans
        added: dict[int, AddedToken] = self._tokenizer.get_added_tokens_decoder()
        variant.add_tokens([added[id] for id in sorted(added)])
        variant.encode_special_tokens = True
        return variant


def _special_regions(texts: Iterable[Text]) -> list[tuple[int, int]]:
    """Where the joined text may hold special tokens: (start, end), neighbours merged."""
    regions: list[tuple[int, int]] = []
    at = 0
    for part in texts:
        end = at + len(part.text)
        if part.special and part.text:
            start = regions.pop()[0] if regions and regions[-1][1] == at else at
            regions.append((start, end))
        at = end
    return regions


def _without_prefix(state: Any, place: Place) -> Any:
    """A normalizer's or pre-tokenizer's JSON that adds no space at this place."""
    if not isinstance(state, dict) or place == "first":
        return state
    kind = state.get("type")
    inner = {"Sequence": ("normalizers", "pretokenizers")}.get(str(kind), ())
    edited = dict(state)
    for key in inner:
        if key in state:
            steps = [_without_prefix(step, place) for step in state[key]]
            edited[key] = [step for step in steps if step is not None]
    if kind == "Metaspace" and (place == "after ids" or state.get("prepend_scheme") == "first"):
        edited["prepend_scheme"] = "never"
    if kind == "Prepend" and place == "after ids":
        return None
    if kind == "ByteLevel" and place == "after ids" and "add_prefix_space" in state:
        edited["add_prefix_space"] = False
    return edited
