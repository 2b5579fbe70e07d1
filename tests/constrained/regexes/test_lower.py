"""What lowered regexes read, compared with `re` by the naive recogniser beside this file."""

import importlib.util
import itertools
import json
import re
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sapwood.constrained.code_points import ALL
from sapwood.constrained.errors import GrammarError, LimitExceeded, Unsupported
from sapwood.constrained.json_schema.strings import write_character
from sapwood.constrained.pushdown.builder import FINAL, Product, Repeat
from sapwood.constrained.pushdown.machine import DEAD, Machine
from sapwood.constrained.pushdown.program import finish
from sapwood.constrained.regexes import plain
from sapwood.constrained.regexes.lower import add_regex, add_search, plain_character
from sapwood.constrained.regexes.parse import Dialect, parse
from sapwood.constrained.regexes.tree import (
    Anchor,
    AnchorKind,
    Look,
    Sequence,
    anchors,
    literal,
    nonempty,
)

naive = importlib.util.module_from_spec(
    spec := importlib.util.spec_from_file_location("naive", Path(__file__).with_name("naive.py"))
)
spec.loader.exec_module(naive)

# `re` takes exponential time over long texts of these.
AMBIGUOUS = [
    "(a{0,3}){0,40}b",
    "(?:ab?|b){30,40}",
    "(?:|a|ab){2,90}x",
    "(?:a?b?c?){0,70}",
    "((a*)b)*",
    "(?:a?){3}a{3}",
    r"(?:^|\b)[a-z]{0,80}(?:\b|$)",
    r"-?(?:\b(?:a?b?){3,60}\b)-?",
    r"(?:\b\w+\b ?)+",
]
PATTERNS = [
    *AMBIGUOUS,
    "",
    "abc",
    "a*b+c?",
    "(?:ab|a)(?:bc|c)?",
    "x|y|",
    "(a|b)*abb",
    "a{2,4}b{,2}c{1,}d{3}",
    "a{,}b",
    "a{b}{}",
    "a{x,1}",
    r"\w{3,90}",
    "(?:a{2,9}b){20,}",
    "[a-d]{0}b",
    "(?:a|ab|abc|abd|b|bcd|é|éa)x",
    r".+\n",
    "(?s:.)a",
    "(?s).a",
    r"[^a]b",
    r"[]a]+[^]a]",
    r"[a\]\-b-d-]+",
    r"[\\]x",
    r"[\w.-]+@[\w-]+\.\w+",
    r"[^\W\d_]+",
    r"\W\D\S",
    r"(?a)\w\W\d",
    r"(?a:\w)\w",
    "(?i)straße K",
    "(?i:ab)c",
    "(?i)a(?-i:b)c",
    "(?i)[a-f]k[^s]",
    "(?i)σς",
    "(?x) a b # c",
    r"\x41\u00e9\U0001F600\N{BULLET}\n\t\101\07",
    "é+ü?",
    "[é-ü]😀?",
    "[^\u0000-\uffff]",
    "(?P<year>\\d{4})-(?:0[1-9])",
    "^ab$",
    "^a|b$",
    "a$\n?",
    "(a$|b)\n",
    "(^a)*b",
    "(?:a|^b|c$)*",
    "(?:a$|b|\n)*",
    r"\Aa\Z",
    r"a\Z\n?",
    "a^b",
    "(a|^)b",
    "(a|$)(b|$)\n?",
    "(?:^|,)a(?:,a)*(?:$|b)",
    r"(?m)^a$",
    r"(?m)(?:^a$\n?)+",
    r"(?m)a^$\n|^",
    r"(?m:^)a$|(?m:a$)\n",
    r"\bab\b",
    r"a\b.",
    r"a\B.",
    r"\B|a",
    r"\B.*\B",
    r"\b|-\B-",
    r"(?:\b|a\B)+-?",
    r"(?a:\bé)|é\bé|(?a:a\bé)",
    r"\b[a-z]{2,80}\b",
    r"\ba{3,}\b|\B(?:-|a){70,}",
    "a*?b+?c??d{1,2}?",
    "(?=a)[ab]c",
    r"(?=.*\d)(?=.*[a-z])[a-z\d]{2,3}",
    "(?!ab)[abc]{2}",
    "a(?!b$).*",
    "(?=a|b)(?!b)[abc]",
    "(?!.*aa)[ab]{3}",
    "(?!.*--)[a-d-]{1,90}",
    "a(?=b)|c",
    "a(?!b)|c(?=)",
    "a(?=b)c",
    "x(?=y*z)[yz]+",
    "(?!^a)b",
    "(?!a(?!b)).*",
    "(?=(?=a)ab)ab?(?!c$).*",
    r"a(?=\b).*|(?!\w\b)a.",
    r"(?:(?=a.)[ab]){1,3}.?",
    r"[a-d](?:[a-d]|-(?=[a-d])){0,38}",
    r"(?:(?!b)[a-c]|b(?!.))*\n?",
    r"(?:(?=a|\n)(?s:.)|b(?=$))+-?",
    r"(?:(?!\Z)(?s:.)(?!b))+|a(?!\Z)(?=\b)-",
    r"(?:(?![ab])(?=[bc])\w)+|(?!\n)$",
    "(?!a$|b)(?:^|c).{0,70}",
    "(?!)",
    "[-+]?[0-9]*\\.?[0-9]+",
    r"\$\.\^\|\(\)\*\+\?",
    r"[a\&&b\~~|]",
]

