"""Regexes as trees: compared with what `re` matches, and with what ECMA 262 says."""

import re
import unicodedata

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sapwood.constrained.code_points import ALL, complement, intersection, matched_by_re, normalize
from sapwood.constrained.errors import GrammarError, Unsupported
from sapwood.constrained.regexes.parse import Dialect, parse
from sapwood.constrained.regexes.sets import ECMA_SPACES, any_case, category, unicode_property
from sapwood.constrained.regexes.tree import (
    EMPTY,
    NOTHING,
    Ahead,
    Anchor,
    AnchorKind,
    Characters,
    Either,
    Look,
    Repeated,
    Sequence,
    literal,
)

A, B, C = map(literal, b"abc")
START = Anchor(AnchorKind.START)
SPACE, HASH = map(literal, b" #")
OR_B = Characters(((32, 32), (98, 98)))


def python(pattern):
    return parse(pattern, Dialect.PYTHON)


def json(pattern):
    return parse(pattern, Dialect.JSON)


def ranges(tree):
    assert isinstance(tree, Characters), tree
    return tree.ranges


def singles(*letters):
    return normalize((ord(letter), ord(letter)) for letter in "".join(letters))


@pytest.mark.parametrize(
    ("pattern", "tree"),
    [
        ("", EMPTY),
        ("a", A),
        ("abc", Sequence((A, B, C))),
        ("a(?:b(c))", Sequence((A, B, C))),
        ("((((a))))", A),
        ("(?P<name>a)(?#comment)b", Sequence((A, B))),
        ("a|b|c", Characters(((97, 99),))),
        ("ab|c|", Either((Sequence((A, B)), EMPTY, C))),
        ("(?:ab|(?:bc|ca))", Either((Sequence((A, B)), Sequence((B, C)), Sequence((C, A))))),
        ("a*", Repeated(A, 0, None)),
        ("a+?", Repeated(A, 1, None)),
        ("a??", Repeated(A, 0, 1)),
        ("a{2}", Repeated(A, 2, 2)),
        ("a{2,}", Repeated(A, 2, None)),
        ("a{2,3}?", Repeated(A, 2, 3)),
        ("a{,3}", Repeated(A, 0, 3)),
        ("a{,}", Repeated(A, 0, None)),
        ("a{1}", A),
        ("a{0}b", B),
        ("(?:){7}(^){2,}", Anchor(AnchorKind.START)),
        ("(^)*(?:(?=a))?", EMPTY),
        ("a{}", Sequence((A, *map(literal, b"{}")))),
        ("{a}", Sequence((*map(literal, b"{"), A, *map(literal, b"}")))),
        ("(?=ab)c", Sequence((Look(Sequence((A, B)), False), C))),
        ("(?!ab)", Look(Sequence((A, B)), True)),
        ("(?!a)(?=b|c)", Sequence((Ahead(A.ranges, True), Ahead(((98, 99),), False)))),
        ("(?=(?!a))(?!(?!a))", Sequence((Ahead(A.ranges, True), Ahead(A.ranges, False)))),
        (r"(?=\Z)(?!\Z)", Sequence((Anchor(AnchorKind.END), Ahead(ALL, False)))),
        ("(?=a*)b", B),
        ("(?!a*)", NOTHING),
        (r"^\A\Z", Sequence((START, START, Anchor(AnchorKind.END)))),
        ("(?m)^$", Sequence((Anchor(AnchorKind.LINE_START), Anchor(AnchorKind.LINE_END)))),
        (
            "(?m:^)a|^",
            Either((Sequence((Anchor(AnchorKind.LINE_START), A)), Anchor(AnchorKind.START))),
        ),
        ("(?x) a # |b\n (?-x: ) [b ] {2} \\#", Sequence((A, SPACE, Repeated(OR_B, 2, 2), HASH))),
    ],
)
def test_structure(pattern, tree):
    for dialect in Dialect:
        assert parse(pattern, dialect) == tree


