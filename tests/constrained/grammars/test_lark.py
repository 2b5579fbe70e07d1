"""The notation of Lark: what each construct reads, what is refused and where."""

import re

import pytest

from sapwood.constrained.errors import GrammarError, Unsupported
from sapwood.constrained.grammars.lark_terminals import COMMON
from sapwood.constrained.spec import Lark

CONSTRUCTS = [
    # grammar, texts that it reads, texts that it does not
    ('start: "abc"', ["abc"], ["", "ab", "ABC"]),
    ('start: "aB"i', ["ab", "AB", "aB"], ["a"]),
    (r'start: "\n\"\\\x41\u00e9\t."', ['\n"\\Aé\t.'], ["n"]),
    ('start: "a".."f"', ["a", "f"], ["g", "", "ab"]),
    ("start: /a+b?/", ["a", "aab"], ["", "b", "abb"]),
    (r"start: /a\/b\./", ["a/b."], ["a/bx", "a\\/b."]),
    ("start: /A.é/is", ["aXÉ", "A\né"], ["axe"]),
    ("start: /a b #c/x", ["ab"], ["a b"]),
    (r"start: /\w+/u", ["é"], ["-"]),
    (r"start: /\d{2,3}?/", ["12", "123"], ["1", "1234"]),
    ("start: /(?!ab)[abc]{2}/ /c/", ["acc", "bac"], ["abc", "ac"]),
    ('start: /a(?!b)/ "b"', ["ab"], ["a"]),
    ('start: /^a$/ "b"', ["ab"], ["a", "aa"]),
    ('start: /(?=b|$)b?/{2,90} "c"', ["c", "bbc", "b" * 90 + "c"], ["b", "b" * 91 + "c"]),
    ('start: "a" "b" | "c" |', ["ab", "c", ""], ["abc"]),
    ('start: "a"\n  | "b"\n\n  | "c" // x\n  # y\n', ["a", "b", "c"], ["ab"]),
    ('start: ("a" | "b") "c"', ["ac", "bc"], ["c", "abc"]),
    ('start: ["a" | "b"] "c"', ["ac", "c"], ["abc"]),
    ('start: "a"* "b"+ "c"?', ["b", "aabbc"], ["a", "bcc"]),
    ('start: "a"~3', ["aaa"], ["aa", "aaaa"]),
    ('start: "a" ~ 1..2', ["a", "aa"], ["", "aaa"]),
    ('start: "a"{2,} "b"{,1} "c"{2}', ["aacc", "aaabcc"], ["acc", "aac"]),
    ("start: A b\nA: /a/\nb: C\nC: A\n", ["aa"], ["a"]),
    ('start: _x _Y\n_x: "x"\n_Y: "y"\na-b: "c"', ["xy"], ["x"]),
    ('?start: "(" start ")" -> nested\n    | "x" -> leaf\n!other: "y"', ["x", "((x))"], ["(x"]),
    ('start: "a"\n?b: "b"\n', ["a"], ["ab", ""]),
    ('start: start "x" | y\ny: start "z" | "w"', ["w", "wxx", "wxzx"], ["x", "wzw"]),
    ('%llguidance {}\nstart: "a"', ["a"], ["b"]),
    ('start: "%json" /%/', ["%json%"], ["{}"]),
    ("%import common.INT\nstart: INT", ["012"], ["", "a"]),
    ("%import common.INT -> NUM\nstart: NUM", ["012"], ["a"]),
    ("%import common (INT, WORD)\nstart: INT WORD", ["1a"], ["1"]),
    ('start: "a" %json {"type": "integer"} "b"', ["a-7b"], ["ab", 'a"x"b']),
    ('start: x "." %json {"enum": [1, "}"]}\nx: "x"', ["x.1", 'x."}"'], ["x.}"]),
    ("start: x | y\nx: %json true\ny: %json\n{\n}\n", ['{"a": []}', "1"], ["", "{"]),
]


@pytest.mark.parametrize(("grammar", "read", "unread"), CONSTRUCTS)
def test_constructs(language, grammar, read, unread):
    Lark(grammar).check()
    found = language(Lark(grammar))
    assert [text for text in read if not found.reads(text)] == []
    assert [text for text in unread if found.reads(text)] == []


IGNORED = [
    ('start: "a" "b"\n%ignore " "', ["ab", "a b", "a   b "], [" ab", "a\tb"]),
    ('start: A "b"\nA: "x" "y"\n%ignore / +/', ["xyb", "xy b"], ["x yb"]),
    ("start: A b\nA: /x./\nb: /y/*\n%ignore /[ .]/", ["x.", "x . ", "x.y y."], ["x", " x.", "y"]),
    ("%ignore WS\nstart: b+\nb: /[a-z]/~2\nWS: /[ ]/", ["ab", "a b c d"], ["abc", "a b c"]),
    ('start: %json {"type": "array"} "!"\n%ignore " "', ["[1, 2] !", "[]!"], ["[ ]!", "[1,2]!"]),
    ('%ignore " "\n%ignore "#"\nstart: "a"+', ["a# #a"], ["a-a"]),
    ('%ignore /x*/\nstart: "a" "b"?', ["a", "axxbx"], ["x", "axyb"]),
]


