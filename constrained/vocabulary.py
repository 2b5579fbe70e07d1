"""What each token of a tokenizer spells, in bytes; knows nothing of constraints."""

import json
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from typing import Any, Final, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from .errors import GrammarError
from .token_trie import TokenTrie, build_trie

Encode = Callable[[str], list[int]]


class Vocabulary:
    """The tokens of one tokenizer.

    token_bytes[i]: the bytes that token i adds to the output, or None for a special or unused
    token, which is never allowed inside a constraint. eos_ids: the end tokens. encode: the
    tokenizer itself, text to ids without special tokens added, wanted for jump-forward only.
    Immutable; shared by all grammars of a model.
    """

    def __init__(
        self,
        token_bytes: Sequence[bytes | None],
        eos_ids: Iterable[int],
        encode: Encode | None = None,
    ) -> None:
        self.eos_ids: Final = tuple(sorted(set(eos_ids)))
        for token in self.eos_ids:
            if not 0 <= token < len(token_bytes):
                raise GrammarError(f"end token {token} is not among {len(token_bytes)} tokens")
        texts = [text or None for text in token_bytes]
        for token in self.eos_ids:
            texts[token] = None
        self.token_bytes: Final = tuple(texts)
        self.encode: Final = encode

    @property
    def size(self) -> int:
        return len(self.token_bytes)

    @property
    def num_words(self) -> int:
        """32-bit words in one packed mask row."""
        return (self.size + 31) // 32

    @cached_property
    def trie(self) -> TokenTrie:
        return build_trie(self.token_bytes)

    @cached_property
    def spelled(self) -> frozenset[bytes]:
        """What single tokens spell."""
        return frozenset(text for text in self.token_bytes if text)

    @cached_property
    def longest(self) -> int:
        """Bytes of the longest token."""
        return max(map(len, self.spelled), default=0)

    def beginning(self, begin: bytes, *, and_more: bool = False) -> NDArray[np.int32]:
        """The tokens that begin so, with `and_more` only those that go on."""
        texts, tokens = self._by_text
        first = bisect_right(texts, begin) if and_more else bisect_left(texts, begin)
        return tokens[first : bisect_left(texts, True, first, key=_does_not_begin(begin))]

    @cached_property
    def _by_text(self) -> tuple[list[bytes], NDArray[np.int32]]:
        pairs = sorted((text, token) for token, text in enumerate(self.token_bytes) if text)
        return [text for text, _ in pairs], np.array([token for _, token in pairs], np.int32)

    @classmethod
    def from_tokenizer(
        cls,
        tokenizer: object,
        *,
        eos_ids: Iterable[int] | None = None,
        size: int | None = None,
    ) -> "Vocabulary":
        """The vocabulary of a fast `transformers` tokenizer or a `tokenizers.Tokenizer`.

        Byte-level BPE and SentencePiece-like tokenizers (`▁` for a space, `<0xXX>` for a byte) are
        known; others raise GrammarError. eos_ids: by default the tokenizer's own end token (a bare
        `Tokenizer` has none). size: the width of the model's logits, where it is larger.
        """
        backend = getattr(tokenizer, "backend_tokenizer", tokenizer)
        if not isinstance(backend, _Backend):
            raise GrammarError(f"{type(tokenizer).__name__} is not a fast tokenizer")
        if eos_ids is None:
            eos = getattr(tokenizer, "eos_token_id", None)
            eos_ids = () if eos is None else (eos,)
        special = set(getattr(tokenizer, "all_special_ids", ()))
        sentencepiece = _is_sentencepiece(backend)
        spell = _spell_sentencepiece if sentencepiece else _spell_byte_level
        texts = _token_bytes(backend, special, spell)
        return cls(texts, eos_ids, _encoder(backend, sentencepiece)).padded(size or 0)

    def padded(self, size: int) -> "Vocabulary":
        """The same tokens and unused ones up to `size`, where the model's logits are wider."""
        if size <= self.size:
            return self
        unused = [None] * (size - self.size)
        return Vocabulary([*self.token_bytes, *unused], self.eos_ids, self.encode)


def _does_not_begin(begin: bytes) -> Callable[[bytes], bool]:
    return lambda text: not text.startswith(begin)


@runtime_checkable
class _Backend(Protocol):
    """What is used of a `tokenizers.Tokenizer`."""

    model: Any
    decoder: Any
    pre_tokenizer: Any

    def get_vocab(self, with_added_tokens: bool = True) -> dict[str, int]: ...

    def get_added_tokens_decoder(self) -> dict[int, Any]: ...

    def encode(self, sequence: str, *, add_special_tokens: bool = True) -> Any: ...


def _is_sentencepiece(backend: _Backend) -> bool:
    """True for SentencePiece, False for byte-level; raises GrammarError for anything else."""
    # A part's pickled state is its JSON: the whole tokenizer's would hold the vocabulary too.
    parts = [part for part in (backend.decoder, backend.pre_tokenizer) if part is not None]
    kinds = {kind for part in parts for kind in _kinds(json.loads(part.__getstate__()))}
    if "ByteLevel" in kinds:
        return False
    if kinds & {"Metaspace", "ByteFallback"} or getattr(backend.model, "byte_fallback", False):
        return True
    raise GrammarError(
        f"the tokenizer is neither byte-level nor SentencePiece-like: its parts are {sorted(kinds)}"
    )


def _token_bytes(
    backend: _Backend, special: set[int], spell: Callable[[str], bytes | None]
) -> list[bytes | None]:
    vocab, added = backend.get_vocab(True), backend.get_added_tokens_decoder()
    special = special | {number for number, token in added.items() if token.special}
    texts: list[bytes | None] = [None] * (max(vocab.values(), default=-1) + 1)
    for token, number in vocab.items():
        if number not in special:
            texts[number] = token.encode() if number in added else spell(token)
    return texts


def _kinds(part: Any) -> set[str]:
    """The type names in a tokenizer part, sequences unrolled."""
    if not part:
        return set()
    inner = part.get("decoders") or part.get("pretokenizers") or ()
    return {part["type"]}.union(*map(_kinds, inner))


def _byte_letters() -> dict[int, int]:
    """GPT-2's table: printable bytes stand for themselves, the others for letters from U+0100.

    Code point of the letter -> byte; a code point below 256 that is no letter -> one that is no
    byte.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    rest = [byte for byte in range(256) if byte not in printable]
    return dict.fromkeys(rest, 0xFFFF) | {0x100 + i: byte for i, byte in enumerate(rest)}


_BYTE_LETTERS: Final = _byte_letters()


def _spell_byte_level(token: str) -> bytes | None:
    try:
        return token.translate(_BYTE_LETTERS).encode("latin-1")
    except UnicodeEncodeError:
        return None  # not made of byte letters: it can never come out of the tokenizer


def _spell_sentencepiece(token: str) -> bytes | None:
    if len(token) == 6 and token.startswith("<0x") and token.endswith(">"):
        return bytes([int(token[3:5], 16)])
    return token.replace("\u2581", " ").encode()


def _encoder(backend: _Backend, sentencepiece: bool) -> Encode:
    """Text to ids as they are inside a longer text: SentencePiece adds a space to a first word."""

    def encode(text: str) -> list[int]:
        return list(backend.encode(text, add_special_tokens=False).ids)

    if not sentencepiece:
        return encode
    line_break = encode("\n")

    def encode_inside(text: str) -> list[int]:
        ids = encode("\n" + text)
        inside = ids[: len(line_break)] == line_break
        return ids[len(line_break) :] if inside else encode(text)

    return encode_inside
