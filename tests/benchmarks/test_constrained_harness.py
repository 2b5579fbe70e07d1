"""The harness of the benchmark of constraints: how an engine is walked, judged, counted and kept
from harm."""

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

HERE = Path(__file__).parents[2] / "benchmarks" / "constrained"
# Appended: the benchmark of the peers, which conftest.py puts first, has modules of common names.
sys.path.append(str(HERE))

from adapters import Refused, Rows, Sapwood, Tokens, Whitespace  # noqa: E402
from corpus import KEYWORDS, Case, load, schema_files  # noqa: E402
from engine_process import EngineAbsent, EngineProcess, Observed  # noqa: E402
from summary import Judged, Run, duration, figures, markdown, wrong  # noqa: E402
from verdict import Verdict, judge  # noqa: E402
from walk import BATCH_ROWS, Walker, jump_through, spellings  # noqa: E402

EOS = 256


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tokenizer with a token for every byte and no others."""
    letters = {letter: n for n, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = Tokenizer(models.BPE(letters, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    spelled: list[bytes | None] = [None] * (EOS + 1)
    for byte in range(128):  # the documents here are ASCII
        spelled[tokenizer.encode(chr(byte)).ids[0]] = bytes([byte])
    path = tmp_path_factory.mktemp("tokenizer")
    Tokens.write(path, tokenizer, spelled, [EOS])
    return path


@pytest.fixture(scope="module")
def tokens(folder: Path) -> Tokens:
    return Tokens(folder)


# --- an engine that allows exactly the texts that it is given ------------------------------------


class TextMatcher:
    def __init__(self, texts: Sequence[str], tokens: Tokens, row: Rows, *, tight: bool) -> None:
        self._texts, self._tokens, self._row, self._tight = texts, tokens, row, tight
        self._taken = ""

    def fill_mask(self) -> None:
        self._row[:] = 0
        for text in self._texts:
            if text == self._taken:
                self._allow(EOS)
            elif text.startswith(self._taken) and not self._tight:
                self._allow(self._tokens.encode(text[len(self._taken)])[0])

    def _allow(self, token: int) -> None:
        self._row.view(np.uint32)[token >> 5] |= np.uint32(1 << (token & 31))

    def accept(self, token: int) -> bool:
        self._taken += self._tokens.decode([token]).decode()
        return any(text.startswith(self._taken) for text in self._texts)

    def forced_tokens(self, taken: Sequence[int]) -> list[int]:
        """All that the possible texts have in common."""
        assert self._tokens.decode(taken).decode() == self._taken
        rests = [text[len(self._taken) :] for text in self._texts if text.startswith(self._taken)]
        common = min(rests)
        while not all(rest.startswith(common) for rest in rests):
            common = common[:-1]
        return self._tokens.encode(common)


class TextGrammar:
    def __init__(self, texts: Sequence[str], tokens: Tokens, *, tight: bool, batch: bool) -> None:
        self._texts, self._tokens, self._tight, self._batch = texts, tokens, tight, batch

    def start(self, rows: Rows, index: int = 0) -> TextMatcher:
        return TextMatcher(self._texts, self._tokens, rows[index], tight=self._tight)

    def fill_batch(self) -> Callable[[Sequence[Any], Rows], None] | None:
        if not self._batch:
            return None

        def fill(matchers: Sequence[Any], rows: Rows) -> None:
            assert len(matchers) == len(rows) == BATCH_ROWS
            for matcher in matchers:
                matcher.fill_mask()

        return fill


class TextEngine:
    """`tight`: its masks allow nothing but the end, whatever it accepts."""

    version = "1"
    jumps = (Whitespace.FREE, Whitespace.FIXED)

    def __init__(
        self, texts: Sequence[str], tokens: Tokens, *, tight: bool = False, batch: bool = False
    ) -> None:
        self._texts, self._tokens, self._tight, self._batch = texts, tokens, tight, batch

    def compile(self, schema: str, whitespace: Whitespace) -> TextGrammar:
        if not self._texts:
            raise Refused("nothing")
        return TextGrammar(self._texts, self._tokens, tight=self._tight, batch=self._batch)


CASE = Case(
    "file",
    "name",
    {"type": "object", "properties": {"a": {"type": "integer"}}, "additionalProperties": False},
    ({"a": 1}, {}),
    ({"a": None}, {"b": 1}),
)
VALID = [text for document in CASE.valid for text in spellings(document)]
NUMBERS = Case("file", "numbers", {"type": "integer", "minimum": 10}, (12, 123), (5, "x"))


def observed(engine: Any, case: Case, tokens: Tokens) -> Observed:
    walker = Walker(engine, tokens)
    try:
        grammar, seconds = walker.compile(json.dumps(case.schema))
    except Refused as why:
        return Observed(refused=str(why))
    walked = walker.walk(grammar, case.valid, case.invalid)
    jumped = walker.jump(grammar, json.dumps(case.schema), case.valid)
    return Observed(seconds, walked=walked, jumped=jumped)


def verdict(texts: Sequence[str], tokens: Tokens, case: Case = CASE, **how: bool) -> Verdict:
    return judge(case, observed(TextEngine(texts, tokens, **how), case, tokens))


# --- judgement -----------------------------------------------------------------------------------


def test_right(tokens: Tokens) -> None:
    assert verdict(VALID, tokens) == Verdict(True)
    assert verdict(VALID, tokens).right


@pytest.mark.parametrize("number", [0, 1])
def test_one_spelling_of_each_is_enough(number: int, tokens: Tokens) -> None:
    texts = [spellings(document)[number] for document in CASE.valid]
    assert verdict(texts, tokens).right


def test_refused(tokens: Tokens) -> None:
    found = verdict([], tokens)
    assert found == Verdict(False, refused="nothing")
    assert not found.right


@pytest.mark.parametrize("spelling", [0, 1])
def test_lax_in_either_spelling(spelling: int, tokens: Tokens) -> None:
    found = verdict([*VALID, spellings({"a": None})[spelling]], tokens)
    assert found.accepts_invalid
    assert not found.right
    assert found.problems == ('accepts invalid[0]: {"a": null}',)


@pytest.mark.parametrize(
    ("texts", "problem"),
    [
        (['{"a": 2}', "{}"], "refuses valid[0] at '1' after '{\"a\": '"),
        (['{"a":2}', "{}"], "refuses valid[0] at ' ' after '{\"a\":'"),
        (['{"a": 1', '{"a": 1} ', "{}"], "refuses valid[0] at its end, after '{\"a\": 1}'"),
        (['{"a": 1}'], "refuses valid[1] at '}' after '{'"),
        (["", *VALID], "allows the end in valid[0] after ''"),
        (['{"a', *VALID], "allows the end in valid[0] after '{\"a'"),
    ],
)
def test_what_is_wrong_is_said(texts: list[str], problem: str, tokens: Tokens) -> None:
    found = verdict(texts, tokens)
    assert found.compiled
    assert not found.right
    assert not found.accepts_invalid
    assert problem in found.problems


@pytest.mark.parametrize(
    ("more", "right"), [([], True), (["12"], True), (["1"], False), (["1e"], True)]
)
def test_an_end_where_a_shorter_document_would_be_valid(
    more: list[str], right: bool, tokens: Tokens
) -> None:
    assert verdict(["12", "123", *more], tokens, NUMBERS).right is right


def test_a_mask_that_forbids_what_would_be_accepted_refuses(tokens: Tokens) -> None:
    assert verdict(VALID, tokens, tight=True).problems[0] == "refuses valid[0] at '{' after ''"


@pytest.mark.parametrize(
    ("seen", "problem"),
    [
        (Observed(1.0, failed="walked: the process ended"), "walked: the process ended"),
        (Observed(1.0, walked={"failed": "ValueError: x"}), "walked: ValueError: x"),
    ],
)
def test_an_engine_that_dies_in_its_walk_is_wrong(seen: Observed, problem: str) -> None:
    assert judge(CASE, seen) == Verdict(True, problems=(problem,))


# --- what is measured ----------------------------------------------------------------------------


def test_every_place_of_the_valid_documents_is_timed(tokens: Tokens) -> None:
    walked = observed(TextEngine(VALID, tokens), CASE, tokens).walked
    places = sum(len(spellings(document)[0]) + 1 for document in CASE.valid)
    assert len(walked["cold_ns"]) == len(walked["warm_ns"]) == places
    assert walked["batch_row_ns"] is None


def test_a_batch_is_filled_where_there_is_a_call(tokens: Tokens) -> None:
    walked = observed(TextEngine(VALID, tokens, batch=True), CASE, tokens).walked
    assert walked["batch_row_ns"] > 0


class Forcing:
    """Forces the same tokens at each place; `accepted` is what it was told."""

    def __init__(self, forced: dict[int, list[int]]) -> None:
        self._forced = forced
        self.accepted: list[int] = []

    def forced_tokens(self, taken: Sequence[int]) -> list[int]:
        assert list(taken) == self.accepted
        return self._forced.get(len(taken), [])

    def accept(self, token: int) -> bool:
        self.accepted.append(token)
        return True


@pytest.mark.parametrize(
    ("forced", "right", "wrong_ones"),
    [
        ({}, 0, 0),
        ({0: [1, 2, 3, 4]}, 4, 0),
        ({0: [1, 2]}, 2, 0),
        ({0: [1, 9, 3]}, 1, 2),
        ({0: [9]}, 0, 1),
        ({1: [2], 3: [4]}, 2, 0),
        ({0: [1, 2, 3, 4, 5, 6]}, 4, 2),
        ({0: [1], 2: [7]}, 1, 1),
    ],
)
def test_forced_tokens_are_those_of_the_document(
    forced: dict[int, list[int]], right: int, wrong_ones: int
) -> None:
    matcher = Forcing(forced)
    assert jump_through(matcher, [1, 2, 3, 4]) == (right, wrong_ones)
    assert matcher.accepted == [1, 2, 3, 4]


def test_jumps_are_counted_over_all_documents(tokens: Tokens) -> None:
    jumped = observed(TextEngine(['{"a": 1}', "{}"], tokens), CASE, tokens).jumped
    # Only "{" is common; after it one byte decides and the rest follows.
    assert jumped["free"] == jumped["fixed"] == {"tokens": 10, "forced": 8, "undone": 0}


def judged(case: Case = CASE, **seen: Any) -> Judged:
    accepted = {"accepted": True, "ends": [], "taken": 1, "tokens": 1}
    refused = {"accepted": False, "ends": [], "taken": 0, "tokens": 1, "before": "", "next": "x"}
    walked = {"valid": [accepted] * 2, "invalid": [refused] * 2, "cold_ns": [], "warm_ns": []}
    if "refused" in seen:
        return Judged.of(case, Observed(**seen))
    return Judged.of(case, Observed(seconds=0.1, walked=walked | seen.get("walked", {})))


LAX = {"invalid": [{"accepted": True, "ends": [], "taken": 1, "tokens": 1}] * 2}


def test_figures() -> None:
    found = figures(
        [
            judged(walked={"cold_ns": [1000, 3000], "warm_ns": [500], "batch_row_ns": 700.0}),
            judged(walked=LAX | {"cold_ns": [5000], "batch_row_ns": None}),
            judged(refused="no"),
            judged(refused="more than 20 s", over_limit=True),
        ],
        20.0,
    )
    assert found["cases"] == 4
    assert (found["compiled"], found["right"], found["lax"]) == (50.0, 25.0, 25.0)
    assert found["right_of_compiled"] == 50.0
    assert found["first_mask_p50"] == pytest.approx(0.1)
    assert found["first_mask_p99"] == pytest.approx(20.0, rel=0.05)
    assert found["mean_mask"] == pytest.approx(3e-6)
    assert found["cold_mask_p50"] == pytest.approx(3e-6)
    assert found["warm_mask_p50"] == pytest.approx(5e-7)
    assert found["batch_row"] == pytest.approx(7e-7)
    assert found["forced_free"] is None


def test_shares_of_forced_tokens() -> None:
    one, other = judged(), judged()
    one.seen.jumped["free"] = {"tokens": 10, "forced": 3, "undone": 1}
    other.seen.jumped["free"] = {"tokens": 10, "forced": 0, "undone": 0}
    found = figures([one, other], 20.0)
    assert (found["forced_free"], found["undone_free"]) == (15.0, 25.0)
    assert found["forced_fixed"] is None


def test_the_tables_tell_schemas_and_keywords_apart() -> None:
    keyword = Case(KEYWORDS, "k", CASE.schema, CASE.valid, CASE.invalid)
    runs = {
        "ours": Run("1", [judged(), judged(keyword)]),
        "theirs": Run("2", [judged(refused="no"), judged(keyword, walked=LAX)]),
    }
    lines = markdown({"machine": "m"}, runs, {"gone": "not installed"}, 20.0).splitlines()
    assert "- machine: m" in lines
    assert "| schemas | ours 1 | theirs 2 |" in lines
    assert "| keyword cases | ours 1 | theirs 2 |" in lines
    assert lines.count("| right | 100.0 % | 0.0 % |") == 2
    assert "| accepts something invalid | 0.0 % | 100.0 % |" in lines
    assert "- gone: not measured, not installed" in lines
    assert "- ours: no call that fills many rows" in lines
    assert wrong(runs["ours"]) == ""
    assert wrong(runs["theirs"]).splitlines()[:2] == ["file: name", "    refused: no"]


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (None, "-"),
        (20.0, "20 s"),
        (0.0016, "1.6 ms"),
        (1.23456e-4, "123 us"),
        (4e-7, "0.4 us"),
        (2.0, "2 s"),
    ],
)
def test_durations(seconds: float | None, shown: str) -> None:
    assert duration(seconds) == shown


# --- our engine, and processes -------------------------------------------------------------------

TINY = [
    CASE,
    Case("file", "enum", {"enum": ["red", "green"]}, ("red", "green"), ("blue", "re")),
    Case("file", "list", {"type": "array", "items": {"type": "boolean"}}, ([True], []), ([1], {})),
]


@pytest.mark.parametrize("case", TINY, ids=lambda case: case.name)
def test_our_engine_is_right_about_tiny_schemas(case: Case, tokens: Tokens) -> None:
    assert judge(case, observed(Sapwood(tokens), case, tokens)).problems == ()


def test_our_engine_in_its_own_process(folder: Path, tmp_path: Path) -> None:
    command = [sys.executable, str(HERE / "worker.py"), "sapwood", str(folder), "12"]
    with EngineProcess(command, log=tmp_path / "log") as engine:
        seen = [engine.observe(case) for case in TINY]
        refused = engine.observe(Case("file", "bad", {"type": "nothing"}, (), ()))
        again = engine.observe(CASE)
    for case, each in zip(TINY, seen, strict=True):
        assert judge(case, each).right
        assert each.seconds is not None and each.seconds > 0
        assert each.jumped["free"]["tokens"] > 0
        assert each.jumped["free"]["undone"] == 0
    assert refused.refused is not None
    assert judge(CASE, again).right


SCRIPT = """
import json, sys, time
def say(**body): print(json.dumps(body), flush=True)
say(event="ready", version="7")
for line in sys.stdin:
    what = json.loads(line)["schema"]
    if "compile-dies" in what: sys.exit(3)
    if "compile-hangs" in what: time.sleep(600)
    if "refuses" in what: say(event="refused", message="no"); continue
    say(event="compiled", seconds=0.5)
    if "walk-dies" in what: sys.exit(3)
    if "walk-hangs" in what: time.sleep(600)
    if "walk-fails" in what: say(event="failed", message="oh"); continue
    say(event="walked", valid=[], invalid=[])
    if "jump-fails" in what: say(event="failed", message="oh"); continue
    say(event="jumped", free={"tokens": 1})
