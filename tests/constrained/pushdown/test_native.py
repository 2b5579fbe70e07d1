"""The token machine in C++ against the one in Python, and both against brute force."""

import importlib.util
import json
import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sapwood._native import NativeUnavailable
from sapwood.constrained import Choice, CompileLimits, Ebnf, JsonSchema, Regex, Vocabulary
from sapwood.constrained.lower import lower
from sapwood.constrained.pushdown.collection import NEVER
from sapwood.constrained.pushdown.machine import DEAD
from sapwood.constrained.pushdown.native import NO_BUDGET, NativeTokenMachine, fill_rows, library
from sapwood.constrained.pushdown.program import Kind, finish
from sapwood.constrained.pushdown.token_machine import PythonTokenMachine
from sapwood.runtime.models.source import resolve_model
from sapwood.runtime.tokenizer import load_tokenizer

naive = importlib.util.module_from_spec(
    spec := importlib.util.spec_from_file_location("naive", Path(__file__).with_name("naive.py"))
)
spec.loader.exec_module(naive)

try:
    library()
except NativeUnavailable as unavailable:
    pytest.skip(f"no native code: {unavailable}", allow_module_level=True)

EOS = 3
SMALL = Vocabulary(
    [
        *(b"a", b"b", b"ab", None, b"abc", b"c", b"aa", b"a", b"bca", "é".encode(), b"\xc3"),
        *(b"\xa9", b"x\xc3", b"\xa9y", b"{", b"}", b'{"', b'"', b'": ', b"1", b"12", b", ", b""),
        *(b"cab", b",", b":", b" ", b"[", b"]", b'["', b'", "', b"tr", b"ue", b"null", b"-", b"."),
        *(f"w{i}".encode() for i in range(20)),
        *(bytes([i]) for i in range(256)),
    ],
    [EOS],
)
LETTERS = Vocabulary(
    [None, *(bytes([i]) for i in range(256)), b"ab", b"ba", b",a", b"a,", b"b,b", b"aab"], [0]
)

REGEXES = [
    *("", "abc", "(a|b|c)*", "ab?c?a*", "x?é+y?", "[^a]{1,3}", "(abc){1,3}", "[a-c]{7}", ".*"),
    *("(a|bc){2,}x?", r"\{\"(a|b)\": 1[0-9]?\}", "(?s:.){2,300}", "a{0,500}b", "(?=.*b)[ab]{2,4}"),
    *("(?!ab)[abc]{2}", "w1?[0-9]", "(w1|w12)x", r"\w+ ?\w*", "(?i)AbC", "[^\\x00-\\x7f]+", "é|x"),
    *("(a?b?){3}", "(?:ab|a)(?:bc|c)?", "(x|y|z){9,20}", "(true|null|fals)*"),
]
_STRING, _INT = {"type": "string"}, {"type": "integer"}
_PAIR = {"properties": {"a": _INT, "b": _STRING}, "required": ["a"]}
SCHEMAS = [
    {},
    _STRING,
    {"type": "number"},
    {"type": ["integer", "null"], "minimum": -3, "exclusiveMaximum": 12},
    {"type": "number", "minimum": 0.5, "maximum": 2.25},
    {"type": "integer", "multipleOf": 3},
    {"type": "number", "multipleOf": 0.25},
    {"minLength": 2, "maxLength": 3, "type": "string"},
    {"type": "string", "pattern": "^[ab]+é?$"},
    {"type": "string", "pattern": "b", "maxLength": 4},
    {"type": "string", "not": {"pattern": "^a"}},
    {"type": "string", "format": "date"},
    {"type": "string", "format": "ipv4"},
    {"enum": ["a", "ab", 1, 12, None, True, [1, "a"], {"a": 1, "b": []}]},
    {"not": {"const": "a"}},
    {"not": {"type": ["string", "object", "array"]}},
    _PAIR,
    {**_PAIR, "additionalProperties": False},
    {"properties": dict.fromkeys("abcxyz", _INT), "additionalProperties": False},
    {"properties": {"a": _INT}, "additionalProperties": _STRING, "maxProperties": 2},
    {"patternProperties": {"^a": _INT, "c$": _STRING}, "additionalProperties": False},
    {"type": "object", "propertyNames": {"maxLength": 2}},
    {"type": "object", "minProperties": 1},
    {"properties": {"a": _INT, "b": _INT}, "dependentRequired": {"a": ["b"]}},
    {"properties": {"a": _INT}, "dependentSchemas": {"a": {"required": ["c"]}}},
    {"type": "array", "items": _INT, "minItems": 1, "maxItems": 3},
    {"type": "array", "prefixItems": [_INT, _STRING], "items": False, "minItems": 1},
    {"type": "array", "uniqueItems": True, "items": {"enum": ["a", "b", 1]}},
    {"type": "array", "uniqueItems": True, "items": _STRING},
    {"type": "array", "uniqueItems": True, "items": _INT, "minItems": 2, "maxItems": 4},
    {"type": "array", "contains": {"const": "a"}, "items": _STRING, "maxContains": 2},
    {"anyOf": [_PAIR, _STRING, {"type": "array", "items": {"type": "null"}}]},
    {"oneOf": [{"type": "integer"}, {"type": "number", "minimum": 2}]},
    {"allOf": [_PAIR, {"properties": {"c": {"type": "null"}}}], "unevaluatedProperties": False},
    {"if": {"required": ["a"]}, "then": {"required": ["b"]}, "else": {"maxProperties": 1}},
    {"type": "array", "prefixItems": [_INT], "unevaluatedItems": _STRING},
    {"type": "array", "items": {"$ref": "#"}},
    {"properties": {"a": {"$ref": "#"}, "b": {"$ref": "#/$defs/n"}}, "$defs": {"n": _INT}},
    {"type": "object", "not": {"additionalProperties": _INT}},
    {"const": {"a": [1, {"b": "é"}], "c": None}},
]
OPTIONS = [
    {},
    {"whitespace": "compact", "key_order": "any"},
    {"whitespace": "printed"},
    {"whitespace": "flexible", "integer_fraction": True},
]


