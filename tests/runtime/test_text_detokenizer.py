"""Output tokens to text: every piece is safe to show, and together they are the text."""

import importlib
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sapwood.runtime import holdback as holdback_module
from sapwood.runtime.detokenizer import Detokenizer, Ending
from sapwood.runtime.holdback import HoldBack
from sapwood.runtime.protocol import FinishKind, FinishReason, SamplingParams, TokenLogprob
from sapwood.runtime.stops import StopFinder
from sapwood.runtime.token_table import TokenTable

sys.path.append(str(Path(__file__).parent))
text_files = importlib.import_module("text_files")

# Bytes, merged characters, halves of characters, a special token and one with no text at all.
PIECES: list[bytes | None] = [
    *(bytes([byte]) for byte in b"ab.1 \n"),
    b"ab",
    b"b.",
    "é".encode(),
    "é".encode()[:1],
    "é".encode()[1:],
    "🙂".encode()[:2],
    "🙂".encode()[2:],
    "🙂".encode()[:3],
    b"a\xc3",
    b"\xa9b",
    b"\xff",
    None,
    None,
]
SPECIAL, EOS = len(PIECES) - 2, len(PIECES) - 1
TABLE = TokenTable(PIECES, {SPECIAL: b"<|special|>", EOS: b"<|end|>"})
LENGTH = FinishReason(FinishKind.LENGTH)

ids = st.integers(0, SPECIAL)
PATTERNS = [
    "a+b",
    r"\d\.",
    "b.*1",
    r"(?<=a)b+\.",
    "é|ab1",
    r"\b1\b",
    "(?i)A$",
    "a(?=b1)",
    "(a|b)\\1",
]


@dataclass(frozen=True)
class Output:
    """What an engine would say: its tokens, cut where its stop finder says."""

    ids: tuple[int, ...]
    finish: FinishReason
    cut: int | None


def engine(tokens: Sequence[int], sampling: SamplingParams) -> Output:
    """The engine's rule: look for stops after every token, none before min_tokens."""
    finder = StopFinder(sampling.stop, sampling.stop_regex)
    output = bytearray()
    min_bytes = [0]
    for number, token in enumerate(tokens, 1):
        (piece,) = TABLE.pieces([token], show_special=not sampling.skip_special_tokens)
        output += piece
        if number <= sampling.min_tokens:
            min_bytes[0] = len(output)
        found = finder.find(output, len(piece), lambda start, end: end > min_bytes[0])
        if found is not None and piece:
            cut = found.end if sampling.no_stop_trim else found.start
            reason = FinishReason(FinishKind.STOP, found.matched)
            return Output(tuple(tokens[:number]), reason, cut)
    return Output(tuple(tokens), LENGTH, None)


def stream(
    output: Output, sampling: SamplingParams, sizes: Sequence[int]
) -> tuple[list[str], Ending]:
    """Through a Detokenizer in chunks of these sizes, the rest in the last one."""
    detokenizer = Detokenizer(TABLE, sampling)
    pieces, at = [], 0
    for size in sizes:
        if at + size >= len(output.ids):
            break
        pieces.append(detokenizer.push(output.ids[at : at + size]))
        at += size
    return pieces, detokenizer.finish(output.ids[at:], output.finish, output.cut)


def whole_text(output: Output, sampling: SamplingParams) -> str:
    shown = TABLE.pieces(output.ids, show_special=not sampling.skip_special_tokens)
    return decoded(b"".join(shown), output.cut)


def decoded(data: bytes, cut: int | None) -> str:
    """Up to the cut. Half a character is left out where the data itself ends within it."""
    if cut is None or cut >= len(data):
        data = data[: len(data) - num_incomplete(data)]
    return data[:cut].decode("utf-8", "replace")


samplings = st.builds(
    SamplingParams,
    stop=st.lists(st.text("ab.1é🙂 <|s", min_size=1, max_size=4), max_size=3).map(tuple),
    stop_regex=st.lists(st.sampled_from(PATTERNS), max_size=1).map(tuple),
    min_tokens=st.integers(0, 3),
    skip_special_tokens=st.booleans(),
    no_stop_trim=st.booleans(),
)


