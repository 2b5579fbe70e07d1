"""GBNF: what each construct reads, what is refused and where."""

import json

import pytest

from sapwood.constrained.errors import GrammarError, LimitExceeded, Unsupported
from sapwood.constrained.spec import Ebnf

CONSTRUCTS = [
    # grammar, texts that it reads, texts that it does not
    ('root ::= "abc"', ["abc"], ["", "ab", "abcd", "ABC"]),
    ('root ::= ""', [""], ["a"]),
    ("root ::=", [""], ["a"]),
    (r'root ::= "\"\\\n\t\r\x41\u00e9\U0001F600\[\]\/\e\0"', ['"\\\n\t\rAé😀[]/\x1b\0'], ['"']),
    (r'root ::= "\x41BC"', ["ABC"], ["\u41bc"]),
    ('root ::= "é😀"', ["é😀"], ["é"]),
    ("root ::= [abc]", ["a", "c"], ["", "d", "ab"]),
    ("root ::= [a-cx-]", ["b", "x", "-"], ["d", "y"]),
    (r"root ::= [\]\-\\a\n]", ["]", "-", "\\", "a", "\n"], ["n", "^"]),
    (r"root ::= [\x30-\x39\u0410-\u042F]", ["5", "Ж"], ["ж", "x"]),
    (r"root ::= [^a-z\n]", ["A", "é", "😀", "^"], ["b", "\n", "", "AB"]),
    ("root ::= [^]", ["a", "\n", "😀"], ["", "ab"]),
    ("root ::= [a^]", ["a", "^"], ["b"]),
    ("root ::= .", ["a", "\n", "é"], ["", "ab"]),
    ('root ::= "a" | "b" "c" |', ["a", "bc", ""], ["ab", "c"]),
    ('root ::= "a" ("b" | "c") "d"', ["abd", "acd"], ["ad", "abcd"]),
    ('root ::= "a"*', ["", "a", "aaaa"], ["b"]),
    ('root ::= "ab"+', ["ab", "abab"], ["", "aba", "abb"]),
    ('root ::= "a"? "b"', ["b", "ab"], ["aab", "a"]),
    ('root ::= "a"{3}', ["aaa"], ["aa", "aaaa"]),
    ('root ::= "a"{2,}', ["aa", "aaaaa"], ["a", ""]),
    ('root ::= "a"{1, 3}', ["a", "aaa"], ["", "aaaa"]),
    ('root ::= "a"{,2}', ["", "aa"], ["aaa"]),
    ('root ::= "b" "a"{0}', ["b"], ["ba"]),
    ('root ::= ("a" "b"?){2,3}', ["aa", "aba", "ababab"], ["a", "aaaa", "b"]),
    ('root ::= ("a"?){2,3} "b"', ["b", "aaab"], ["aaaab"]),
    ('root ::= "a"*?', ["", "aaa"], ["b"]),
    ('root ::= "a" * "b" +', ["b", "aabb"], ["a"]),
    ("root ::= x-y_1 A.b\nx-y_1 ::= [0-9]\nA.b ::= [a-z]", ["0a"], ["0", "00"]),
    ('root ::= one\none ::= "1" # the number one\n# two\n', ["1"], ["2"]),
    ('root ::= ( # a\n  "a" # b\n  | "#"\n)\n', ["a", "#"], ["b"]),
    ('root ::= "a" |\n  "b"\n  "c"\nx ::= "d"', ["a", "bc"], ["b", "d"]),
    ('\n\r\n root\n::=\n"a"', ["a"], []),
    ('x ::= "x" root?\nroot ::= "(" x ")"', ["(x)", "(x(x))"], ["(x", "x"]),
    ('unused ::= unused "a" | "b"\nroot ::= "a"', ["a"], ["b"]),
]


@pytest.mark.parametrize(("grammar", "read", "unread"), CONSTRUCTS)
def test_constructs(language, grammar, read, unread):
    Ebnf(grammar).check()
    found = language(Ebnf(grammar))
    assert [text for text in read if not found.reads(text)] == []
    assert [text for text in unread if found.reads(text)] == []