def bits(row: np.ndarray) -> set[int]:
    return set(np.flatnonzero(np.unpackbits(row.view(np.uint8), bitorder="little")).tolist())


def row_of(machine, here: int, budget: int | None, vocabulary: Vocabulary) -> set[int]:
    row = np.full(vocabulary.num_words, -1, np.int32)
    machine.fill(here, budget, row)
    return bits(row)


def brute_row(machine, here: int, budget: int | None, vocabulary: Vocabulary) -> set[int]:
    allowed = set(vocabulary.eos_ids) if machine.accepting(here) else set()
    most = NEVER - 1 if budget is None else budget - 1
    for token, text in enumerate(vocabulary.token_bytes):
        if text and (to := machine.step(here, text)) != DEAD and machine.needed(to) <= most:
            allowed.add(token)
    return allowed


def compare(program, vocabulary: Vocabulary, rng: random.Random, steps: int) -> None:
    """Both machines side by side over random outputs."""
    python, native = (
        PythonTokenMachine(program, vocabulary),
        NativeTokenMachine(program, vocabulary),
    )
    assert (python.start == DEAD) == (native.start == DEAD)
    if python.start == DEAD:
        return
    # Rows forget what a unique item holds, and so leave out tokens that end two of them.
    knows_all = Kind.UNIQUE not in program.kind
    here, there, seen = python.start, native.start, set()
    for _ in range(steps):
        if here not in seen:
            seen.add(here)
            same_answers(python, here, native, there)
            row = row_of(python, here, None, vocabulary)
            assert row_of(native, there, None, vocabulary) == row
            for machine, state in ((python, here), (native, there)):
                rows_are_brute_force(machine, state, vocabulary, knows_all)
        tokens = sorted(row - set(vocabulary.eos_ids))
        wrong = rng.randrange(-1, vocabulary.size + 1)
        assert (python.accept(here, wrong) == DEAD) == (native.accept(there, wrong) == DEAD)
        if not tokens:
            here, there = python.start, native.start
        else:
            token = rng.choice(tokens)
            here, there = python.accept(here, token), native.accept(there, token)
            assert here != DEAD and there != DEAD, token
        row = row_of(python, here, None, vocabulary)