@pytest.mark.parametrize(("grammar", "read", "unread"), IGNORED)
def test_what_is_ignored_stands_after_terminals(language, grammar, read, unread):
    found = language(Lark(grammar))
    assert [text for text in read if not found.reads(text)] == []
    assert [text for text in unread if found.reads(text)] == []


def test_a_text_may_be_cut_in_any_way(language):
    found = language(Lark('start: "if" NAME | NAME NAME\nNAME: /[a-z]+/'))
    for text in ["ifx", "if", "abc"]:
        assert found.reads(text)
    assert not found.reads("a")


def test_no_word_is_reserved(language):
    found = language(Lark('start: "let" NAME | NAME "=" NAME\nNAME: /[a-z]+/'))
    for text in ["letx", "let=let"]:
        assert found.reads(text)


COMMON_TEXTS = ["", "0", "12", "+1", "-2.5", ".5", "2.", "1e9", "1.5E-3", "e5", "1.2.3", "a", "Z"]
COMMON_TEXTS += ["aB", "_a1", "1a", " ", "\t\n", "\r\n", "\n\n", "\r", "f", "aF", '"a\\"b"', '""']
COMMON_TEXTS += ['"a"b"', '"\\"', '"\n"', "# x", "// y", "/* * **/", "/* */ */", "-- z", "--\n"]
# The same by other means; of the others, the texts that Python reads.
COMMON_IN_LARK = {
    "INT": "[0-9]+",
    "FLOAT": r"[0-9]+[eE][+-]?[0-9]+|([0-9]+\.([0-9]+)?|\.[0-9]+)([eE][+-]?[0-9]+)?",
    "ESCAPED_STRING": r'"(?:(?:\\.)|(?!["\\]).)*"',
    "CNAME": "(_|[A-Za-z])(_|[A-Za-z]|[0-9])*",
    "WS": r"[ \t\f\r\n]+",
    "WS_INLINE": r"(\ |\t)+",
    "NEWLINE": r"(\r?\n)+",
    "WORD": "([A-Z]|[a-z])+",
    "C_COMMENT": r"/\*(?:(?!\*/)(?:.|\n))*\*/",
}


@pytest.mark.parametrize("name", COMMON)
def test_common_terminals(language, name):
    found = language(Lark(f"%import common.{name}\nstart: {name}"))
    expected = COMMON_IN_LARK.get(name, COMMON[name])
    for text in COMMON_TEXTS:
        assert found.reads(text) == (re.fullmatch(expected, text) is not None), text