ATOMS = [
    ".",
    r"\d",
    r"\D",
    r"\w",
    r"\W",
    r"\s",
    r"\S",
    r"[\w\s]",
    r"[^\W\d_]",
    r"[^\s\S]",
    r"[]a]",
    r"[^]a]",
    r"[a\]\-b-d-]",
    r"[-a]",
    r"[a-]",
    r"[\d-]",
    r"[^-\d]",
    r"[\x41-\u00e9\101\b\a\1\12]",
    r"[\0-\7]",
    r"[\N{BULLET}\U0001F600]",
    r"[&&]",
    "[^\u0000-\uffff]",
    r"[\ud800-\udfffx]",
    r"\n",
    r"\x7f",
    r"\07",
    r"\101",
    r"\é",
    r"\_",
    "\\\n",
    "k",
    "ſ",
    "é",
    "Σ",
    "ß",
    "[k-m]",
    "[Z-a]",
    "[^i]",
    "[ſ-ƀé]",
    "[^à-ÿs]",
    r"[a\W]",
]


@pytest.mark.parametrize("flags", ["", "i", "s", "a", "ai", "im"])
@pytest.mark.parametrize("atom", ATOMS)
def test_an_atom_holds_what_re_matches(atom, flags):
    pattern = f"(?{flags}){atom}" if flags else atom
    value = sum(getattr(re, letter.upper()) for letter in flags)
    assert ranges(python(pattern)) == matched_by_re(atom, int(value))


@settings(deadline=None, max_examples=150)
@given(st.lists(st.tuples(st.characters(max_codepoint=127), st.integers(0, 40)), max_size=4))
@example([("A", 0x20)])
def test_ascii_sets_of_any_case(members):
    found = normalize((ord(low), min(ord(low) + more, 127)) for low, more in members)
    if not found:
        return
    text = "".join(f"\\x{low:02x}-\\x{high:02x}" for low, high in found)
    interesting = "".join(map(chr, (*range(0x250), 0x1E9E, 0x212A, 0xFB05)))
    for ascii in (True, False):
        flags = re.IGNORECASE | (re.ASCII if ascii else re.UNICODE)
        expected = re.findall(f"[{text}]", interesting, flags)
        assert any_case(found, ascii) == singles(*expected)


@pytest.mark.parametrize("letter", "dswDSW")
def test_categories_are_those_of_re(letter):
    assert category(letter, False) == matched_by_re("\\" + letter, 0)
    assert category(letter, True) == matched_by_re("\\" + letter, re.ASCII)


# JSON Schema


@pytest.mark.parametrize(
    ("pattern", "same"),
    [
        (r"\/\-\"\_", r'/-"_'),
        (r"(?<name>a)(?<_x1>b)", "ab"),
        (r"\cA\cz", r"\x01\x1a"),
        (r"\u{61}\u{1F600}", "a😀"),
        (r"\ud83d\ude00", "😀"),
        (r"[\ud83d\ude00-\ud83d\ude02]", "[😀-😂]"),
        (r"[\u{61}-\u{63}\cJ\/]", "[a-c\n/]"),
        (r"[\w-.]", r"[\w\-.]"),
        (r"[a-\d]", r"[a\-\d]"),
        (r"a{,3}", "a{0,3}"),
        (r"[a\]]", r"[\]a]"),
        (r"\0[\b]", r"\x00\x08"),
    ],
)
def test_what_ecma_writes_otherwise(pattern, same):
    assert json(pattern) == json(same)


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("[^]", ALL),
        ("[]", ()),
        ("(?i)[^]", ALL),
        (r"\d", singles("0123456789")),
        (r"[^\D]", singles("0123456789")),
        (r"\s", singles("\t\n\v\f\r ")),
        (r"\S", complement(ECMA_SPACES)),
        (r"\W", matched_by_re(r"\W", 0)),
        (r"[^\w]", matched_by_re(r"\W", 0)),
        (r"[^\W]", matched_by_re(r"\w", re.ASCII)),
        (r"(?a)\W", matched_by_re(r"\W", re.ASCII)),
        (".", complement(singles("\n\r\u2028\u2029"))),
        ("(?s).", ALL),
        ("(?i)k", singles("kK")),
        ("(?i)[^k]", complement(singles("kK\u212a"))),
        (r"\p{ASCII}", ((0, 127),)),
        (r"\P{Any}", ()),
        (r"\p{L}", matched_by_re(r"[^\W\d_]", 0)),
    ],
)
def test_a_json_atom_holds_what_ecma_and_python_accept(pattern, found):
    if pattern == r"\p{L}":
        assert not intersection(ranges(json(pattern)), complement(found))
    else:
        assert ranges(json(pattern)) == found