def rows_are_brute_force(machine, here: int, vocabulary: Vocabulary, knows_all: bool) -> None:
    """Of what is enough for the end each machine may have its own bound, where texts are equally
    short; but with it some token leads one nearer."""
    needed = machine.needed(here)
    assert machine.accepting(here) == (needed == 0)
    if not knows_all:
        for budget in (None, needed, needed + 2):
            row = row_of(machine, here, budget, vocabulary) - set(vocabulary.eos_ids)
            after = [machine.accept(here, token) for token in sorted(row)[::40]]
            assert DEAD not in after
            assert not budget or all(machine.needed(to) < budget for to in after)
        return
    for budget in (None, 1, needed, needed + 1, needed + 3):
        row = row_of(machine, here, budget, vocabulary)
        assert row == brute_row(machine, here, budget, vocabulary), budget
        assert row or budget < max(needed, 1)


def same_answers(python, here: int, native, there: int) -> None:
    assert python.accepting(here) == native.accepting(there)
    assert python.is_end(here) == native.is_end(there)
    following = python.next_bytes(here)
    assert following == native.next_bytes(there)
    text, after = python.forced(here)
    other, reached = native.forced(there)
    assert text == other
    assert after == python.step(here, text) and reached == native.step(there, text)
    for byte in {*following[:2], 0, 97, 255}:
        text = bytes([byte, *following[-1:]])
        assert (python.step(here, text) == DEAD) == (native.step(there, text) == DEAD)


@settings(deadline=None, max_examples=120, suppress_health_check=list(HealthCheck))
@given(naive.builders(), st.randoms(use_true_random=False))
def test_random_builders(made, rng):
    builder, root = made
    compare(finish(builder, root), LETTERS, rng, 12)


@pytest.mark.parametrize("pattern", REGEXES)
def test_regexes(pattern, vocabulary):
    program = lower(Regex(pattern), CompileLimits())
    compare(program, SMALL, random.Random(pattern), 15)
    compare(program, vocabulary, random.Random(pattern), 6)


@pytest.mark.parametrize("schema", SCHEMAS, ids=json.dumps)
def test_schemas(schema, vocabulary):
    for options in OPTIONS:
        program = lower(JsonSchema.of(schema, **options), CompileLimits())
        compare(program, SMALL, random.Random(0), 12)
        compare(program, vocabulary, random.Random(1), 8)


@pytest.fixture(scope="module")
def real() -> Vocabulary:
    files = load_tokenizer(resolve_model(None))
    return Vocabulary.from_tokenizer(files.tokenizer, eos_ids=files.eos_ids)


@pytest.mark.parametrize(
    ("schema", "prefixes"),
    [
        (_PAIR, [b"", b"{", b'{"a": 1', b'{"a": 1, "b": "x', b'{"a": 1, "b": "", "']),
        ({"type": "string", "pattern": "^[a-z]+ \\d{2}é$"}, [b'"', b'"ab', b'"ab 1']),
        ({"type": "array", "items": {"$ref": "#"}}, [b"", b"[", b"[[[]", b"[[[], []"]),
        (True, [b"", b'"a', b'{"a": [1', b"tr"]),
    ],
    ids=str,
)
def test_rows_over_a_real_vocabulary(schema, prefixes, real):
    program = lower(JsonSchema.of(schema), CompileLimits())
    python, native = PythonTokenMachine(program, real), NativeTokenMachine(program, real)
    for prefix in prefixes:
        here, there = python.step(python.start, prefix), native.step(native.start, prefix)
        row = row_of(native, there, None, real)
        assert row == row_of(python, here, None, real)
        assert row == brute_row(native, there, None, real)
        needed = native.needed(there)
        for budget in (needed, needed + 2):
            assert row_of(native, there, budget, real) == brute_row(native, there, budget, real)


WORDS = Vocabulary(
    [
        None,
        *(bytes([i]) for i in range(256)),
        *(b"words and words, and some more of them"[:size] for size in range(2, 39)),
        *("東京都の天気予報です。"[:size].encode() for size in range(1, 12)),
        *("é😀"[:1].encode() + b"x" * size for size in range(20)),
        *("東京".encode()[:4], "ab😀".encode()[:4], b"abc", b"xyz", b"abcxyz", b'ab"', b'abc", "'),
        *(b'x"}', b"ab\\n", b"\\u00", b'words"', b"x" * 40, b'"abc"', b'"a'),
    ],
    [0],
)