RECURSION = [
    (
        'root ::= a{70,} "!"\na ::= "(" a? ")"',
        ["()" * 70 + "!", "()" * 98 + "(())!"],
        ["()" * 69 + "!", "()" * 70],
    ),
    ('root ::= root "x" | "y"', ["y", "yx", "yxxx"], ["", "x", "xy"]),
    ('root ::= root "x" |', ["", "x", "xx"], ["y"]),
    ('root ::= root root | "a"', ["a", "aaaaa"], ["", "b"]),
    ('root ::= root root | "a" |', ["", "a", "aaaaa"], ["b"]),
    ('root ::= root | "a"', ["a"], ["", "aa"]),
    ('root ::= "a" root "b" | ""', ["", "ab", "aaabbb"], ["aab", "ba"]),
    ('root ::= a "x" | "r"\na ::= root "y" | "q"', ["r", "qx", "ryx", "qxyx"], ["q", "ry"]),
    ('root ::= b? root "x" | "a"\nb ::= "b"', ["a", "ax", "bax", "bbaxx"], ["ba", "x", "bbax"]),
    ('root ::= (root "x")? "a"', ["a", "axa", "axaxa"], ["ax", ""]),
    ('root ::= (root "x"){0,2} "a"', ["a", "axa", "axaxa"], ["ax", ""]),
    ('root ::= (root "x")+ "a" | "b"', ["b", "bxa", "bxbxa", "bxaxa"], ["a", "ba"]),
    ('root ::= (root ","){1,100} "a" | "b"', ["b", "b,a", "b,b,a"], ["a", "b,"]),
    ('root ::= a\na ::= b\nb ::= c "1"\nc ::= a "2" | "3"', ["31", "3121"], ["3", "312"]),
    ('root ::= a* "!"\na ::= a "x" | ""', ["!", "xx!"], ["x"]),
    ('root ::= a{3,90} "!"\na ::= a "x" | ""', ["!", "xx!", "x" * 99 + "!"], ["x"]),
    (
        'root ::= a{2,90} "!"\na ::= "(" a? ")"',
        ["()(())!", "()" * 90 + "!"],
        ["()!", "()" * 91 + "!"],
    ),
]


@pytest.mark.parametrize(("grammar", "read", "unread"), RECURSION)
def test_recursion(language, grammar, read, unread):
    found = language(Ebnf(grammar))
    assert [text for text in read if not found.reads(text)] == []
    assert [text for text in unread if found.reads(text)] == []


REFUSED = [
    ("", "line 1, column 1: there is no rule 'root'"),
    ('start ::= "a"', "line 1, column 1: there is no rule 'root'"),
    ("root", r"line 1, column 1: a rule \(name ::= ...\) is expected, not 'r'"),
    ('root ::= "a"\n  | b', "line 2, column 5: rule 'b' is not defined"),
    (
        'root ::= "a"\nroot ::= "b"',
        "line 2, column 1: rule 'root' .* twice, first at line 1, column 1",
    ),
    ('root ::= "a', "line 1, column 10: a literal is not closed"),
    ('root ::= "a\n"', "line 1, column 10: a literal is not closed"),
    (r'root ::= "a\q"', r"line 1, column 12: unknown escape \\q"),
    (r'root ::= "\x4"', r"line 1, column 11: unknown escape \\x"),
    (r'root ::= "\U00110000"', r"line 1, column 11: \\U00110000 is no code point"),
    (r'root ::= "\ud83d"', r"line 1, column 11: \\ud83d is half a surrogate pair"),
    ('root ::= "\ud83d"', "line 1, column 11: half a surrogate pair"),
    ("root ::= 'a'", "line 1, column 10: a literal stands in double quotes"),
    ("root ::= [a", "line 1, column 10: a class is not closed"),
    ("root ::= []", "line 1, column 10: a class without members"),
    ("root ::= [z-a]", "line 1, column 11: the range 'z' to 'a' is empty"),
    (r"root ::= [\d]", r"line 1, column 11: unknown escape \\d"),
    ('root ::=\n ("a"', "line 2, column 2: this group is not closed"),
    ('root ::= "a")', "line 1, column 13: '\\)' is not expected here"),
    ("root ::= *", "line 1, column 10: '\\*' is not expected here"),
    ('root ::= "a"{2,1}', "line 1, column 13: at least 2 times, but at most 1"),
    ('root ::= "a"{1 2}', "line 1, column 13: {1 2} is no repetition count"),
    ('root ::= "a"{x}', "line 1, column 13: this is no repetition count"),
    ('root ::= "a"{99999999999}', "line 1, column 13: a repetition count is at most"),
    ('root = "a"', "line 1, column 1: a rule"),
    ('root ::= "a" ; "b"', "line 1, column 14: ';' is not expected here"),
    ("root ::= root", "line 1, column 1: rule 'root' reads no text"),
    (
        'root ::= "a" | b\nb ::= "x" c\nc ::= "y" b',
        "line 2, column 1: rule 'b' reads no text: .* back to it .b, c.",
    ),
    ("root ::= " + "(" * 101 + '"a"' + ")" * 101, "line 1, column 110: groups are nested more"),
]
UNSUPPORTED = [
    ("root ::= <think>", "line 1, column 10: a token is not supported"),
    ("root ::= !<[7]>", "line 1, column 10: an excluded token is not supported"),
    ("root ::= /a+/", "line 1, column 10: a regex in an EBNF grammar is not supported"),
    ('root ::= "a" (= "b")', "line 1, column 14: lookahead is not supported"),
    ('root ::= TagDispatch(("<a>", a))', "line 1, column 10: the macro TagDispatch is not"),
]


@pytest.mark.parametrize(("grammar", "message"), REFUSED)
def test_refused_with_the_place(grammar, message):
    with pytest.raises(GrammarError, match=message) as caught:
        Ebnf(grammar).check()
    assert type(caught.value) is GrammarError