def test_inside_negative_lookahead_an_atom_holds_what_either_accepts():
    look = json(r"(?!\w\D.(?!\w)(?=\d)[^\d])")
    assert isinstance(look, Look)
    assert isinstance(look.body, Sequence)
    word, no_digit, dot, inner, ahead, not_digit = look.body.parts
    assert ranges(word) == category("w", False)
    assert ranges(no_digit) == category("D", True) == ranges(not_digit)
    assert ranges(dot) == matched_by_re(".", 0)
    assert inner == Ahead(category("w", True), True)
    assert ahead == Ahead(category("d", False), False)


def test_the_dollar_of_json_is_the_very_end():
    assert json("$") == Anchor(AnchorKind.END)
    assert python("$") == Anchor(AnchorKind.END_OR_LAST_NEWLINE)


def test_a_boundary_in_json_is_one_for_both():
    both = (Anchor(AnchorKind.BOUNDARY, True), Anchor(AnchorKind.BOUNDARY, False))
    assert json(r"\b") == Sequence(both)
    assert json(r"(?!\b)") == Look(Either(both), True)


def test_an_empty_class_matches_nothing():
    assert json("[]a]") == Sequence((Characters(()), A, literal(ord("]"))))
    assert NOTHING.nullable is False


@pytest.mark.parametrize(
    ("name", "categories"),
    [
        ("L", "Lu Ll Lt Lm Lo"),
        ("Letter", "Lu Ll Lt Lm Lo"),
        ("Lu", "Lu"),
        ("gc=Lu", "Lu"),
        ("General_Category=Uppercase_Letter", "Lu"),
        ("LC", "Lu Ll Lt"),
        ("digit", "Nd"),
        ("punct", "Pc Pd Ps Pe Pi Pf Po"),
        ("Zs", "Zs"),
        ("Cn", "Cn"),
        ("Cs", ""),
    ],
)
def test_properties_are_general_categories(name, categories):
    held = unicode_property(name)
    assert held is not None
    members = {code for low, high in held for code in range(low, high + 1)}
    wanted = set(categories.split())
    for code in (*range(0x3000), *range(0xD700, 0xE100), *range(0xFF00, 0x11000, 3), 0x10FFFF):
        surrogate = 0xD800 <= code <= 0xDFFF
        assert (code in members) == (unicodedata.category(chr(code)) in wanted and not surrogate), (
            hex(code)
        )