@settings(deadline=None, max_examples=600)
@given(
    tokens=st.lists(ids, max_size=24),
    sampling=samplings,
    sizes=st.lists(st.integers(0, 4), max_size=30),
)
@example(tokens=[0, 6, 3], sampling=SamplingParams(stop=("ab1",)), sizes=[1, 1])
@example(tokens=[0, 9, 10, 0], sampling=SamplingParams(stop=("éa",)), sizes=[1, 1, 1, 1])
@example(tokens=[0, 13], sampling=SamplingParams(), sizes=[1])
@example(tokens=[0, 14], sampling=SamplingParams(stop=("ab",)), sizes=[1])
@example(tokens=[11, 6], sampling=SamplingParams(stop=("ab",)), sizes=[1])
@example(
    tokens=[0, 0, 0, 1, 3],
    sampling=SamplingParams(stop_regex=("a(?=b1)",), no_stop_trim=True),
    sizes=[4],
)
def test_pieces_make_the_text_up_to_the_cut(
    tokens: list[int], sampling: SamplingParams, sizes: list[int]
) -> None:
    output = engine(tokens, sampling)
    pieces, ending = stream(output, sampling, sizes)
    whole = whole_text(output, sampling)
    assert "".join(pieces) + ending.text == whole
    # kept_ids and tail say the same text.
    kept = b"".join(TABLE.pieces(ending.kept_ids, show_special=not sampling.skip_special_tokens))
    assert kept.decode("utf-8", "replace") + ending.tail == whole
    assert output.ids[: len(ending.kept_ids)] == ending.kept_ids


@settings(deadline=None, max_examples=300)
@given(tokens=st.lists(ids, max_size=16), cut=st.integers(0, 40) | st.none())
def test_kept_ids_are_the_most_whole_tokens(tokens: list[int], cut: int | None) -> None:
    detokenizer = Detokenizer(TABLE, SamplingParams())
    ending = detokenizer.finish(tokens, LENGTH, cut)
    pieces = TABLE.pieces(tokens, show_special=False)
    total = sum(map(len, pieces))

    def is_whole(count: int) -> bool:
        data = b"".join(pieces[:count])
        ends_between_characters = num_incomplete(data) == 0
        return len(data) <= (total if cut is None else cut) and ends_between_characters

    assert len(ending.kept_ids) == max(n for n in range(len(tokens) + 1) if is_whole(n))
    kept = b"".join(pieces[: len(ending.kept_ids)]).decode("utf-8", "replace")
    assert ending.text == kept + ending.tail == decoded(b"".join(pieces), cut)


def num_incomplete(data: bytes) -> int:
    """How many bytes at the end more bytes could still complete to a character: by Python's own
    strict error."""
    while True:
        try:
            data.decode()
            return 0
        except UnicodeDecodeError as error:
            if error.reason == "unexpected end of data":
                return len(data) - error.start
            data = data[error.end :]


def test_text_comes_as_soon_as_its_characters_are_whole() -> None:
    detokenizer = Detokenizer(TABLE, SamplingParams())
    assert detokenizer.push([0]) == "a"
    assert detokenizer.push([14]) == "a"  # and half an é
    assert detokenizer.push([15]) == "éb"
    assert detokenizer.push([11]) == ""
    assert detokenizer.push([12]) == "🙂"
    assert detokenizer.push([16]) == "�"  # no character begins with this byte
    ending = detokenizer.finish([11], LENGTH, None)
    assert (ending.text, ending.tail) == ("", "")
    assert ending.kept_ids == (0, 14, 15, 11, 12, 16)