AWKWARD = (
    "abcdxyzABKkſKßẞσςΣ019_-.,@\\[]{}^$ \t\n\r\x0b\x1c\x85\u00a0٣é😀"
    "\u2028\u07ff\u0800\uffff\U00010000"
)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_what_is_read_is_what_fullmatch_and_search_match(pattern):
    compiled = re.compile(pattern)
    whole, found = naive.new_builder(), naive.new_builder()
    start = add_regex(whole, pattern, FINAL)
    begin = add_search(found, parse(pattern, Dialect.PYTHON), plain_character, ALL)
    some = st.text(st.sampled_from(AWKWARD), max_size=6) | st.text(
        st.characters(exclude_categories=["Cs"]), max_size=4
    )
    if "(?!" in pattern or "(?x)" in pattern or r"\N{" in pattern:
        texts = some | st.text("abcxy-\n", max_size=6)
    else:  # matches by construction, and below with one character changed or dropped
        matching = st.from_regex(compiled, fullmatch=True).filter(
            lambda text: not any("\ud800" <= char <= "\udfff" for char in text)
        )
        texts = some | st.text("ab-\n", max_size=6) | matching

    @settings(deadline=None, max_examples=40, database=None)
    @given(texts, st.integers(0, 8), st.sampled_from(["", *AWKWARD]))
    def check(text, at, changed):
        if pattern in AMBIGUOUS:
            text = text[:10]
        for candidate in (text, text[:at] + changed + text[at + 1 :], text + changed):
            expected = compiled.fullmatch(candidate) is not None
            assert naive.accepts(whole, start, candidate.encode()) == expected, candidate
            expected = compiled.search(candidate) is not None
            assert naive.accepts(found, begin, candidate.encode()) == expected, candidate

    check()


ATOMS = st.sampled_from(["a", "b", r"\n", "-", ".", "[ab]", r"\w", r"\W", "[^a]", "é"])
ANCHORS = st.sampled_from(["^", "$", r"\b", r"\B", r"\A", r"\Z", "(?m:^)", "(?m:$)", r"(?a:\b)"])
COUNTS = ["*", "+", "?", "{2}", "{0}", "{1,3}", "{2,}", "{0,2}", "{3,5}", "{,7}", "*?"]


def larger(inner):
    return (
        st.tuples(inner, inner).map("".join)
        | st.tuples(inner, inner).map("(?:{0[0]}|{0[1]})".format)
        | st.tuples(inner, st.sampled_from(COUNTS)).map("(?:{0[0]}){0[1]}".format)
        | st.tuples(st.sampled_from(["(?=", "(?!"]), inner).map("{0[0]}{0[1]})".format)
    )


SHORT_TEXTS = ["".join(text) for n in range(4) for text in itertools.product("ab-\né", repeat=n)]


@settings(deadline=None, max_examples=300)
@given(
    st.recursive(ATOMS | ANCHORS, larger, max_leaves=7),
    st.sampled_from([0, 5, 64]),
    st.lists(st.sampled_from(SHORT_TEXTS) | st.text("ab-\n", max_size=7), min_size=1, max_size=20),
)
@example(r"(?:_|[ab](?=(?=\n)))", 4, ["a"])
@example(r"(?!(?:\n|(?=[^a])))", 64, [""])
@example(r"(?:(?:\b|a){2}|-$)+", 64, ["a", "a-", "a-\n"])
@example(r"\b(?:a|b-?){2,5}\b", 0, ["a", "ab", "ab-", "ab-a", "aaaaaa"])
def test_any_pattern_reads_what_re_matches(pattern, unrolled, texts):
    compiled = re.compile(pattern)
    whole, found = naive.new_builder(), naive.new_builder()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plain, "UNROLLED", unrolled)
        try:
            start = add_regex(whole, pattern, FINAL)
            begin = add_search(found, parse(pattern, Dialect.PYTHON), plain_character, ALL)
        except Unsupported as error:
            assert "lookahead inside an unbounded repetition" in str(error)
            assert "(?=" in pattern or "(?!" in pattern
            return
    for text in texts:
        expected = compiled.fullmatch(text) is not None
        assert naive.accepts(whole, start, text.encode()) == expected, text
        expected = compiled.search(text) is not None
        assert naive.accepts(found, begin, text.encode()) == expected, text


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_machine_reads_what_the_naive_one_does(pattern):
    builder = naive.new_builder()
    start = add_regex(builder, pattern, FINAL)
    machine = Machine(finish(builder, builder.rule(start)))
    for text in (*SHORT_TEXTS[:40], *AWKWARD, "ab" * 9, "a1", "aab b", "a.b", "abé😀", "é" * 40):
        at = machine.start
        for byte in text.encode():
            at = DEAD if at == DEAD else machine.step(at, byte)
        accepted = at != DEAD and machine.accepting(at)
        assert accepted == naive.accepts(builder, start, text.encode()), text