@pytest.mark.parametrize(
    "constraint",
    [
        *({"maxLength": most, "minLength": least} for least, most in ((0, 1), (2, 2), (3, 18))),
        {"maxLength": 40, "minLength": 30},
        {"not": {"const": "abc"}},
        {"maxLength": 4, "pattern": "b"},
        {"anyOf": [{"maxLength": 2}, {"enum": ["words and words", "xyz"]}]},
    ],
    ids=json.dumps,
)
@pytest.mark.parametrize("wrapped", [False, True])
def test_what_remains_of_a_text_is_told_in_characters(constraint, wrapped):
    schema = {"type": "string", **constraint}
    if wrapped:
        schema = {"type": "array", "items": schema}
    native = NativeTokenMachine(lower(JsonSchema.of(schema), CompileLimits()), WORDS)
    text = (b'["' if wrapped else b'"') + "words é東京 and some more".encode()
    every_row_is_brute_force(native, text, WORDS)


@pytest.mark.parametrize(
    "pattern",
    ['[^\\x00-\\x1f"]{3}abc', ".{2,5}(xyz)?", ".{0,30}\\n", "(?s:.){20,}", ".{4}.{4}", ".*b"],
)
def test_what_remains_of_a_text_before_another(pattern):
    native = NativeTokenMachine(lower(Regex(pattern), CompileLimits()), WORDS)
    every_row_is_brute_force(native, "wé東rds and words and bc".encode(), WORDS)


BLANKS = Vocabulary(
    [
        None,
        *(bytes([i]) for i in range(256)),
        *(start + b" " * size for size in range(1, 30) for start in (b"", b"\n", b"\r\n", b",\n")),
        *(
            b"\n" + b" " * size + end
            for size in range(4)
            for end in (b'"', b"}", b"}\n", b"]", b"x")
        ),
        *(b"\n" + b" " * 24 + end for end in (b'"', b"}", b" }", b'"a', b"\t", b"\n")),
        *(b"\t" * size for size in range(2, 8)),
        *(b"a" * size + end for size in range(8) for end in (b"b", b"bb", b"aba", b"y")),
        *(b"{\n" + b"\t" * size for size in range(4)),
    ],
    [0],
)


@pytest.mark.parametrize("key_order", ["schema", "any"])
def test_rows_where_a_line_breaks(key_order):
    schema = {"properties": {"a": {"type": "array", "items": _PAIR}, "b": {"enum": [1, 12]}}}
    spec = JsonSchema.of(schema, whitespace="flexible", key_order=key_order)
    native = NativeTokenMachine(lower(spec, CompileLimits()), BLANKS)
    text = b'{\n  "a":\r\n\t[{"a" : 1,\n' + b" " * 22 + b'"b": "x"\n}\n  ]\n , "b": 1\n}'
    every_row_is_brute_force(native, text, BLANKS)


@pytest.mark.parametrize(
    "pattern",
    [
        *(
            "a{0,5}b",
            "a{2,4}(b|y)?",
            "[ab]{3}b",
            "(a{1,3}b?){2}",
            "a{3,}y",
            "a*b{2}",
            "a{2,6}",
            "y?a{9}",
        ),
        *("a{0,3}(a|b)", "( {0,3}\\n){2} ", "a{0,4}(?:b{0,2}y)*", "(a{2}|a{3}b)*", "(a{0,2}){3}b?"),
    ],
)
def test_rows_where_a_byte_is_repeated(pattern):
    program = lower(Regex(pattern), CompileLimits())
    for text in (b"aaaaabbby", b"aabaaab", b"   \n  \n "):
        every_row_is_brute_force(NativeTokenMachine(program, BLANKS), text, BLANKS)
    compare(program, SMALL, random.Random(pattern), 12)


