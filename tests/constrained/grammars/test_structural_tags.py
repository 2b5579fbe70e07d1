"""Structural tags: what each format reads, what is refused, and free text that holds no trigger."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sapwood.constrained.errors import GrammarError, Unsupported
from sapwood.constrained.pushdown.machine import DEAD
from sapwood.constrained.spec import StructuralTag


def const(value):
    return {"type": "const_string", "value": value}


def schema(value, **more):
    return {"type": "json_schema", "json_schema": value, **more}


def regex(pattern):
    return {"type": "regex", "pattern": pattern}


def tag(begin, content, end):
    return {"type": "tag", "begin": begin, "content": content, "end": end}


def sequence(*elements):
    return {"type": "sequence", "elements": list(elements)}


def either(*elements):
    return {"type": "or", "elements": list(elements)}


def structural(format):
    return StructuralTag.of({"type": "structural_tag", "format": format})


ANY = {"type": "any_text"}
INTEGER = schema({"type": "integer"})
TAGS = [tag("<f=a>", regex("[0-9]+"), "</f>"), tag("<f=b>", const("x"), "</f>")]
TRIGGERED = {"type": "triggered_tags", "triggers": ["<f="], "tags": TAGS}
SEPARATED = {"type": "tags_with_separator", "tags": TAGS, "separator": ", "}

FORMATS = [
    # format, texts that it reads, texts that it does not
    (const("é\n"), ["é\n"], ["", "é"]),
    (const(""), [""], ["a"]),
    (INTEGER, ["-12"], ["1.5", ""]),
    (schema('{"const": 1}'), ["1"], ["2"]),
    (schema(True), ['{"a": [1]}'], ["a"]),
    (schema({"required": ["b", "a"]}, any_order=True), ['{"a": 1, "b": 2}'], ['{"a": 1}']),
    (schema({"type": "null"}, style="json"), ["null"], ["nul"]),
    (regex("a|b+"), ["a", "bb"], ["ab"]),
    ({"type": "grammar", "grammar": 'root ::= "(" root ")" | "x"'}, ["((x))"], ["(x"]),
    (ANY, ["", "a\né😀"], []),
    (ANY | {"excludes": ["ab", "ca"]}, ["", "a", "ba", "aaac"], ["ab", "xaby", "ca"]),
    (sequence(const("a"), INTEGER, const("b")), ["a1b"], ["ab", "a1"]),
    (either(const("a"), INTEGER), ["a", "1"], ["a1"]),
    ({"type": "optional", "content": const("a")}, ["", "a"], ["aa"]),
    ({"type": "star", "content": const("ab")}, ["", "ab", "abab"], ["aba"]),
    ({"type": "plus", "content": const("ab")}, ["ab", "abab"], ["", "a"]),
    ({"type": "star", "content": {"type": "optional", "content": const("a")}}, ["", "aa"], ["b"]),
    (tag("<t>", INTEGER, "</t>"), ["<t>1</t>"], ["<t></t>", "1", "<t>1"]),
    (tag("<t>", INTEGER, ["</t>", "!"]), ["<t>1</t>", "<t>1!"], ["<t>1"]),
    (tag("<t>", ANY, "</t>"), ["<t></t>", "<t>a</</t>"], ["<t>a", "<t>a</t>b</t>", "<t></t>a"]),
    (tag("", ANY, ["aa", "b"]), ["aa", "xb", "acaa"], ["aaa", "xbb", "a", "aab"]),
    (tag("<", ANY, ""), ["<", "<a"], ["", "a"]),
    (tag("<", ANY, ["", ">"]), ["<", "<a", "<a>"], ["<a>b"]),
    (tag("<", tag("[", ANY, ""), ">"), ["<[>", "<[a>"], ["<[a", "<[>>"]),
    (sequence(ANY, const("</t>"), INTEGER), ["</t>1", "a</t</t>1"], ["1", "</t>a</t>1", "</t>"]),
    (sequence(ANY, TAGS[0]), ["<f=a>1</f>", "a<f=b><f=a>1</f>"], ["<f=a>x</f>", "<f=a><f=a>1</f>"]),
    (sequence(ANY, either(*TAGS)), ["a<f=b>x</f>", "<f=a>1</f>"], ["<f=a>x</f>", "a"]),
    (sequence(ANY, {"type": "optional", "content": TAGS[1]}), ["a", "a<f=b>x</f>"], ["<f=b>"]),
    (sequence(ANY | {"excludes": ["{"]}, schema({})), ['hm {"a": 1}', "hm 1"], ["hm {", "{}{}"]),
    (sequence(ANY | {"excludes": ["</"]}, const("</t>")), ["</t>", "a</t>"], ["</</t>", "a</"]),
    (
        TRIGGERED,
        ["", "a", "<f=a>1</f>", "x<f=a>1</f>y<f=b>x</f><f"],
        ["<f=", "<f=c>", "<f=a>x</f>"],
    ),
    (TRIGGERED | {"excludes": ["f="]}, ["a<f=b>x</f>"], ["f=", "af=<f=b>x</f>"]),
    (TRIGGERED | {"excludes": ["!"]}, ["<f=b>x</f>a"], ["!", "<f=b>x</f>!"]),
    (
        TRIGGERED | {"at_least_one": True},
        ["<f=b>x</f>", "<f=b>x</f>a<f=a>1</f>b"],
        ["", "a", "<f=b>"],
    ),
    (TRIGGERED | {"stop_after_first": True}, ["", "a<f=b>x</f>"], ["<f=b>x</f>a"]),
    (
        TRIGGERED | {"at_least_one": True, "stop_after_first": True},
        ["<f=b>x</f>", "<f=a>1</f>"],
        ["", "a<f=b>x</f>", "<f=b>x</f><f=b>x</f>"],
    ),
    (TRIGGERED | {"triggers": ["<f=a", "<f=b"]}, ["<f=c", "<f=b>x</f>"], ["<f=a", "<f=bx"]),
    (TRIGGERED | {"triggers": ["<f=a", "<f"]}, ["<f=a>1</f>", "<"], ["<f", "<f=ab"]),
    (
        tag("<r>", TRIGGERED, "</r>"),
        ["<r></r>", "<r>a<f=b>x</f></r</r>"],
        ["<r>a", "<r></r>a", "<r></r></r>", "<r><f=</r>"],
    ),
    (
        tag("<r>", TRIGGERED | {"triggers": ["<"]}, "</r>"),
        ["<r></r>", "<r>a<f=b>x</f>b</r>"],
        ["<r><</r>", "<r>a"],
    ),
    (
        SEPARATED,
        ["", "<f=b>x</f>", "<f=b>x</f>, <f=a>1</f>"],
        ["a", "<f=b>x</f>, ", ", <f=b>x</f>"],
    ),
    (SEPARATED | {"at_least_one": True}, ["<f=b>x</f>"], [""]),
    (SEPARATED | {"stop_after_first": True}, ["", "<f=b>x</f>"], ["<f=b>x</f>, <f=a>1</f>"]),
    (
        {"type": "dispatch", "rules": [["<a>", INTEGER], ["<b>", const("x")]]},
        ["", "<a", "<a>1", "y<b>x<a>1z"],
        ["<a>", "<b>y", "<a>x"],
    ),
    ({"type": "dispatch", "rules": [["<a>", const("x")]], "loop": False}, ["", "<a>x"], ["<a>xy"]),
    (
        sequence(
            {"type": "dispatch", "rules": [["a", const("x")]], "excludes": ["b"]}, const("b!")
        ),
        ["b!", "caxcb!"],
        ["b", "ab!", "cb"],
    ),
]


@pytest.mark.parametrize(("format", "read", "unread"), FORMATS)
def test_formats(language, format, read, unread):
    structural(format).check()
    found = language(structural(format))
    assert [text for text in read if not found.reads(text)] == []
    assert [text for text in unread if found.reads(text)] == []


def test_free_text_is_made_of_characters(language):
    machine = language(structural(ANY)).machine
    for text in [b"\xff", b"\xc3a", b"\xed\xa0"]:
        at = machine.start
        for byte in text:
            assert at != DEAD
            at = machine.step(at, byte)
        assert at == DEAD
    assert not machine.accepting(machine.step(machine.start, 0xC3))


WEATHER = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TIME = {"type": "object", "properties": {"zone": {"enum": ["UTC", "CET"]}}, "required": ["zone"]}
LEGACY = {
    "type": "structural_tag",
    "structures": [
        {"begin": "<function=weather>", "schema": WEATHER, "end": "</function>"},
        {"begin": "<function=time>", "schema": json.dumps(TIME), "end": "</function>"},
    ],
    "triggers": ["<function="],
}
CALLS = [
    "It is warm. <function is no call",
    '<function=weather>{"city": "Zürich"}</function>',
    'Wait: <function=time>{"zone": "UTC"}</function> and\n'
    '<function=weather>{"city": "</function>"}</function>, done.',
]
NO_CALLS = [
    "<function=",
    "<function=rain>{}</function>",
    '<function=weather>{"zone": 1}</function>',
    '<function=time>{"zone": "PST"}</function>',
    'x <function=time>{"zone": "UTC"}</functions',
]


def test_tool_calls_in_the_older_form(language):
    found = language(StructuralTag.of(LEGACY))
    assert [text for text in CALLS if not found.reads(text)] == []
    assert [text for text in NO_CALLS if found.reads(text)] == []
    assert found.begins('x <function=time>{"zone": "U')
    assert not found.begins('x <function=time>{"zone": "P')


def test_reasoning_then_tool_calls_or_an_answer(language):
    call = tag("<tool>", schema({"anyOf": [WEATHER, TIME]}), "</tool>")
    calls = {"type": "tags_with_separator", "tags": [call], "separator": "\n", "at_least_one": True}
    answer = sequence(const("Answer: "), schema({"type": "array", "items": {"type": "integer"}}))
    found = language(structural(sequence(tag("<think>", ANY, "</think>\n"), either(calls, answer))))
    for text in [
        '<think>Hm, <tool> or </think>?</think>\n<tool>{"zone": "CET"}</tool>',
        '<think></think>\n<tool>{"zone": "CET"}</tool>\n<tool>{"city": "Rome"}</tool>',
        "<think>1 < 2</think>\nAnswer: [1, 2]",
    ]:
        assert found.reads(text)
    for text in [
        '<tool>{"zone": "CET"}</tool>',
        "<think></think>\nAnswer: one",
        "<think></think>\nso</think>\nAnswer: [1]",
        "<think></think>\n",
    ]:
        assert not found.reads(text)


LETTERS = st.text("ab<", max_size=8)
WORDS = st.text("ab<", min_size=1, max_size=3)


@settings(max_examples=200, deadline=None)
@given(triggers=st.lists(WORDS, min_size=1, max_size=3, unique=True), texts=st.lists(LETTERS))
def test_no_trigger_outside_a_tag(language, triggers, texts):
    """Each tag is its trigger, its number and `!`."""
    dispatch = {"type": "dispatch", "rules": [[t, const(f"{n}!")] for n, t in enumerate(triggers)]}
    # Of triggers with a common beginning the shorter leads on to the rest of the longer.
    first = [t for t in triggers if not any(t != u and t.startswith(u) for u in triggers)]
    try:
        found = language(structural(dispatch))
    except GrammarError as error:
        assert "is never reached" in str(error)
        assert any(u in t[:-1] and not t.startswith(u) for t in first for u in first)
        return
    for text in (*texts, "a!", *(f"a{t}{n}!b" for t in triggers for n in range(3))):
        expected = _reads(text, triggers, first)
        assert found.reads(text) == expected, (triggers, text)


def _reads(text: str, triggers: list[str], first: list[str]) -> bool:
    """Letter by letter: the text so far is free until it ends with a trigger that no other begins;
    then it goes on with the rest of a tag whose trigger begins so."""
    ways = {(0, 0)}  # (where free text began, where we are)
    seen = set()
    while ways:
        begin, at = ways.pop()
        seen.add((begin, at))
        ended = [each for each in first if text[begin:at].endswith(each)]
        if not ended:
            if at == len(text):
                return True
            ways.add((begin, at + 1))
            continue
        for each in triggers:
            for beginning in ended:
                if each.startswith(beginning):
                    rest = f"{each.removeprefix(beginning)}{triggers.index(each)}!"
                    if text.startswith(rest, at):
                        ways.add((at + len(rest), at + len(rest)))
        ways -= seen
    return False


REFUSED = [
    ("[]", "a structural tag is an object"),
    ("{", "the structural tag is not JSON"),
    ('{"type": "structural_tag", "format": NaN}', "NaN is not JSON"),
    ({}, "/type: this key is missing"),
    ({"type": "x", "format": ANY}, "/type: a structural tag has the type 'structural_tag'"),
    ({"type": "structural_tag"}, "/format: this key is missing"),
    ({"type": "structural_tag", "format": 1}, "/format: an object is expected"),
    (LEGACY | {"structures": []}, "/structures: at least one is expected"),
    (LEGACY | {"triggers": "<"}, "/triggers: a list is expected"),
    (LEGACY | {"triggers": [""]}, "/triggers/0: a string that is not empty is expected"),
    (LEGACY | {"triggers": ["<f", "<tool"]}, "/triggers/1: no tag begins with '<tool'"),
    (
        LEGACY | {"triggers": ["<function=w"]},
        "/triggers: no trigger begins the tag '<function=time>'",
    ),
    (
        LEGACY | {"structures": [{"begin": "<", "end": ""}]},
        "/structures/0/schema: this key is miss",
    ),
]
REFUSED_FORMATS = [
    ({"type": "const_string"}, "/format/value: this key is missing"),
    (const(1), "/format/value: a string is expected"),
    (const("\ud800"), "/format/value: half a surrogate pair"),
    (schema([]), "/format/json_schema: a JSON schema is an object or a bool"),
    (sequence(), "/format/elements: at least one is expected"),
    (sequence(const("a"), sequence(const(1))), "/format/elements/1/elements/0/value: a string"),
    (ANY | {"excludes": [1]}, "/format/excludes/0: a string that is not empty"),
    (tag("a", ANY, []), "/format/end: at least one is expected"),
    (TRIGGERED | {"at_least_one": 1}, "/format/at_least_one: true or false is expected"),
    (TRIGGERED | {"tags": [const("a")]}, "/format/tags/0/type: a tag is expected"),
    ({"type": "dispatch", "rules": [["a"]]}, "/format/rules/0: a pair"),
    ({"type": "dispatch", "rules": [["", ANY]]}, "/format/rules/0: a pattern is a string"),
]
UNSUPPORTED = [
    ({"type": "token", "token": 1}, "/format/type: the format 'token' is not supported"),
    (sequence({"type": "any_tokens"}), "/format/elements/0/type: the format 'any_tokens' is not"),
    (ANY | {"max_tokens": 3}, "/format/max_tokens: this key is not supported"),
    (const("a") | {"x/y": 1}, "/format/x/y: this key is not supported"),
    (schema({}, style="qwen_xml"), "/format/style: the style 'qwen_xml' is not supported"),
    (tag({"type": "token", "token": 1}, ANY, "a"), "/format/begin: a token is not supported"),
    (tag("a", ANY, {"type": "token", "token": 1}), "/format/end: a token is not supported"),
    (TRIGGERED | {"tags": [TAGS[0] | {"name": "f"}]}, "/format/tags/0/name: this key is not"),
]
UNCOMPILED = [
    (sequence(ANY, INTEGER), "nothing ends the free text"),
    (sequence(ANY, ANY), "nothing ends the free text"),
    ({"type": "star", "content": ANY}, "nothing ends the free text"),
    (sequence(TRIGGERED, regex("a*")), "nothing ends the free text"),
    (TRIGGERED | {"excludes": ["f"]}, "'<f=' is never reached, for 'f' comes before it"),
    (tag("", TRIGGERED | {"triggers": ["<f="]}, "a<f=b"), "'a<f=b' is never reached, for '<f='"),
    (schema({"type": "x"}), "type"),
    (regex("("), "not a valid regex"),
    ({"type": "grammar", "grammar": "root ::= a"}, "line 1, column 10: rule 'a' is not defined"),
]


@pytest.mark.parametrize(("given_tag", "message"), REFUSED)
def test_refused_with_the_path(given_tag, message):
    with pytest.raises(GrammarError, match=message) as caught:
        StructuralTag.of(given_tag).check()
    assert type(caught.value) is GrammarError


@pytest.mark.parametrize(("format", "message"), REFUSED_FORMATS)
def test_formats_refused_with_the_path(format, message):
    with pytest.raises(GrammarError, match=message) as caught:
        structural(format).check()
    assert type(caught.value) is GrammarError


@pytest.mark.parametrize(("format", "message"), UNSUPPORTED)
def test_refused_by_name(format, message):
    with pytest.raises(Unsupported, match=message):
        structural(format).check()


def test_unknown_keys_at_the_top_are_refused():
    with pytest.raises(Unsupported, match="/tools: this key is not supported"):
        StructuralTag.of(LEGACY | {"tools": []}).check()
    deep = ANY
    for _ in range(101):
        deep = sequence(deep)
    with pytest.raises(GrammarError, match="nested more than 100 deep"):
        structural(deep).check()


@pytest.mark.parametrize(("format", "message"), UNCOMPILED)
def test_refused_when_it_is_compiled(language, format, message):
    structural(format).check()
    with pytest.raises(GrammarError, match=message):
        language(structural(format))