@pytest.mark.parametrize(("grammar", "message"), UNSUPPORTED)
def test_refused_by_name(grammar, message):
    with pytest.raises(Unsupported, match=message):
        Ebnf(grammar).check()


def test_limits(language):
    with pytest.raises(LimitExceeded, match="longer than"):
        Ebnf("#" * 200_001).check()
    with pytest.raises(LimitExceeded, match="more than 1000 states"):
        language(Ebnf('root ::= "' + "a" * 2000 + '"'), states=1000)


def test_large_counts_make_no_large_machine(language):
    found = language(Ebnf('root ::= (a ","?){2,1000000}\na ::= "x" | "(" a ")"'), states=1000)
    assert found.reads("x,((x))" * 3)
    assert not found.reads("x,")


@pytest.mark.parametrize(
    ("times", "depth"), [("{1,3}", 100), ("{2,}", 10), ("+", 100), ("*", 100), ("?", 100)]
)
def test_deep_nesting_makes_no_large_machine(language, times, depth):
    grammar = "root ::= " + "(" * depth + 'b ","' + f"){times}" * depth + '\nb ::= "(" b ")" | "x"'
    found = language(Ebnf(grammar), states=50_000)
    assert found.begins("x," if times == "?" else "x,((x)),x,")
    assert not found.begins("x,,")


def test_long_chains_of_rules_do_not_recurse(language):
    lines = [f'r{n} ::= "(" r{n + 1} ")" | "x"' for n in range(3000)]
    found = language(Ebnf("\n".join(["root ::= r0", *lines, 'r3000 ::= "y"'])))
    assert found.reads("((x))")
    assert not found.reads("((x)")


JSON_GRAMMAR = r"""
root   ::= object
value  ::= object | array | string | number | ("true" | "false" | "null") ws
object ::= "{" ws ( string ":" ws value ("," ws string ":" ws value)* )? "}" ws
array  ::= "[" ws ( value ("," ws value)* )? "]" ws
string ::= "\"" ( [^"\\\x7F\x00-\x1F] | "\\" (["\\/bfnrt] | "u" [0-9a-fA-F]{4}) )* "\"" ws
number ::= ("-"? ([0-9] | [1-9] [0-9]{0,15})) ("." [0-9]+)? ([eE] [-+]? [0-9]{1,15})? ws
ws ::= | " " | "\n" [ \t]{0,20}
"""


def test_json(language):
    found = language(Ebnf(JSON_GRAMMAR))
    values = [{}, {"a": [1, -2.5e10, {"b": [[]]}, 'é"\\\n', True, None]}, {"": {"": {"": []}}}]
    for value in values:
        assert found.reads(json.dumps(value))
        assert found.reads(json.dumps(value, ensure_ascii=False, indent=2))
        assert not found.reads(json.dumps(value)[:-1])
        assert not found.reads(json.dumps(value) + "}")
    for text in ["[]", '{"a":01}', '{"a":}', '{"a":1,}', "{'a':1}", '{"a":"\n"}', '{"a":"\\x"}']:
        assert not found.reads(text)


ARITHMETIC = """
root ::= sum
sum ::= sum [-+] product | product
product ::= product [*/] power | power
power ::= atom "^" power | "-" power | atom
atom ::= [0-9]+ ("." [0-9]+)? | "(" sum ")" | [a-z]+ "(" (sum ("," sum)*)? ")"
"""


def test_arithmetic(language):
    found = language(Ebnf(ARITHMETIC))
    for text in ["1", "1+2*3-4/5", "-(1.5)^2^-x(1,2,(3))", "f()", "((((1))))*2"]:
        assert found.reads(text)
    for text in ["", "+1", "1+", "(1", "1)", "1..2", "f(,)", "x", "1 + 2"]:
        assert not found.reads(text)
    assert found.begins("1+2*(f(3")
    assert not found.begins("1+*")


SQL = """
root ::= "SELECT " columns " FROM " name join* (" WHERE " condition)? (" LIMIT " [0-9]{1,4})? ";"
columns ::= "*" | column (", " column)*
column ::= name ("." name)? (" AS " name)?
join ::= " JOIN " name " ON " column " = " column
condition ::= condition " OR " both | both
both ::= both " AND " test | test
test ::= operand (" = " | " < " | " > " | " LIKE ") operand | "(" condition ")" | "NOT " test
operand ::= name ("." name)? | [0-9]+ | "'" [^'\\n]* "'" | "(" root ")"
name ::= [a-z_] [a-z0-9_]*
"""


def test_sql(language):
    found = language(Ebnf(SQL.replace("\\\\n", "\\n")))
    for text in [
        "SELECT * FROM t;",
        "SELECT a, t.b AS c FROM t JOIN u ON t.id = u.id WHERE a = 1 AND NOT (b < 'x y' OR c = d);",
        "SELECT a FROM t WHERE a = (SELECT b FROM u WHERE c > 1;) LIMIT 10;",
    ]:
        assert found.reads(text)
    for text in ["SELECT FROM t;", "SELECT * FROM t WHERE;", "SELECT a FROM t LIMIT 12345;"]:
        assert not found.reads(text)