@pytest.mark.parametrize(
    ("tokens", "finish", "cut", "text", "kept", "tail"),
    [
        ([0, 13], LENGTH, None, "a", (0,), ""),  # three bytes of four
        ([0, 11], LENGTH, None, "a", (0,), ""),
        ([0, 9], LENGTH, 2, "a", (0,), ""),
        ([1, 14], LENGTH, None, "ba", (1,), "a"),  # the token's other text stays
        ([9], LENGTH, None, "", (), ""),
        ([0, 9, EOS], FinishReason(FinishKind.STOP, EOS), 2, "a", (0,), ""),
        ([0, 9, SPECIAL], LENGTH, None, "a", (0,), ""),  # what is not shown completes nothing
        ([9, SPECIAL, 10], LENGTH, None, "é", (9, SPECIAL, 10), ""),
        # What can be no character any more stays, as U+FFFD.
        ([0, 16], LENGTH, None, "a�", (0, 16), ""),
        ([9, 0], LENGTH, None, "�a", (9, 0), ""),
        ([16, 9], LENGTH, None, "�", (16,), ""),
        ([11, 9], LENGTH, None, "�", (), "�"),
        ([10], LENGTH, None, "�", (10,), ""),
        ([0, 9, 3], FinishReason(FinishKind.STOP, "1"), 2, "a�", (0,), "�"),
    ],
)
def test_an_output_ends_before_half_a_character(
    tokens: list[int],
    finish: FinishReason,
    cut: int | None,
    text: str,
    kept: tuple[int, ...],
    tail: str,
) -> None:
    for size in (0, len(tokens) - 1):
        detokenizer = Detokenizer(TABLE, SamplingParams())
        shown = detokenizer.push(tokens[:size])
        ending = detokenizer.finish(tokens[size:], finish, cut)
        assert (shown + ending.text, ending.kept_ids, ending.tail) == (text, kept, tail)


@pytest.mark.parametrize(
    ("skip", "trim", "text", "kept"),
    [(True, True, "ab", (6,)), (False, True, "ab", (6,)), (True, False, "ab", (6,))],
)
def test_the_end_token_is_neither_text_nor_kept(
    skip: bool, trim: bool, text: str, kept: tuple[int, ...]
) -> None:
    sampling = SamplingParams(skip_special_tokens=skip, no_stop_trim=not trim)
    detokenizer = Detokenizer(TABLE, sampling)
    ending = detokenizer.finish([6, EOS], FinishReason(FinishKind.STOP, EOS), 2)
    assert (ending.text, ending.kept_ids, ending.tail) == (text, kept, "")


def test_a_stop_token_with_text_is_neither_text_nor_kept() -> None:
    detokenizer = Detokenizer(TABLE, SamplingParams(stop_token_ids=(5,)))
    ending = detokenizer.finish([0, 5], FinishReason(FinishKind.STOP, 5), 1)
    assert (ending.text, ending.kept_ids) == ("a", (0,))


def test_an_end_token_that_ended_nothing_is_kept() -> None:
    """With ignore_eos the model saw it, so a continued program must send it again."""
    detokenizer = Detokenizer(TABLE, SamplingParams(ignore_eos=True))
    assert detokenizer.finish([0, EOS, 1], LENGTH, None).kept_ids == (0, EOS, 1)
    detokenizer = Detokenizer(TABLE, SamplingParams(ignore_eos=True))
    assert detokenizer.finish([0, EOS], LENGTH, None).kept_ids == (0, EOS)


def test_special_tokens_are_shown_only_where_asked() -> None:
    for skip, text in [(True, "ab"), (False, "a<|special|>b")]:
        detokenizer = Detokenizer(TABLE, SamplingParams(skip_special_tokens=skip))
        assert detokenizer.push([0, SPECIAL, 1]) == text


def test_a_token_beyond_the_tokenizer_has_no_text() -> None:
    """Models pad their vocabulary; such a row can be sampled."""
    detokenizer = Detokenizer(TABLE, SamplingParams())
    assert detokenizer.push([0, 500, 1]) == "ab"


# --- holding back -----------------------------------------------------------------------------


