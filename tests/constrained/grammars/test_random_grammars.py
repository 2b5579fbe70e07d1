"""Random grammars against a recogniser that follows the definition of each construct."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sapwood.constrained.errors import GrammarError
from sapwood.constrained.spec import Ebnf

NAMES = ["root", "a", "b"]
TEXTS = ["".join(t) for n in range(6) for t in itertools.product("xy", repeat=n)]

# An expression is ("text", str), ("class", str), ("rule", name), ("sequence", [...]),
# ("either", [...]) or ("repeated", expression, low, high).
EXPRESSIONS = st.recursive(
    st.one_of(
        st.tuples(st.just("text"), st.text("xy", max_size=2)),
        st.tuples(st.just("class"), st.sampled_from(["x", "y", "xy"])),
        st.tuples(st.just("rule"), st.sampled_from(NAMES)),
        st.tuples(st.just("rule"), st.sampled_from(NAMES)),
    ),
    lambda inner: st.one_of(
        st.tuples(st.just("sequence"), st.lists(inner, min_size=2, max_size=3)),
        st.tuples(st.just("either"), st.lists(inner, min_size=2, max_size=3)),
        st.tuples(
            st.just("repeated"),
            inner,
            st.integers(0, 2),
            st.one_of(st.none(), st.integers(2, 3), st.just(100)),
        ),
    ),
    max_leaves=7,
)
GRAMMARS = st.fixed_dictionaries(dict.fromkeys(NAMES, EXPRESSIONS))


def written(expression) -> str:
    match expression:
        case ("text", text):
            return f'"{text}"'
        case ("class", letters):
            return f"[{letters}]"
        case ("rule", name):
            return name
        case ("sequence", parts):
            return " ".join(map(written, parts)) if len(parts) > 1 else f"({written(parts[0])})"
        case ("either", options):
            return "(" + " | ".join(map(written, options)) + ")"
        case (_, body, low, high):
            return f"({written(body)}){{{low},{'' if high is None else high}}}"
    raise AssertionError(expression)


class Naive:
    """Which stretches of a text each rule reads: the least table that its definition allows."""

    def __init__(self, rules, text: str) -> None:
        self.text = text
        self.known = {name: set() for name in rules}
        grew = True
        while grew:
            grew = False
            for name, expression in rules.items():
                for begin in range(len(text) + 1):
                    for end in self.ends(expression, begin):
                        if (begin, end) not in self.known[name]:
                            self.known[name].add((begin, end))
                            grew = True

    def ends(self, expression, begin: int) -> set[int]:
        match expression:
            case ("text", text):
                return {begin + len(text)} if self.text.startswith(text, begin) else set()
            case ("class", letters):
                here = self.text[begin : begin + 1]
                return {begin + 1} if here and here in letters else set()
            case ("rule", name):
                return {end for at, end in self.known[name] if at == begin}
            case ("sequence", parts):
                places = {begin}
                for part in parts:
                    places = {end for at in places for end in self.ends(part, at)}
                return places
            case ("either", options):
                return {end for option in options for end in self.ends(option, begin)}
            case (_, body, low, high):
                # More times than there are letters read nothing new but the empty text.
                most = low + len(self.text) + 1 if high is None else min(high, len(self.text) + 3)
                found, places = set(), {begin}
                for times in range(most + 1):
                    if times >= low:
                        found |= places
                    places = {end for at in places for end in self.ends(body, at)}
                return found
        raise AssertionError(expression)

    def reads(self, name: str) -> bool:
        return (0, len(self.text)) in self.known[name]


@settings(max_examples=300, deadline=None)
@given(rules=GRAMMARS)
def test_random_grammars(language, rules):
    grammar = "\n".join(f"{name} ::= {written(body)}" for name, body in rules.items())
    try:
        Ebnf(grammar).check()
    except GrammarError as error:
        name = str(error).split("'")[1]
        assert "reads no text" in str(error)
        assert not any(Naive(rules, text).reads(name) for text in TEXTS[:31])
        return
    found = language(Ebnf(grammar))
    for text in TEXTS[:31]:
        assert found.reads(text) == Naive(rules, text).reads("root"), (grammar, text)


@pytest.mark.parametrize("text", TEXTS)
def test_a_grammar_with_every_kind_of_left_recursion(language, text):
    rules = {
        "root": ("either", [("sequence", [("rule", "a"), ("text", "x")]), ("text", "")]),
        "a": ("either", [("sequence", [("rule", "b"), ("rule", "root")]), ("rule", "a")]),
        "b": (
            "either",
            [
                ("sequence", [("repeated", ("text", "y"), 0, 1), ("rule", "b"), ("rule", "a")]),
                ("repeated", ("sequence", [("rule", "root"), ("text", "y")]), 0, 100),
            ],
        ),
    }
    grammar = "\n".join(f"{name} ::= {written(body)}" for name, body in rules.items())
    assert language(Ebnf(grammar)).reads(text) == Naive(rules, text).reads("root")