# Refusals


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        (r"(a)\1", r"backreference \\1 .*position 3"),
        (r"(?P<n>a)(?P=n)", "backreference by name .*position 8"),
        ("(?<=a)b", "lookbehind .*position 0"),
        ("b(?<!a)", "negative lookbehind .*position 1"),
        ("(?>a)", "an atomic group .*position 0"),
        ("xa*+", "possessive quantifier .*position 3"),
        ("xa{1,2}+", "possessive quantifier .*position 7"),
        ("(a)?(?(1)b|c)", "conditional group .*position 4"),
    ],
)
def test_what_no_tree_says_is_refused_by_name_and_place(pattern, message):
    for dialect in Dialect:
        with pytest.raises(Unsupported, match=message):
            parse(pattern, dialect)


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        (r"(?<n>a)\k<n>", "backreference by name .*position 7"),
        (r"a\p{Script=Greek}", r"property \\p\{Script=Greek\} .*position 1"),
        (r"[\P{Emoji}]", r"property \\P\{Emoji\} .*position 1"),
        ("(?L)a", "flag 'L' .*position 0"),
    ],
)
def test_what_json_refuses_by_name(pattern, message):
    with pytest.raises(Unsupported, match=message):
        json(pattern)


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("a(", "missing .* at position 1"),
        ("a)", "unbalanced parenthesis at position 1"),
        ("[b-a]", "bad character range .* at position 1"),
        ("x[a", "unterminated character set at position 1"),
        ("x[a-", "unterminated character set at position 1"),
        ("*a", "nothing to repeat at position 0"),
        ("a|*", "nothing to repeat at position 2"),
        ("(+)", "nothing to repeat at position 1"),
        ("^*", "nothing to repeat at position 1"),
        (r"\b+", "nothing to repeat at position 2"),
        ("a**", "multiple repeat at position 2"),
        ("a{2}{3}", "multiple repeat at position 4"),
        ("a{3,2}", "min repeat greater than max repeat at position"),
        ("a{99999999999}", "repetition count"),
        (r"\Qa", r"bad escape \\Q at position 0"),
        ("a\\", r"bad escape \(end of pattern\) at position 1"),
        (r"\x4", r"escape \\x.* at position 0"),
        (r"[\8]", "position 1"),
        (r"[\B]", "bad escape .* at position 1"),
        (r"\N{no such name}", "undefined character name .* at position 0"),
        (r"\U00110000", "bad escape .* at position 0"),
        ("a(?#b", "missing .*, unterminated comment at position 1"),
        ("(?z)", "unknown extension .*position"),
        ("(?)", "unknown extension .*at position"),
        ("(?P<1>a)", "bad .*name.* at position"),
        ("a(?i)", "global flags not at the start of the expression at position 1"),
        ("[[:alpha:]]+", r"POSIX class \[:alpha:\] .* position 1"),
        ("x[a_[:^digit:]]", r"POSIX class \[:\^digit:\] .*position 4"),
        ("[[a]", r"nested sets .*write \\\[ .*position 1"),
        ("a[a||b]", r"operator \|\| .*write \\\| .*position 3"),
        ("[^a~~b]", r"operator ~~ .*write \\~ .*position 3"),
        ("(" * 10_000, "nested too deeply|position"),
        ("(" * 3000 + ")" * 3000, "nested too deeply"),
        ("(?:a" * 200 + ")" * 200, "nested too deeply"),
        ("a" * 200_001, "longer than 200000 characters"),
    ],
)
def test_what_is_no_regex_says_why_and_where(pattern, message):
    for dialect in Dialect:
        with pytest.raises(GrammarError, match=message) as caught:
            parse(pattern, dialect)
        assert not isinstance(caught.value, Unsupported) or "\\8" in pattern


PIECES = [
    "(?:",
    "(?=",
    "(?i:",
    "(?P<n>",
    "(",
    ")",
    ")",
    "|",
    "*",
    "{2}",
    "+",
    "?",
    "{2,1}",
    "{,2}",
] + ["a", r"\n", r"\x41", "[a-b]", "[^b-a]", "[-]", "[a", "]", "}", "(?#", "^", r"\A", r"\Q"]


@settings(deadline=None, max_examples=1500)
@given(
    st.text(r"ab()|*+?{},12^", max_size=10)
    | st.lists(st.sampled_from(PIECES), max_size=7).map("".join)
)
@example("(?P<n>a)(?P<n>b)")
@example("(?)")
def test_our_own_syntax_check_agrees_with_re(pattern):
    """What `re` refuses, the parser for JSON, which does not ask it, refuses as well."""
    try:
        expected = python(pattern)
    except GrammarError as error:
        if "redefinition" in str(error):  # of a group's name, which we do not look at
            return
        expected = None
    try:
        found = json(pattern)
    except GrammarError:
        found = None
    assert found == expected