REFUSED = [
    ("", "line 1, column 1: there is no rule 'start'"),
    ("start", "line 1, column 1: a rule .* is expected, not 's'"),
    ('start: "a', "line 1, column 8: a literal is not closed"),
    ("start: /a", "line 1, column 8: a regex is not closed"),
    ("start: /a(/", r"line 1, column 8: .*missing \)"),
    ('start:\n  ("a"', "line 2, column 3: this group is not closed"),
    ('start: ["a")', "line 1, column 8: this group is not closed"),
    ('start: "a")', r"line 1, column 11: '\)' is not expected here"),
    ("start: *", r"line 1, column 8: '\*' is not expected here"),
    ("start: a\n", "line 1, column 8: rule 'a' is not defined"),
    ('start: "a"\nstart: "b"', "line 2, column 1: rule 'start' is defined twice, first at line 1"),
    ("start: A\nA: b\nb: /x/", "line 2, column 4: a terminal refers to terminals only, .* 'b'"),
    (
        'start: A\nA: "x" B\nB: A?',
        "line 2, column 1: terminals refer to each other in a cycle: A, B",
    ),
    ('start: A\nA: "x" | A', "line 2, column 1: terminals refer to each other in a cycle: A"),
    ('start: Ab\nAb: "x"', "line 2, column 1: 'Ab' is neither"),
    ('start: A\n?A: "x"', r"line 2, column 1: '\?' stands before rules only"),
    (
        "start: a\na: b\nb: a",
        "line 2, column 1: rule 'a' reads no text: each way through it leads back to it .a, b.",
    ),
    ('start: "b".."a"', "line 1, column 8: 'b' to 'a' is no range"),
    ('start: "ab".."c"', "line 1, column 8: 'ab' to 'c' is no range"),
    ('start: "a"~3..2', "line 1, column 11: at least 3 times, but at most 2"),
    ('start: "a" ->', "line 1, column 12: '->' is followed by a name"),
    ("start: %json {", "line 1, column 15: this is not JSON"),
    ("start: A\nA: %json {}", "line 2, column 4: %json stands in rules only"),
    ("start: /a/\n%ignore", "line 2, column 1: %ignore says nothing"),
    ("start: /a/\n%ignore start", "line 2, column 9: a terminal refers to terminals only"),
    ("%import", "line 1, column 8: the name of what is imported"),
    ('%import common.INT\nINT: "1"\nstart: INT', "line 2, column 1: rule 'INT' is defined twice"),
    ("%import common.INT -> int\nstart: int", "line 1, column 9: 'int' is no name of a terminal"),
    ('start: "a" b: "c"', "line 1, column 13: ':' is not expected here"),
]
UNSUPPORTED = [
    ('start: a\na.2: "x"', "line 2, column 1: the priority of 'a' is not supported"),
    ('start: A\nA.-1: "x"', "line 2, column 1: the priority of 'A' is not supported"),
    ('start: a\na{x, y}: "x"', "line 2, column 1: the template 'a' is not supported"),
    ("start: a{b, c}", "line 1, column 9: a template is not supported"),
    ('start: a\na[lazy]: "x"', "line 2, column 1: an option of 'a' is not supported"),
    ('start: a\na[stop="x", max_tokens=3]: /x/', "line 2, column 1: an option of 'a' is not"),
    ("start: <think>", "line 1, column 8: a token is not supported"),
    ("start: @other", "line 1, column 8: a reference to another grammar is not supported"),
    ("start: A\nA: /a/ & /b/", "line 2, column 8: the operator & .and. is not supported"),
    ("start: A\nA: ~/a/", "line 2, column 4: the operator ~ .not. is not supported"),
    ('start: %regex {"substring_chars": "ab"}', "line 1, column 8: %regex in a rule is not"),
    ('start: %lark { start: "a" }', "line 1, column 8: %lark in a rule is not supported"),
    ('start: "a"\n%declare X', "line 2, column 1: the directive %declare is not supported"),
    ('%override start: "a"', "line 1, column 1: the directive %override is not supported"),
    ('%llguidance {"no_forcing": true}\nstart: "a"', "line 1, column 1: an option of %llguidance"),
    ("%import python.NAME\nstart: NAME", "line 1, column 9: the import of 'python.NAME' is not"),
    ("%import common.NOPE\nstart: NOPE", "line 1, column 9: the import of 'common.NOPE' is not"),
    ("start: /a/l", "line 1, column 8: the regex flag 'l' is not supported"),
    (r"start: /(a)\1/", "line 1, column 8: .*backreference"),
    ("start: /(?<=a)b/", "line 1, column 8: .*lookbehind"),
]


@pytest.mark.parametrize(("grammar", "message"), REFUSED)
def test_refused_with_the_place(grammar, message):
    with pytest.raises(GrammarError, match=message) as caught:
        Lark(grammar).check()
    assert type(caught.value) is GrammarError


@pytest.mark.parametrize(("grammar", "message"), UNSUPPORTED)
def test_refused_by_name(grammar, message):
    with pytest.raises(Unsupported, match=message):
        Lark(grammar).check()


def test_a_schema_is_checked_when_it_is_compiled(language):
    grammar = Lark('start: %json {"type": "nonsense"}')
    grammar.check()
    with pytest.raises(GrammarError, match="type"):
        language(grammar)


PROGRAM = r"""
// A small language.
start: statement*
?statement: "let" NAME "=" expression ";"         -> let
          | NAME "=" expression ";"               -> assign
          | "if" "(" expression ")" block ["else" (block | statement)] -> branch
          | "while" "(" expression ")" block      -> loop
          | "return" [expression] ";"             -> result
          | "fn" NAME "(" [NAME ("," NAME)*] ")" block -> function
          | expression ";"
block: "{" statement* "}"
?expression: expression ("==" | "<" | "&&") sum | sum
?sum: sum /[+-]/ product | product
?product: product "*" unary | unary
?unary: "-" unary | call
?call: call "(" [expression ("," expression)*] ")" | call "." NAME | atom
?atom: NUMBER | ESCAPED_STRING | NAME | "(" expression ")" | "[" [expression ("," expression)*] "]"
%import common.CNAME -> NAME
%import common (NUMBER, ESCAPED_STRING, WS, CPP_COMMENT)
%ignore WS
%ignore CPP_COMMENT
"""

PROGRAMS = [
    "",
    "x = 1;",
    "let x = -1.5e3 * (y + f(2, [3, 4]).z);",
    'fn add(a, b) { return a + b; } // done\nprint(add(1, 2) == 3 && "a;\\"b" < s);\n',
    "if (a) { b(); } else if (c) { return; } else { while (d < 3) { d = d + 1; } }",
    "a.b.c(1)(2);",
]
BROKEN = [
    "x = ;",
    "let x;",
    "f(1,);",
    "{ }",
    "if a { }",
    "x = 1",
    '"a\n";',
    "fn f(a b) { }",
    "a..b;",
]


def test_a_programming_language(language):
    found = language(Lark(PROGRAM))
    assert [text for text in PROGRAMS if not found.reads(text)] == []
    assert [text for text in BROKEN if found.reads(text)] == []
    assert found.begins("fn f(a) { if (a < 1) { return f(")
    assert not found.begins("fn f(a) { if (a < 1) { return )")
