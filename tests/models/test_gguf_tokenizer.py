"""GGUF tokenizers against tokenizers written out here by hand, over the file's raw metadata.

Parity with another converter would hide a fault that both share; so byte-level BPE, the
pre-tokenizers and SentencePiece's merging are each done a second time, slowly, in plain Python.
"""

import unicodedata
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import gguf
import pytest
import regex  # type: ignore[import-untyped]
from hypothesis import given, settings
from hypothesis import strategies as st

from sapwood.runtime.gguf_tokenizer import PRE_TOKENIZERS
from sapwood.runtime.models.errors import DamagedModel, ModelError, UnsupportedModel
from sapwood.runtime.models.source import resolve_model
from sapwood.runtime.tokenizer import TokenizerFiles, load_tokenizer

Maker = Callable[..., Path]


@cache
def byte_letters() -> dict[int, str]:
    """GPT-2's printable stand-ins: 188 bytes stand for themselves, the others follow from 256."""
    kept = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters = {byte: chr(byte) for byte in kept}
    others = [byte for byte in range(256) if byte not in letters]
    return letters | {byte: chr(256 + number) for number, byte in enumerate(others)}


def is_letter(char: str) -> bool:
    return unicodedata.category(char)[0] == "L"


def is_number(char: str) -> bool:
    return unicodedata.category(char)[0] == "N"


def is_space(char: str) -> bool:
    return char.isspace() and char not in "\x1c\x1d\x1e\x1f"


def other(char: str) -> bool:
    return not (is_letter(char) or is_number(char) or is_space(char))


def scan_gpt2(text: str) -> Iterator[str]:
    """GPT-2's cut: contractions, then runs of one kind with at most one space before them."""
    at = 0
    while at < len(text):
        end = at
        for ending in ("'s", "'t", "'re", "'ve", "'m", "'ll", "'d"):
            if text.startswith(ending, at):
                end = at + len(ending)
                break
        else:
            first = at + 1 if text[at] == " " and at + 1 < len(text) else at
            kinds = [kind for kind in (is_letter, is_number, other) if kind(text[first])]
            if kinds:
                end = first
                while end < len(text) and kinds[0](text[end]):
                    end += 1
            else:  # white space: all of it, but the last one is left to a word that follows
                end = at
                while end < len(text) and is_space(text[end]):
                    end += 1
                if end < len(text) and end - at > 1:
                    end -= 1
        yield text[at:end]
        at = end


def scan_smollm(text: str) -> Iterator[str]:
    """Every digit on its own; GPT-2's cut of what lies between them."""
    rest = ""
    for char in text:
        if is_number(char):
            yield from scan_gpt2(rest)
            yield char
            rest = ""
        else:
            rest += char
    yield from scan_gpt2(rest)


def merge(piece: str, ranks: dict[tuple[str, str], int]) -> list[str]:
    """Join the neighbours of the lowest rank, the leftmost first, until none may be joined."""
    parts = [byte_letters()[byte] for byte in piece.encode()]
    while len(parts) > 1:
        pairs = [(ranks.get(pair, 1 << 60), i) for i, pair in enumerate(zip(parts, parts[1:]))]  # noqa: B905
        rank, i = min(pairs)
        if rank == 1 << 60:
            break
        parts[i : i + 2] = [parts[i] + parts[i + 1]]
    return parts


@cache
def default_metadata() -> tuple[dict[str, int], dict[tuple[str, str], int]]:
    """The default file's ids and merge ranks, read by the gguf package's own reader."""
    fields = gguf.GGUFReader(resolve_model(None)).fields
    tokens = fields["tokenizer.ggml.tokens"].contents()
    merges = fields["tokenizer.ggml.merges"].contents()
    ranks = {tuple(text.split(" ")): rank for rank, text in enumerate(merges)}
    return {token: number for number, token in enumerate(tokens)}, ranks


@cache
def default_tokenizer() -> TokenizerFiles:
    return load_tokenizer(resolve_model(None))