BRACKETS = Vocabulary(
    [
        None,
        *(bytes([i]) for i in range(256)),
        *(sign * size for size in range(2, 40) for sign in (b"]", b"}", b"[")),
        *(b"}]" * size for size in range(1, 20)),
        *(b']}, {"a": [', b"1]]", b'"}', b'"}]}', b'{"a": [', b'{"b": "', b', "b": "'),
        *(b"1, 1", b"]], [[", b'x"}]}]}]}]}]}', b"words"),
    ],
    [0],
)
DEEP = {
    "lists": ({"items": {"$ref": "#"}, "type": ["array", "integer"]}, b"[1, [", b"1]"),
    "objects": (
        {
            "properties": {"a": {"type": "array", "items": {"$ref": "#"}}, "b": _STRING},
            "additionalProperties": False,
            "type": "object",
        },
        b'{"b": "x", "a": [',
        b'{"b": "word"}]',
    ),
}


@pytest.mark.parametrize("name", DEEP)
def test_depth_multiplies_neither_rows_nor_configurations(name):
    schema, text, end = DEEP[name]
    program = lower(JsonSchema.of(schema, key_order="any"), CompileLimits())
    native = NativeTokenMachine(program, BRACKETS)
    here, grown = native.start, []
    for level in range(60):
        before = native.num_configurations
        for byte in text:
            if level in (0, 3, 8, 30):
                for budget in (None, native.needed(here), None):
                    row = row_of(native, here, budget, BRACKETS)
                    assert row == brute_row(native, here, budget, BRACKETS), (level, budget)
            row_of(native, here, None, BRACKETS)
            here = native.step(here, bytes([byte]))
            assert here != DEAD
        grown.append(native.num_configurations - before)
    # Where all tokens end within the upper calls nothing is met but what the text itself leads to.
    short = NativeTokenMachine(program, SMALL)
    here, grown = short.start, []
    for _ in range(60):
        before = short.num_configurations
        for byte in text:
            row_of(short, here, None, SMALL)
            here = short.step(here, bytes([byte]))
        grown.append(short.num_configurations - before)
    assert len(set(grown[30:])) == 1 and grown[-1] <= 2 * len(text) < grown[0] + grown[1]
    every_row_is_brute_force(native, text * 20 + end, BRACKETS)


@pytest.mark.parametrize("period", range(11, 15))
def test_chains_end_calls_that_lie_deep(period):
    """Closing signs follow each other as a single byte each, where the outermost of so many calls
    could end with one more: a row of the upper calls alone would miss the tokens that go on."""
    rules = [f'r{i} ::= "[" r{i + 1} "]"' for i in range(1, period)]
    text = "\n".join(['r0 ::= "[" r1 "]" "x"?', *rules, f'r{period} ::= r0 | "1"'])
    program = lower(Ebnf(f"root ::= r0\n{text}"), CompileLimits())
    native = NativeTokenMachine(program, BRACKETS)
    every_row_is_brute_force(native, b"[" * period * 4 + b"1" + b"]" * period * 4, BRACKETS)


def every_row_is_brute_force(native, text: bytes, vocabulary: Vocabulary) -> None:
    here = native.start
    for byte in text:
        needed = native.needed(here)
        for budget in (None, needed, needed + 2, None):
            assert row_of(native, here, budget, vocabulary) == brute_row(
                native, here, budget, vocabulary
            ), budget
        here = native.step(here, bytes([byte]))
        if here == DEAD:
            return


def test_rows_of_many_machines_in_one_call(vocabulary):
    programs = [
        lower(Regex("a*b"), CompileLimits()),
        lower(Choice(("yes", "no")), CompileLimits()),
        lower(JsonSchema.of(_PAIR), CompileLimits()),
    ]
    machines = [NativeTokenMachine(program, vocabulary) for program in programs]
    starts, budgets = [machine.start for machine in machines], [None, 5, 30]
    rows, places = np.zeros((5, vocabulary.num_words), np.int32), [4, 0, 2]
    jobs = [
        number
        for machine, budget, place in zip(machines, budgets, places, strict=True)
        for number in (
            machine.handle,
            machine.start,
            NO_BUDGET if budget is None else budget,
            place,
        )
    ]
    assert fill_rows(jobs, rows) == 3
    for machine, start, budget, place in zip(machines, starts, budgets, places, strict=True):
        assert bits(rows[place]) == row_of(machine, start, budget, vocabulary)
    assert not rows[[1, 3]].any()