@settings(deadline=None, max_examples=100)
@given(st.binary(max_size=5))
@example("é".encode())
@example(b"\xed\xa0\x80")
def test_any_character_is_exactly_valid_utf8(text):
    try:
        expected = len(text.decode()) == 1
    except UnicodeDecodeError:
        expected = False
    builder = naive.new_builder()
    assert naive.accepts(builder, add_regex(builder, "(?s:.)", FINAL), text) == expected


# Inside something larger


@pytest.mark.parametrize(
    ("pattern", "texts"),
    [
        ("a|bc", {"a": True, "bc": True, "b": False, "": False}),
        ("a$", {"a": True, "a\n": False}),
        ("(?:a|b$)*", {"ab": True, "ba": False, "": True}),
        ("(?=a)[ab]", {"a": True, "b": False}),
        ("a(?!.)", {"a": True, "ab": False}),
        ("a(?!b).?", {"a": True, "a]": True, "ab": False}),
        (r"\ba\b", {"a": True}),
        ("(?:a?b?){40}", {"": True, "ab" * 40: True, "ab" * 40 + "a": False}),
    ],
)
def test_more_may_follow_a_regex(pattern, texts):
    builder = naive.new_builder()
    start = builder.text(b"[", add_regex(builder, pattern, builder.text(b"]x", FINAL)))
    for text, expected in texts.items():
        assert naive.accepts(builder, start, f"[{text}]x".encode()) == expected, text
        assert not naive.accepts(builder, start, f"[{text}]".encode())


def escaped(text):
    return json.dumps(text, ensure_ascii=False)[1:-1].encode()


@pytest.mark.parametrize(
    "pattern",
    [
        "",
        "a",
        "^a",
        "a$",
        "^a$|b",
        "^(?:a|b)$",
        "^(?:a|^b)|c$",
        "(?:^|,)a(?:,|$)",
        r"^[a-c\"\n]{2,3}$",
        r"^[a-c\"\\]{2,90}$",
        r"\\\"|\t",
        r"\bab\b",
        r"^\S+\s\S+$",
        r"^(?!.*--)[a-c-]+$",
        r"^(?=.*a)(?=.*\").{2,}$",
        r"(?!a)[ab]\"",
        r"^[^ab]*$",
        r"^\w+(?:-\w+){0,80}$",
        r"a\Z|\Ab",
        "$|^",
        "a$b|c",
        "(?i)^aB$",
        "(?!)",
    ],
)
def test_json_strings_in_which_a_pattern_is_found(pattern):
    builder = naive.new_builder()
    start = add_search(builder, pattern, write_character, ALL)
    compiled = re.compile(pattern.replace("$", r"\Z"))

    @settings(deadline=None, max_examples=60, database=None)
    @given(
        st.text('abcAB,- "\\\n\t', max_size=8)
        | st.text(st.characters(min_codepoint=32, max_codepoint=126))
    )
    @example("")
    @example("a\n")
    @example("ab")
    @example('a"')
    @example("aB")
    def check(text):
        expected = compiled.search(text) is not None
        assert naive.accepts(builder, start, escaped(text)) == expected, text
        if escaped(text) != text.encode() and "\\" not in text:
            assert not naive.accepts(builder, start, text.encode())

    check()


def test_what_must_not_be_found_is_what_any_reader_finds():
    for pattern, text in ((r"^\d$", "٣"), (r"^.$", "\r"), (r"^\s$", "\ufeff"), (r"^\W$", "é")):
        for narrow in (True, False):
            builder = naive.new_builder()
            start = add_search(builder, pattern, plain_character, ALL, narrow)
            assert naive.accepts(builder, start, text.encode()) != narrow


# What it costs


