"""Regexes as byte automata, compared with Python's `re.fullmatch`."""

import re
import time
import warnings

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sapwood.constrained import (
    Choice,
    CompileLimits,
    GrammarError,
    JsonSchema,
    LimitExceeded,
    Regex,
    Unsupported,
)
from sapwood.constrained.automaton import Automaton
from sapwood.constrained.lower import lower
from sapwood.constrained.regex_sets import refuse_set_syntax

LIMITS = CompileLimits()

PATTERNS = [
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
    "(?:a?){3}a{3}",
    "((a*)b)*",
    r".+\n",
    "(?s:.)a",
    "(?s).a",
    r"[^a]b",
    r"[]a]+[^]a]",
    r"[a\]\-b-d-]+",
    r"[\\]x",
    r"[^\\]",
    r"[\w.-]+@[\w-]+\.\w+",
    r"\w+",
    r"[^\W\d_]+",
    r"\W\D\S",
    r"\s\d",
    r"[\d\s]+",
    r"(?a)\w\W\d",
    r"(?a:\w)\w",
    r"[\d\-x]",
    "(?i)straße K",
    "(?i:ab)c",
    "(?i)a(?-i:b)c",
    "(?i)[a-f]k[^s]",
    "(?i)σς",
    r"\x41\u00e9\U0001F600\N{BULLET}\n\t\101\07",
    r"[\x41-\u00e9\101]",
    "é+ü?",
    "[é-ü]😀?",
    "[^\u0000-\uffff]",
    "(?P<year>\\d{4})-(?:0[1-9])",
    "(?#comment)a(?#)b",
    "^ab$",
    "^a|b$",
    "a$\n?",
    "(a$|b)\n",
    "(^a)*b",
    r"\Aa\Z",
    r"a\Z\n?",
    "a*?b+?c??d{1,2}?",
    "(?=a)[ab]c",
    r"(?=.*\d)(?=.*[a-z])[a-z\d]{2,3}",
    "(?!ab)[abc]{2}",
    "a(?!b$).*",
    "(?=a|b)(?!b)[abc]",
    "(?!.*aa)[ab]{3}",
    "a(?=b)|c",
    "x(?=y*z)[yz]+",
    r"[-+]?[0-9]*\.?[0-9]+",
    r"\$\.\^\|\(\)\*\+\?",
    "a b#c",
    r"[\[a]",
    r"[a\&&b\~~|]",
    "[&&]+[||-]",
    "[a[b]",
    "[^[a]b",
    "[--a]-[&-~]",
    "(?#[[a&&])a",
    r"\[[a]",
]


def automaton(pattern: str) -> Automaton:
    return lower(Regex(pattern), LIMITS)


AWKWARD = (
    "abcdxyzABKkſKßẞσςΣ019_-.,@\\[]{}^$ \t\n\r\x0b\x1c\x85\u00a0٣é😀"
    "\u2028\u07ff\u0800\uffff\U00010000"
)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_the_automaton_accepts_what_fullmatch_matches(pattern):
    compiled, built = re.compile(pattern), automaton(pattern)
    some = st.text(st.sampled_from(AWKWARD), max_size=6) | st.text(
        st.characters(exclude_categories=["Cs"]), max_size=4
    )
    # Matches by construction, and matches with one character changed or dropped.
    matching = st.from_regex(compiled, fullmatch=True).filter(
        lambda text: not any("\ud800" <= char <= "\udfff" for char in text)
    )

    @settings(deadline=None, max_examples=60, database=None)
    @given(some | matching, st.integers(0, 8), st.sampled_from(["", *AWKWARD]))
    def check(text, at, changed):
        for candidate in (text, text[:at] + changed + text[at + 1 :], text + changed):
            expected = compiled.fullmatch(candidate) is not None
            assert built.accepts(candidate.encode()) == expected, candidate

    check()


@settings(deadline=None, max_examples=200)
@given(st.binary(max_size=5))
def test_any_character_is_exactly_valid_utf8(text):
    try:
        expected = len(text.decode()) == 1
    except UnicodeDecodeError:
        expected = False
    assert ANY.accepts(text) == expected


ANY = automaton("(?s:.)")


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        (r"(a)\1", r"backreference \\1 .*position 3"),
        (r"(?P<n>a)(?P=n)", "backreference by name .*position 8"),
        ("(?<=a)b", "lookbehind .*position 0"),
        ("b(?<!a)", "negative lookbehind .*position 1"),
        ("(?>a)", "atomic"),
        ("a*+", "possessive"),
        (r"a\b", r"word boundary \\b .*position 1"),
        ("(?x)a b", "flag 'x'"),
        ("(?m)^a", "multiline"),
        ("(a)?(?(1)b|c)", "conditional"),
        ("((?=a)b)*", "lookahead inside an unbounded repetition"),
        ("(a$)*", "inside an unbounded repetition"),
        ("(?!^a)b", "inside or after lookahead"),
    ],
)
def test_what_is_not_regular_here_is_refused_by_name_and_place(pattern, message):
    with pytest.raises(Unsupported, match=message):
        automaton(pattern)


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("a(", "not a valid regex: missing .* at position 1"),
        ("[b-a]", "bad character range .* at position 1"),
        ("*a", "nothing to repeat at position 0"),
        (r"\Qa", r"bad escape \\Q at position 0"),
        ("(?!)", "accepts no text"),
        ("a(?=b)c", "accepts no text"),
        ("a^b", "accepts no text"),
        ("[[:alpha:]]+", r"POSIX class \[:alpha:\] .*\[A-Za-z\].* position 1"),
        ("x[a_[:^digit:]]", r"POSIX class \[:\^digit:\] .*position 4"),
        ("[[a]", r"nested sets .*write \\\[ .*position 1"),
        ("a[a||b]", r"operator \|\| .*write \\\| .*position 3"),
        ("[a&&b]", r"operator && .*write \\& .*position 2"),
        ("[a--b]", r"operator -- .*write \\- .*position 2"),
        ("[^a~~b]", r"operator ~~ .*write \\~ .*position 3"),
        ("(a)(?(+1)b)", "conditional group .*position 3"),
        ("(" * 3000 + ")" * 3000, "nested too deeply|at position"),
    ],
)
def test_invalid_and_empty_regexes_say_why(pattern, message):
    with pytest.raises(GrammarError, match=message):
        automaton(pattern)


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("(a|b)*a.{30}", "grows exponentially"),
        ("x{1,100000}", "more than 200000 automaton states"),
        (".{1,100000}", "more than 200000 automaton states"),
        ("((a{0,100}){0,100}){0,100}", "more than 200000 automaton states"),
        (r"(\w{1,90}x){9}", "more than 200000 automaton states"),
        ("a{4294967295}", "repetition count"),
    ],
)
def test_catastrophic_regexes_meet_a_limit(pattern, message):
    with pytest.raises(GrammarError, match=message):
        automaton(pattern)


