"""Build a `tokenizers.Tokenizer` from a GGUF file's metadata.

Owns: the metadata keys of the vocabulary, the pre-tokenizer behind each name, token types. Knows no
weights. Two kinds of vocabulary: byte-level BPE ("gpt2") and SentencePiece with scores ("llama").
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
)

from .models.errors import DamagedModel, UnsupportedModel
from .models.gguf_file import GgufFile

# Token types of the format; the others are unused (5) and byte (6).
_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED = 1, 2, 3, 4

_CONTRACTIONS: Final = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_SPACES: Final = r"\s*[\r\n]+|\s+(?!\S)|\s+"
_GPT2: Final = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"


@dataclass(frozen=True)
class _Split:
    """How text is cut before merging: each regex cuts the pieces that the one before it left."""

    steps: tuple[str, ...]
    whole_pieces: bool = False  # a piece that is a token is taken as it is, whatever the merges say
    nfc: bool = False
    add_bos: bool = False  # where the file does not say


def _words(numbers: str) -> str:
    return (
        _CONTRACTIONS
        + r"|[^\r\n\p{L}\p{N}]?\p{L}+|"
        + numbers
        + r"| ?[^\s\p{L}\p{N}]+[\r\n]*|"
        + _SPACES
    )


_UPPER: Final = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]"
_LOWER: Final = r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_TEKKEN: Final = (
    rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|" + _SPACES
)

_CJK: Final = "[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+"

_FAMILIES: Final = {
    _Split((r"[\p{P}\$\+<=>\^~\|]+", _GPT2, r"\p{N}+", "[0-9][0-9][0-9]")): ("default",),
    _Split((_GPT2,)): ("gpt-2", "phi-2"),
    _Split((r"\p{N}", _GPT2)): ("smollm", "starcoder", "refact"),
    _Split((_words(r"\p{N}{1,3}"),), whole_pieces=True, add_bos=True): (
        "llama3",
        "llama-v3",
        "llama-bpe",
    ),
    _Split((_words(r"\p{N}"),), nfc=True): ("qwen2", "deepseek-r1-qwen"),
    _Split((_TEKKEN,), whole_pieces=True): ("tekken",),
    _Split((r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", _CJK, r"\p{N}")): ("deepseek-coder",),
}
PRE_TOKENIZERS: Final = {name: split for split, names in _FAMILIES.items() for name in names}


@dataclass(frozen=True)
class GgufVocabulary:
    """What a GGUF file says about its tokens, beside the tokenizer itself."""

    tokenizer: Tokenizer
    special: dict[str, str]  # "bos_token" -> its text, and so on
    bos_id: int | None
    eos_ids: tuple[int, ...]
    add_bos: bool


def read_vocabulary(file: GgufFile) -> GgufVocabulary:
    """The tokenizer of `file`. Control tokens become special, user-defined ones added tokens.

    Raises DamagedModel (keys missing or of different lengths), UnsupportedModel (another kind of
    vocabulary, or a pre-tokenizer of an unknown name).
    """
    kind = file.get("tokenizer.ggml.model", str)
    tokens = _strings(file, "tokenizer.ggml.tokens")
    types = _list(file, "tokenizer.ggml.token_type", len(tokens))
    if kind == "gpt2":
        tokenizer, add_bos = _byte_level(file, tokens)
    elif kind == "llama":
        tokenizer, add_bos = _sentencepiece(file, tokens, types), True
    else:
        raise UnsupportedModel(f"{file.path}: tokenizer.ggml.model {kind!r} is not supported")
    tokenizer.add_special_tokens(
        [
            AddedToken(text, normalized=False, special=True)
            for text, number in zip(tokens, types, strict=True)
            if number in (_CONTROL, _UNKNOWN)
        ]
    )
    tokenizer.add_tokens(
        [
            AddedToken(text, normalized=False)
            for text, number in zip(tokens, types, strict=True)
            if number == _USER_DEFINED
        ]
    )
    ids = {
        role: _token_id(file, key, len(tokens))
        for role, key in (
            ("bos", "bos_token_id"),
            ("eos", "eos_token_id"),
            ("eot", "eot_token_id"),  # end of a turn, where that is another token than the end
            ("eom", "eom_token_id"),  # end of a message that calls a tool
            ("unk", "unknown_token_id"),
            ("pad", "padding_token_id"),
        )
    }
    bos_id = ids["bos"]
    add_bos = file.get("tokenizer.ggml.add_bos_token", bool, add_bos) and bos_id is not None
    if add_bos and bos_id is not None:
        bos = tokens[bos_id]
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", pair=f"{bos} $A {bos}:1 $B:1", special_tokens=[(bos, bos_id)]
        )
    ends = (ids["eos"], ids["eot"], ids["eom"])
    return GgufVocabulary(
        tokenizer=tokenizer,
        special={f"{role}_token": tokens[i] for role, i in ids.items() if i is not None},
        bos_id=bos_id,
        eos_ids=tuple(dict.fromkeys(i for i in ends if i is not None)),
        add_bos=add_bos,
    )


def _byte_level(file: GgufFile, tokens: list[str]) -> tuple[Tokenizer, bool]:
    name = file.get("tokenizer.ggml.pre", str, "default")
    split = PRE_TOKENIZERS.get(name)
    if split is None:
        raise UnsupportedModel(
            f"{file.path}: tokenizer.ggml.pre {name!r} is not supported; "
            f"supported are {', '.join(PRE_TOKENIZERS)}"
        )
    merges = []
    for merge in _strings(file, "tokenizer.ggml.merges"):
        left, space, right = merge.partition(" ")
        if not (left and space and right):
            raise DamagedModel(f"{file.path}: the merge {merge!r} is not two parts")
        merges.append((left, right))
    tokenizer = Tokenizer(
        _bpe(file.path, tokens, merges, fuse_unk=False, ignore_merges=split.whole_pieces)
    )
    if split.nfc:
        tokenizer.normalizer = normalizers.NFC()
    steps: list[Any] = [pre_tokenizers.Split(Regex(step), "isolated") for step in split.steps]
    steps.append(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(steps)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer, split.add_bos


def _sentencepiece(file: GgufFile, tokens: list[str], types: list[int]) -> Tokenizer:
    """SentencePiece's BPE: of all neighbours, the pair whose union has the best score is joined.

    Only normal tokens come out of merging: text that reads "<s>" is not the token of that name.
    """
    scores = _list(file, "tokenizer.ggml.scores", len(tokens))
    unknown = _token_id(file, "unknown_token_id", len(tokens))
    normal = {
        token: score
        for token, score, number in zip(tokens, scores, types, strict=True)
        if number == _NORMAL
    }
    tokenizer = Tokenizer(
        _bpe(
            file.path,
            tokens,
            list(_merges_by_score(normal)),
            unk_token=None if unknown is None else tokens[unknown],
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    prefix = file.get("tokenizer.ggml.add_space_prefix", bool, True)
    space = normalizers.Replace(" ", "▁")
    start: list[Any] = [normalizers.Prepend("▁")] if prefix else []
    tokenizer.normalizer = normalizers.Sequence([*start, space])
    strip: list[Any] = [decoders.Strip(" ", 1, 0)] if prefix else []
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), *strip]
    )
    return tokenizer


def _merges_by_score(scores: dict[str, float]) -> Iterator[tuple[str, str]]:
    """Every way to make a token of two tokens, the best-scored token first."""
    for token in sorted(scores, key=lambda token: -scores[token]):
        for cut in range(1, len(token)):
            if token[:cut] in scores and token[cut:] in scores:
                yield token[:cut], token[cut:]


def _bpe(
    path: Path, tokens: list[str], merges: list[tuple[str, str]], **options: Any
) -> models.BPE:
    vocabulary = {token: number for number, token in enumerate(tokens)}
    if len(vocabulary) != len(tokens):
        raise DamagedModel(f"{path}: {len(tokens) - len(vocabulary)} tokens stand there twice")
    try:
        return models.BPE(vocab=vocabulary, merges=merges, **options)
    except Exception as error:  # what the library raises for a merge outside the vocabulary
        raise DamagedModel(f"{path}: the merges do not fit the vocabulary: {error}") from error


def _token_id(file: GgufFile, key: str, num_tokens: int) -> int | None:
    number = file.get(f"tokenizer.ggml.{key}", int, -1)
    if number == -1 or number == 0xFFFF_FFFF:  # unsigned -1: written where there is no such token
        return None
    if not 0 <= number < num_tokens:
        raise DamagedModel(f"{file.path}: {key} is {number}, of {num_tokens} tokens")
    return number


def _list(file: GgufFile, key: str, length: int) -> list[Any]:
    value = file.metadata.get(key)
    if not isinstance(value, list) or len(value) != length:
        found = len(value) if isinstance(value, list) else "none"
        raise DamagedModel(f"{file.path}: {key} must have {length} entries, has {found}")
    return value


def _strings(file: GgufFile, key: str) -> list[str]:
    value = file.metadata.get(key)
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise DamagedModel(f"{file.path}: {key} is not there or not an array of strings")
    return value