@pytest.mark.parametrize(
    ("pattern", "same"),
    [
        ("^abc$", "abc"),
        ("^(?:ab|c)$", "ab|c"),
        ("^ab$|^c$", "ab|c"),
        ("^(?:^ab$|c)$", "ab|c"),
        ("(?:^ab|^c)d$", "(?:ab|c)d"),
        ("^[a-z]{1,500}$", "[a-z]{1,500}"),
    ],
)
def test_an_anchored_pattern_has_no_states_around_it(pattern, same):
    found, whole = naive.new_builder(), naive.new_builder()
    add_search(found, pattern, plain_character, ALL)
    add_regex(whole, same, FINAL)
    assert len(found.edges) == len(whole.edges)
    assert found.edges == whole.edges


@pytest.mark.parametrize(
    ("pattern", "most"),
    [
        ("[a-z]{1,1000000}", 5),
        (".{1,1000000}", 40),
        ("((a{1,1000}){1,1000}){1,1000}", 10),
        ("(?:(?:a?){5,1000}b?){7,1000}", 30),
        ("x{1000,}", 10),
        ("(){1000000000}", 2),
        ("(^|$){1000000000}", 10),
        (r"\b[a-z]{1,100000}\b", 1500),
        ("(?!.*--)[a-z-]{1,200}", 60),
        ("(?:" * 90 + "a" + ")*" * 90, 200),
        ("|".join(f"word{i}" for i in range(2000)), 600),
    ],
)
def test_counts_and_depth_cost_few_states(pattern, most):
    for add in (add_regex, lambda b, p, then: add_search(b, p, plain_character, ALL)):
        builder = naive.new_builder()
        add(builder, pattern, FINAL)
        assert len(builder.edges) <= most + 60


@pytest.mark.parametrize(
    ("pattern", "error", "message"),
    [
        (r"((?:(?:^|a\b){1,1000}){1,1000}){1,1000}", LimitExceeded, "more than 200000 states"),
        (r"(?:a|\b){2147483647}", LimitExceeded, "more than 200000 states"),
        (r"(?:(?:(?=a)a){1,1000}){1,1000}", LimitExceeded, "more than 200000 states"),
        ("é" * 120_000, LimitExceeded, "more than 200000 states"),
        ("(" * 10_000 + "a" + ")" * 10_000, GrammarError, "nested too deeply"),
        (r"((?=ab)b)*", Unsupported, "lookahead inside an unbounded repetition"),
        (r"(?:(?!^a)b)+", Unsupported, "lookahead inside an unbounded repetition"),
        ("a{2147483648}", GrammarError, "repetition count is out of range"),
    ],
)
def test_what_costs_too_much_is_refused(pattern, error, message):
    for add in (add_regex, lambda b, p, then: add_search(b, p, plain_character, ALL)):
        with pytest.raises(error, match=message):
            add(naive.new_builder(), pattern, FINAL)


@pytest.mark.parametrize("length", [1, 2000, 20_000])
def test_length_alone_is_not_depth(length):
    for pattern in ("^" * length + "a", "a" + "$" * length, "a?" * length):
        builder = naive.new_builder(500_000)
        start = add_regex(builder, pattern, FINAL)
        assert naive.accepts(builder, start, b"a")


def test_lookahead_before_one_rest_is_one_product():
    builder = naive.new_builder()
    start = add_regex(builder, "(?=.*a)(?=.*b)(?!.*c)[a-d]{5}", FINAL)
    product = builder.operations[start]
    assert isinstance(product, Product)
    assert [part.negated for part in product.parts] == [False, True, False, False]


def test_a_counted_body_is_one_rule_however_often_it_is_counted():
    builder = naive.new_builder()
    add_regex(builder, "(?:x(?:ab?){2,90}){3}", FINAL)
    repeats = [each for each in builder.operations.values() if isinstance(each, Repeat)]
    assert len(repeats) == 3
    assert len({each.rule for each in repeats}) == 1


# Trees


@settings(deadline=None, max_examples=200)
@given(
    st.recursive(st.sampled_from(["a", "b", "[ab]", "", "(?:)"]), larger, max_leaves=6).filter(
        lambda pattern: "(?=" not in pattern and "(?!" not in pattern
    ),
    st.text("ab", max_size=5),
)
def test_nonempty_takes_away_the_empty_text_only(pattern, text):
    tree = parse(pattern, Dialect.PYTHON)
    builder = naive.new_builder()
    start = add_regex(builder, nonempty(tree), FINAL)
    expected = text != "" and re.fullmatch(pattern, text) is not None
    assert naive.accepts(builder, start, text.encode()) == expected
    assert not nonempty(tree).nullable
    assert tree.nullable == (re.fullmatch(pattern, "") is not None)


def test_the_anchors_of_a_tree_are_those_of_its_lookahead_too():
    end = Anchor(AnchorKind.END)
    tree = Sequence(
        (literal(97), Look(Sequence((end, literal(98))), True), Anchor(AnchorKind.START))
    )
    assert list(anchors(tree)) == [end, Anchor(AnchorKind.START)]
    assert tree.has_anchors
    assert tree.has_looks
    assert not tree.bare
