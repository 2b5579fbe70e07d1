"""What each token of a tokenizer spells, in bytes; knows nothing of constraints."""

import json
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from typing import Any, Final, Protocol, runtime_checkable

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
        self.token_bytes: Final = tuple(
            None if i in self.eos_ids else (text or None) for i, text in enumerate(token_bytes)
        )
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
        described = json.loads(backend.to_str())
        special = set(getattr(tokenizer, "all_special_ids", ()))
        sentencepiece = _is_sentencepiece(described)
        spell = _spell_sentencepiece if sentencepiece else _spell_byte_level
        texts = _token_bytes(described, backend.get_vocab(True), special, spell)
        texts += [None] * ((size or 0) - len(texts))
        return cls(texts, eos_ids, _encoder(backend, sentencepiece))


@runtime_checkable
class _Backend(Protocol):
    def get_vocab(self, with_added_tokens: bool = True) -> dict[str, int]: ...

    def to_str(self, pretty: bool = False) -> str: ...

    def encode(self, sequence: str, *, add_special_tokens: bool = True) -> Any: ...


def _is_sentencepiece(described: dict[str, Any]) -> bool:
    """True for SentencePiece, False for byte-level; raises GrammarError for anything else."""
    kinds = _kinds(described.get("decoder")) | _kinds(described.get("pre_tokenizer"))
    if "ByteLevel" in kinds:
        return False
    if kinds & {"Metaspace", "ByteFallback"} or described["model"].get("byte_fallback"):
        return True
    raise GrammarError(
        f"the tokenizer is neither byte-level nor SentencePiece-like: its parts are {sorted(kinds)}"
    )


def _token_bytes(
    described: dict[str, Any],
    vocab: dict[str, int],
    special: set[int],
    spell: Callable[[str], bytes | None],
) -> list[bytes | None]:
    added = {token["id"]: token for token in described.get("added_tokens") or ()}
    texts: list[bytes | None] = [None] * (max(vocab.values(), default=-1) + 1)
    for token, number in vocab.items():
        if number in special or (number in added and added[number]["special"]):
            continue
        texts[number] = token.encode() if number in added else spell(token)
    return texts


def _kinds(part: Any) -> set[str]:
    """The type names in a tokenizer part, sequences unrolled."""
    if not part:
        return set()
    inner = part.get("decoders") or part.get("pretokenizers") or ()
    return {part["type"]}.union(*map(_kinds, inner))


def _byte_of_letter() -> dict[str, int]:
    """GPT-2's table: printable bytes stand for themselves, the others for letters from U+0100."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    table = {chr(byte): byte for byte in printable}
    rest = [byte for byte in range(256) if chr(byte) not in table]
    return table | {chr(0x100 + i): byte for i, byte in enumerate(rest)}


_BYTE_OF_LETTER: Final = _byte_of_letter()


def _spell_byte_level(token: str) -> bytes | None:
    try:
        return bytes(_BYTE_OF_LETTER[letter] for letter in token)
    except KeyError:
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