@settings(deadline=None, max_examples=1500)
@given(st.text(r"[]^-&~|\(?#):ad", max_size=9) | st.text("[]^-&a", max_size=6).map("[a{}]".format))
@example("[---]")
@example("[]--a]")
@example("[a-&&]")
def test_what_re_warns_of_is_refused_before_re_sees_it(pattern):
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        try:
            re.compile(pattern)
        except re.error:
            valid = False
        else:
            valid = True
    try:
        refuse_set_syntax(pattern)
    except GrammarError:
        assert warned or not valid or "[:" in pattern
    else:
        assert not warned


def test_a_pattern_is_shown_as_it_was_written():
    for spec in (Regex(r"\p{L}+"), JsonSchema(r'{"pattern":"\\p{L}"}')):
        text = spec.pattern if isinstance(spec, Regex) else spec.schema
        with pytest.raises(GrammarError, match=re.escape(f" '{text}': ")):
            lower(spec, LIMITS)
    with pytest.raises(GrammarError, match=re.escape(r"regex '\(\n\udc00': ")):
        lower(Regex("\\(\n\udc00"), LIMITS)


def test_counted_steps_meet_the_time_limit():
    began = time.monotonic()
    with pytest.raises(LimitExceeded, match=r"longer than 0.05 s"):
        lower(Regex(r"\w{1,400}"), CompileLimits(seconds=0.05))
    assert time.monotonic() - began < 20


@pytest.mark.parametrize(
    "pattern",
    ["abc|abd", "(ab|cb)*", "(a|b){5}", "x?y?z?", r"[^a]+", "(foo|bar|baz)+qux", r"\d{1,12}"],
)
def test_automata_are_minimal(pattern):
    """No two states accept the same continuations: checked by naive pairwise refinement."""
    built = automaton(pattern)
    equal = {
        (p, q)
        for p in range(built.num_states)
        for q in range(p)
        if built.accepting[p] == built.accepting[q]
    }
    while True:
        kept = {
            (p, q)
            for p, q in equal
            if all(
                a == b or (max(a, b), min(a, b)) in equal
                for a, b in zip(built.next[p].tolist(), built.next[q].tolist(), strict=True)
            )
        }
        if kept == equal:
            break
        equal = kept
    assert not equal


def test_every_state_can_still_accept():
    built = automaton(r"(a|bc){2,3}d|(?!a)[abx]y")
    alive = {s for s in range(built.num_states) if built.accepting[s]}
    for _ in range(built.num_states):
        alive |= {s for s in range(built.num_states) if alive & set(built.next[s].tolist())}
    assert alive == set(range(built.num_states))


@pytest.mark.parametrize(
    ("pattern", "steps"),
    [
        ("abc", [(b"", b"abc", True)]),
        ("abc[de]fg", [(b"", b"abc", False), (b"ab", b"c", False), (b"abcd", b"fg", True)]),
        ("ab?c", [(b"", b"a", False), (b"ab", b"c", True)]),
        ("a(bc)?", [(b"", b"a", False), (b"a", b"", False), (b"ab", b"c", True)]),
        ("(xa|ya)b*c", [(b"x", b"a", False)]),
        ("(xab|yab)c", [(b"x", b"abc", True), (b"ya", b"bc", True)]),
        ("[éè]x", [(b"", b"\xc3", False), (b"\xc3\xa9", b"x", True)]),
    ],
)
def test_forced_runs(pattern, steps):
    built = automaton(pattern)
    for before, run, ends in steps:
        text, end = built.forced(built.step(0, before))
        assert text == run
        assert end == built.step(0, before + run)
        assert built.is_end(end) == ends


@settings(deadline=None, max_examples=60)
@given(st.sets(st.text(max_size=4), min_size=1, max_size=12), st.text(max_size=5))
def test_a_choice_accepts_its_options_and_no_other_text(options, other):
    built = lower(Choice(tuple(options)), LIMITS)
    for option in options:
        assert built.accepts(option.encode())
        for text in (option[:-1], option + "x", other):
            assert built.accepts(text.encode()) == (text in options)


def test_a_thousand_options_are_a_trie():
    options = tuple(f"option number {i * 7919}" for i in range(1000))
    built = lower(Choice(options), CompileLimits(seconds=5))
    assert all(built.accepts(option.encode()) for option in options)
    assert not built.accepts(b"option number 1")


def test_half_a_surrogate_pair_is_refused():
    with pytest.raises(GrammarError, match="surrogate"):
        lower(Choice(("\ud800",)), LIMITS)