"""


@pytest.fixture
def scripted(tmp_path: Path) -> Iterator[EngineProcess]:
    command = [sys.executable, "-c", SCRIPT]
    with EngineProcess(
        command, compile_seconds=3.0, walk_seconds=1.0, log=tmp_path / "log"
    ) as engine:
        yield engine


@pytest.mark.parametrize(
    ("what", "expected"),
    [
        (
            "fine",
            Observed(0.5, walked={"valid": [], "invalid": []}, jumped={"free": {"tokens": 1}}),
        ),
        ("refuses", Observed(refused="no")),
        ("compile-dies", Observed(refused="the process ended")),
        ("compile-hangs", Observed(refused="more than 3 s", over_limit=True)),
        ("walk-dies", Observed(0.5, failed="walked: the process ended")),
        ("walk-hangs", Observed(0.5, failed="walked: more than 1 s")),
        ("walk-fails", Observed(0.5, walked={"failed": "oh"})),
        ("jump-fails", Observed(0.5, walked={"valid": [], "invalid": []})),
    ],
)
def test_what_befalls_a_case_befalls_no_other(
    what: str, expected: Observed, scripted: EngineProcess
) -> None:
    assert scripted.version == "7"
    assert scripted.observe(Case("f", what, {"title": what}, (), ())) == expected
    after = scripted.observe(Case("f", "fine", {}, (), ()))
    assert after.jumped == {"free": {"tokens": 1}}


@pytest.mark.parametrize(
    ("command", "why"),
    [
        (["/nowhere/python"], "cannot start /nowhere/python"),
        (
            [sys.executable, "-c", 'print(\'{"event": "absent", "message": "not here"}\')'],
            "not here",
        ),
        ([sys.executable, "-c", "import sys; sys.exit('broken')"], "broken"),
    ],
)
def test_an_engine_that_does_not_start_is_absent(
    command: list[str], why: str, tmp_path: Path
) -> None:
    engine = EngineProcess(command, log=tmp_path / "log")
    with pytest.raises(EngineAbsent, match=why), engine:
        pass


# --- the corpus as the harness sees it -----------------------------------------------------------


def test_files_are_loaded_by_name() -> None:
    assert {case.file for case in load()} == {*schema_files(), KEYWORDS}
    assert {case.file for case in load([KEYWORDS])} == {KEYWORDS}
    first = load(schema_files()[:1])
    assert first == [case for case in load() if case.file == schema_files()[0]]