def assert_same_ids(text: str) -> None:
    ids, ranks = default_metadata()
    expected = [ids[part] for piece in scan_smollm(text) for part in merge(piece, ranks)]
    tokenizer = default_tokenizer().tokenizer
    encoded = tokenizer.encode(text, add_special_tokens=False).ids
    assert encoded == expected
    assert tokenizer.decode(encoded) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Hello world",
        "3.14159 and 1234567890",
        "in 2024, 7 of 10",
        "²³ ½ Ⅷ ٣٤ 五",
        " ",
        "  ",
        "a  b   c    d",
        "trailing   ",
        "   leading",
        "\n",
        "one\ntwo\n\nthree\n\n\n  four",
        "tab\there\t\tand\t there",
        "\r\n\r\nwindows\r\n",
        "def f(x):\n    if x:\n        return x  # done\n",
        "it's we're I'll don't you've I'm she'd IT'S",
        "' 's s' ''",
        "漢字とかな交じり文。",
        "中文 和 English 混合 123",
        "한국어 문장",
        "🙂",
        "a🙂b 👨‍👩‍👧 🇩🇪 ❤️",
        "naïve café — “quoted” …",
        "e\u0301 \u00a0 \u3000 \u200b \u2028",
        "!!!??? (((x))) <|im_start|",
        '{"a": [1, 2.5, null], "b": "c"}',
    ],
)
def test_default_model_on_chosen_text(text: str) -> None:
    assert_same_ids(text)


# The default model has no token for these bytes, and no unknown token: text loses them.
LACKING = [chr(byte) for byte in (0x04, 0x06, 0x13, 0x14, 0x16, 0x1D)]


def test_bytes_that_the_default_model_lacks() -> None:
    ids, _ = default_metadata()
    lacking = {byte for byte, letter in byte_letters().items() if letter not in ids}
    # Beside those: starts of planes 4 to 11, which hold no characters, and bytes not in UTF-8.
    unused = {0xC0, 0xC1, 0xF1, 0xF2, *range(0xF5, 0x100)}
    assert lacking == {ord(char) for char in LACKING} | unused
    tokenizer = default_tokenizer().tokenizer
    assert tokenizer.decode(tokenizer.encode("a" + "".join(LACKING) + "b").ids) == "ab"


ALPHABET = st.sampled_from(
    [*"abzAZéß 's't0189²½ \t\n\r.,!?-_(){}\"#漢字かな한🙂👨\u200d\u0301\u00a0\u3000"]
)


@settings(max_examples=150, deadline=None)
@given(st.text(ALPHABET, max_size=40))
def test_default_model_on_random_text(text: str) -> None:
    assert_same_ids(text)


@settings(max_examples=100, deadline=None)
@given(
    st.text(st.characters(exclude_categories=["Cs", "Cn"], exclude_characters=LACKING), max_size=20)
)
def test_default_model_on_any_text(text: str) -> None:
    assert_same_ids(text)


def test_default_model_facts() -> None:
    files = default_tokenizer()
    assert files.special["bos_token"] == "<|im_start|>"
    assert files.special["eos_token"] == "<|im_end|>"
    assert (files.bos_id, files.eos_ids, files.add_bos) == (1, (2,), False)
    assert files.special_token_ids == tuple(range(17))
    assert files.context_length == 8192
    assert files.model_name == "smollm2-135m-instruct"
    assert files.chat_template is not None
    assert "<|im_start|>" in files.chat_template
    ids = files.tokenizer.encode("<|im_start|>user\nhi<|im_end|>").ids
    assert (ids[0], ids[-1]) == (1, 2)
    assert files.tokenizer.decode(ids) == "user\nhi"
    assert (
        files.tokenizer.decode(ids, skip_special_tokens=False) == "<|im_start|>user\nhi<|im_end|>"
    )


# --- pre-tokenizers ---