@settings(deadline=None, max_examples=300)
@given(
    text=st.text("ab.", max_size=20),
    stops=st.lists(st.text("ab.", min_size=1, max_size=5), max_size=4),
    sizes=st.lists(st.integers(1, 4), max_size=20),
)
def test_no_more_is_held_back_than_may_begin_a_stop(
    text: str, stops: list[str], sizes: list[int]
) -> None:
    holdback = HoldBack(stops, ())
    shown, at = "", 0
    for size in [*sizes, len(text)]:
        shown += holdback.push(text[at : at + size])
        at = min(at + size, len(text))
        begins = [
            length
            for stop in stops
            for length in range(1, len(stop))
            if text[:at].endswith(stop[:length])
        ]
        # What was shown earlier stays shown: a stop was passed over there.
        held = max(begins, default=0)
        assert shown == text[: max(at - held, len(shown))]
        assert len(shown) >= at - held


@pytest.mark.parametrize(
    ("pattern", "pushes"),
    [
        (r"\d{3}-\d{4}", [("call 5", "call "), ("5x", "55x"), ("555-1", ""), ("a", "555-1a")]),
        ("END", [("the E", "the "), ("Nx", "ENx"), ("END", "")]),
        (r"(?<=a)b+c", [("xb", "xb"), ("ab", "a"), ("bd", "bbd")]),
        (r"^no", [("n", ""), ("ew", "new"), ("no", "no")]),
        (r"[.!?]\s", [("Hi", "Hi"), (".", ""), ("x", ".x"), ("?", "")]),
        ("a.*z", [("b", "b"), ("a", ""), ("bcdefg", ""), ("\nx", "abcdefg\nx")]),
        ("(?i)stop", [("ST", ""), ("ep", "STep")]),
    ],
)
def test_the_begin_of_a_pattern_is_held_back(pattern: str, pushes: list[tuple[str, str]]) -> None:
    holdback = HoldBack((), [pattern])
    for text, shown in pushes:
        assert holdback.push(text) == shown


def test_a_pattern_that_stands_only_by_itself_shows_nothing_before_the_end() -> None:
    pattern = "(?x)ab  # with a comment, which would swallow what is put after it"
    assert re.compile(pattern)
    detokenizer = Detokenizer(TABLE, SamplingParams(stop_regex=(pattern,)))
    assert detokenizer.push([0, 2]) == ""
    assert detokenizer.finish([0], LENGTH, None).text == "a.a"


def test_a_search_that_takes_too_long_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(holdback_module, "_SECONDS", 0.001)
    holdback = HoldBack((), [r"(?:(x+)\1?)+[0-9]"])
    assert holdback.push("ab") == "ab"
    assert holdback.push("x" * 500) == ""
    assert holdback.push("z and no more of it can be searched") == ""


# --- the table --------------------------------------------------------------------------------


@pytest.mark.parametrize("files", [text_files.byte_level(), text_files.sentencepiece()])
def test_the_table_spells_what_the_tokenizer_reads(files: object) -> None:
    table = TokenTable.of(files)  # type: ignore[arg-type]
    tokenizer = files.tokenizer  # type: ignore[attr-defined]
    text = "x\nthe fox, 木 🙂 naïve"
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    spelled = b"".join(table.pieces(ids, show_special=False)).decode()
    assert spelled.removeprefix(" ") == text
    (special, *_) = files.special_token_ids  # type: ignore[attr-defined]
    assert table.pieces([special], show_special=False) == [b""]
    shown = tokenizer.id_to_token(special).encode()
    assert table.pieces([special], show_special=True) == [shown]
    assert table.max_bytes == max(
        len(piece) for piece in table.pieces(range(tokenizer.get_vocab_size()), show_special=True)
    )


def test_spelling_fills_in_every_piece() -> None:
    entry = TokenLogprob(6, -1.5, ((SPECIAL, -2.0), (0, -3.0)))
    (spelled,) = TABLE.spell([entry])
    assert spelled == TokenLogprob(
        6, -1.5, ((SPECIAL, -2.0), (0, -3.0)), piece=b"ab", top_pieces=(b"<|special|>", b"a")
    )