# As llama.cpp writes them, for another regex engine: letter case spelt out, and each regex cutting
# what the one before it left. What no regex matches is a piece too.
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)"
ENDINGS = r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])"
LINES = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
LOWER = r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
UPPER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]"
NOT_WORD = r"[^\r\n\p{L}\p{N}]?"
PEERS = {
    "default": [r"[\p{P}\$\+<=>\^~\|]+", GPT2, r"\p{N}+", "[0-9][0-9][0-9]"],
    "gpt-2": [GPT2],
    "smollm": [r"\p{N}", GPT2],
    "llama-bpe": [ENDINGS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|" + LINES],
    "qwen2": [ENDINGS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|" + LINES],
    "tekken": [
        rf"{NOT_WORD}{UPPER}*{LOWER}+|{NOT_WORD}{UPPER}+{LOWER}*|\p{{N}}"
        r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    ],
    "deepseek-coder": [r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", "[一-龥ࠀ-一가-퟿]+", r"\p{N}"],
}


def cut_by(text: str, steps: list[str]) -> list[str]:
    pieces = [text]
    for step in steps:
        cut: list[str] = []
        for piece in pieces:
            at = 0
            for match in regex.finditer(step, piece):
                cut += [piece[at : match.start()], match[0]]
                at = match.end()
            cut.append(piece[at:])
        pieces = [piece for piece in cut if piece]
    return pieces


def byte_vocabulary(**more: Any) -> dict[str, Any]:
    """Metadata of a byte-level tokenizer that knows the 256 bytes and "ab"."""
    tokens = [*byte_letters().values(), "ab", "<end>"]
    return {
        "general.architecture": "llama",
        "llama.context_length": 64,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [1] * 257 + [3],
        "tokenizer.ggml.merges": ["a b"],
        **more,
    }


def pieces_of(files: TokenizerFiles, text: str) -> list[str]:
    assert files.tokenizer.pre_tokenizer is not None
    letters = {letter: byte for byte, letter in byte_letters().items()}
    pieces = files.tokenizer.pre_tokenizer.pre_tokenize_str(text)
    return [bytes(letters[letter] for letter in piece).decode() for piece, _ in pieces]


# By hand: what each family is known for.
PIECES: list[tuple[str, str, list[str]]] = [
    ("default", "Hi there, 12345!", ["Hi", " there", ",", " ", "123", "45", "!"]),
    ("gpt-2", "Hi  there 12345's\n\nx", ["Hi", " ", " there", " 12345", "'s", "\n", "\n", "x"]),
    ("smollm", "x 12345's", ["x", " ", "1", "2", "3", "4", "5", "'s"]),
    ("llama-bpe", "Hi 12345'S\n\n x", ["Hi", " ", "123", "45", "'S", "\n\n", " x"]),
    ("llama3", "a.b (c)\n", ["a", ".b", " (", "c", ")\n"]),
    ("qwen2", "Hi 123'S\n\n x", ["Hi", " ", "1", "2", "3", "'S", "\n\n", " x"]),
    ("tekken", "HelloWorld 12", ["Hello", "World", " ", "1", "2"]),
    ("deepseek-coder", "a 12\n中文b", ["a", " ", "1", "2", "\n", "中文", "b"]),
]


@pytest.mark.parametrize(("name", "text", "expected"), PIECES)
def test_pieces_by_hand(name: str, text: str, expected: list[str], make_gguf: Maker) -> None:
    files = load_tokenizer(make_gguf(byte_vocabulary(**{"tokenizer.ggml.pre": name})))
    assert pieces_of(files, text) == expected


@pytest.mark.parametrize("name", PEERS)
def test_pieces_of_random_text(name: str, make_gguf: Maker) -> None:
    files = load_tokenizer(make_gguf(byte_vocabulary(**{"tokenizer.ggml.pre": name})))

    @settings(max_examples=150, deadline=None)
    @given(st.text(ALPHABET, max_size=30))
    def check(text: str) -> None:
        assert pieces_of(files, text) == cut_by(text, PEERS[name])

    check()


def test_every_family_is_checked() -> None:
    assert {PRE_TOKENIZERS[name] for name in PEERS} == set(PRE_TOKENIZERS.values())


def test_no_name_means_default(make_gguf: Maker) -> None:
    assert pieces_of(load_tokenizer(make_gguf(byte_vocabulary())), "a 1234!") == [
        *("a", " ", "123", "4", "!"),
    ]


def test_qwen2_composes_characters(make_gguf: Maker) -> None:
    for name, composed in (("qwen2", True), ("smollm", False)):
        files = load_tokenizer(make_gguf(byte_vocabulary(**{"tokenizer.ggml.pre": name})))
        ids = files.tokenizer.encode("e\u0301").ids
        assert files.tokenizer.decode(ids) == ("é" if composed else "e\u0301")


def test_whole_pieces_ignore_the_merges(make_gguf: Maker) -> None:
    metadata = byte_vocabulary()
    metadata["tokenizer.ggml.tokens"][257] = "abc"  # a token that no merge leads to
    metadata["tokenizer.ggml.token_type"][257] = 1
    for name, expected in (("llama-bpe", ["abc"]), ("smollm", ["ab", "c"])):
        metadata["tokenizer.ggml.pre"] = name
        tokenizer = load_tokenizer(make_gguf(metadata)).tokenizer
        assert tokenizer.encode("abc", add_special_tokens=False).tokens == expected


# --- tokens with a meaning ---


def test_token_types_and_ends(make_gguf: Maker) -> None:
    metadata = byte_vocabulary()
    metadata["tokenizer.ggml.tokens"] += ["<bos>", "<turn>", "<tool>", "<mine>"]
    metadata["tokenizer.ggml.token_type"] += [3, 3, 3, 4]
    metadata |= {
        "tokenizer.ggml.pre": "llama-bpe",
        "tokenizer.ggml.bos_token_id": 258,
        "tokenizer.ggml.eos_token_id": 257,
        "tokenizer.ggml.eot_token_id": 259,
        "tokenizer.ggml.eom_token_id": 260,
        "tokenizer.ggml.padding_token_id": 257,
        "tokenizer.ggml.unknown_token_id": 0xFFFF_FFFF,  # none
        "tokenizer.chat_template": "{{ messages }}",
    }
    files = load_tokenizer(make_gguf(metadata, name="My Model.gguf"))
    assert files.eos_ids == (257, 259, 260)
    assert files.bos_id == 258
    assert files.add_bos  # llama3's files do not always say so
    assert files.special == {
        "bos_token": "<bos>",
        "eos_token": "<end>",
        "eot_token": "<turn>",
        "eom_token": "<tool>",
        "pad_token": "<end>",
    }
    assert files.special_token_ids == (257, 258, 259, 260)
    assert (files.model_name, files.chat_template) == ("My Model", "{{ messages }}")
    tokenizer = files.tokenizer
    assert tokenizer.encode("ab<mine><turn>").ids == [258, 256, 261, 259]
    assert tokenizer.encode("ab", add_special_tokens=False).ids == [256]
    assert tokenizer.decode([258, 256, 261, 259]) == "ab<mine>"
    tokenizer.encode_special_tokens = True  # as for a user's text: no special token comes of it
    assert 259 not in tokenizer.encode("<turn>").ids
    metadata["tokenizer.ggml.add_bos_token"] = False
    assert not load_tokenizer(make_gguf(metadata)).add_bos


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        ({"tokenizer.ggml.pre": "mystery"}, UnsupportedModel, "tokenizer.ggml.pre 'mystery'"),
        ({"tokenizer.ggml.model": "bert"}, UnsupportedModel, "tokenizer.ggml.model 'bert'"),
        ({"tokenizer.ggml.tokens": ["a"]}, DamagedModel, "token_type must have 1 entries, has 258"),
        ({"tokenizer.ggml.tokens": 3}, DamagedModel, "tokens is not there or not an array"),
        ({"tokenizer.ggml.merges": ["ab"]}, DamagedModel, "the merge 'ab' is not two parts"),
        ({"tokenizer.ggml.merges": ["a c"]}, DamagedModel, "the merges do not fit"),
        ({"tokenizer.ggml.eos_token_id": 258}, DamagedModel, "eos_token_id is 258, of 258 tokens"),
        ({"tokenizer.ggml.tokens": ["a"] * 258}, DamagedModel, "257 tokens stand there twice"),
        ({"tokenizer.ggml.model": "llama"}, DamagedModel, "scores must have 258 entries, has none"),
    ],
)
def test_metadata_at_fault(
    change: dict[str, Any], kind: type[ModelError], message: str, make_gguf: Maker
) -> None:
    path = make_gguf(byte_vocabulary(**change))
    with pytest.raises(kind) as caught:
        load_tokenizer(path)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_no_vocabulary_at_all(make_gguf: Maker) -> None:
    with pytest.raises(DamagedModel, match=r"the metadata key tokenizer\.ggml\.model is missing"):
        load_tokenizer(make_gguf({}))


# --- SentencePiece ---

BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
PIECES_BY_RANK = [
    *("▁t", "he", "▁the", "an", "▁a", "in", "▁▁", "nd", "▁and", "▁an", "and", "<s", "▁<", "t▁"),
    *("th", "▁▁▁▁", "en"),
    *"▁thedainr<s>.",
]
SPM_TOKENS = ["<unk>", "<s>", "</s>", *BYTES, *PIECES_BY_RANK, "<mine>"]
SPM: dict[str, Any] = {
    "general.architecture": "llama",
    "llama.context_length": 64,
    "tokenizer.ggml.model": "llama",
    "tokenizer.ggml.tokens": SPM_TOKENS,
    "tokenizer.ggml.token_type": [2, 3, 3, *[6] * 256, *[1] * len(PIECES_BY_RANK), 4],
    "tokenizer.ggml.scores": [
        *[0.0] * 259,
        *[-float(rank) for rank in range(len(PIECES_BY_RANK))],
        0.0,
    ],
    "tokenizer.ggml.bos_token_id": 1,
    "tokenizer.ggml.eos_token_id": 2,
    "tokenizer.ggml.unknown_token_id": 0,
}


def merge_by_score(text: str) -> list[str]:
    """Join the neighbours whose union has the best score; bytes for what is left unknown."""
    scores = {token: -rank for rank, token in enumerate(PIECES_BY_RANK)}
    parts = list(text.replace(" ", "▁"))
    while True:
        unions = [a + b for a, b in zip(parts, parts[1:])]  # noqa: B905
        known = [(scores[union], -i) for i, union in enumerate(unions) if union in scores]
        if not known:
            break
        i = -max(known)[1]
        parts[i : i + 2] = [parts[i] + parts[i + 1]]
    out: list[str] = []
    for part in parts:
        out += [part] if part in scores else [f"<0x{byte:02X}>" for byte in part.encode()]
    return out


@pytest.mark.parametrize("prefix", [True, False])
def test_sentencepiece(prefix: bool, make_gguf: Maker) -> None:
    path = make_gguf({**SPM, "tokenizer.ggml.add_space_prefix": prefix})
    tokenizer = load_tokenizer(path).tokenizer

    @settings(max_examples=200, deadline=None)
    @given(st.text(st.sampled_from([*"thedainr<s>. xé漢🙂\n"]), min_size=1, max_size=24))
    def check(text: str) -> None:
        if "<s>" in text:  # parsed as the special token, which is another test's matter
            return
        encoded = tokenizer.encode(text, add_special_tokens=False)
        assert encoded.tokens == merge_by_score(" " + text if prefix else text)
        assert tokenizer.decode(encoded.ids) == text

    check()


def test_sentencepiece_facts(make_gguf: Maker) -> None:
    files = load_tokenizer(make_gguf(SPM))
    assert (files.bos_id, files.eos_ids, files.add_bos) == (1, (2,), True)
    assert files.special_token_ids == (0, 1, 2)
    assert files.special["unk_token"] == "<unk>"
    tokenizer = files.tokenizer
    assert tokenizer.encode("the").tokens == ["<s>", "▁the"]
    assert tokenizer.encode("<mine>", add_special_tokens=False).tokens == ["<mine>"]
    tokenizer.encode_special_tokens = True
    # "<s" and ">" are tokens, "<s>" is a control token: text never becomes it.
    assert "<s>" not in tokenizer.encode("the<s>", add_special_tokens=False).tokens
