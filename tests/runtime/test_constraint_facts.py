"""What is true of a constraint whatever the model, against `re` and against what it is known of."""

import re
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sapwood.runtime.constraint_facts import constraint_facts
from sapwood.runtime.protocol import Choice, Ebnf, JsonSchema, Lark, Regex

FAULTS = {
    "no text": (JsonSchema.of({"type": "integer", "minimum": 6, "maximum": 1}), "invalid"),
    "no schema": (JsonSchema.of({"type": "nothing"}), "invalid"),
    "no grammar": (Lark("start: missing"), "invalid"),
    "too large": (Regex("a" * 400_001), "costly"),
    "none": (Regex("a+"), None),
    "none of JSON": (JsonSchema.of({"type": "object"}), None),
}


@pytest.mark.parametrize("case", FAULTS)
def test_faults(case):
    constraint, kind = FAULTS[case]
    fault = constraint_facts(constraint).fault
    assert (fault and fault.kind) == kind


STOPS = [
    (Regex("[0-9]+"), ".", False),
    (Regex("[0-9]+[.]?"), ".", True),
    (Regex("a(b|cd)"), "d", False),  # before it the text is not complete
    (Regex("a(cd)?"), "cd", True),
    (Regex("é+"), "é", True),
    (Choice(("yes", "yes!")), "!", True),
    (JsonSchema.of({"type": "boolean"}), "}", False),
    (Ebnf('root ::= "(" root ")" | "x"'), "]", None),  # endless, so not all of it is looked at
    (Ebnf('root ::= "(" root ")" | "x"'), ")", None),
    (Lark("start: /x/ start | /x/"), "x", True),
]


@pytest.mark.parametrize(("constraint", "stop", "wanted"), STOPS)
def test_stops(constraint, stop, wanted):
    assert constraint_facts(constraint).stops_at(stop) is wanted


def test_a_constraint_that_cannot_be_used_answers_nothing():
    facts = constraint_facts(Lark("start: missing"))
    assert facts.stops_at("x") is None and facts.shortest_text() is None


SHORTEST = [
    (Regex("[0-9]{4}"), "0000"),
    (Regex("(abc|de)x*"), "de"),
    (Regex(".{3}"), "AAA"),
    (Choice(("yes", "no")), "no"),
    (JsonSchema.of({"type": "array", "items": {"type": "integer"}, "minItems": 2}), "[0, 0]"),
]


@pytest.mark.parametrize(("constraint", "wanted"), SHORTEST)
def test_the_shortest_text(constraint, wanted):
    assert constraint_facts(constraint).shortest_text() == wanted


atoms = st.sampled_from(["a", "b", "[ab]", "a?", "b*", "(a|bb)", "a{2}", "(ab)+"])


@settings(deadline=None, max_examples=60)
@given(st.lists(atoms, min_size=1, max_size=3).map("".join), st.text("ab", min_size=1, max_size=2))
def test_agrees_with_all_short_texts(pattern, stop):
    """Three atoms and a stop fit into 10 letters."""
    accepted = [text for text in TEXTS if re.fullmatch(pattern, text)]
    beginnings = {text[:end] for text in accepted for end in range(len(text) + 1)}
    facts = constraint_facts(Regex(pattern))
    assert facts.stops_at(stop) is any(text + stop in beginnings for text in accepted)
    shortest = facts.shortest_text()
    assert shortest is not None and re.fullmatch(pattern, shortest)
    assert len(shortest) == min(map(len, accepted))


TEXTS = ["".join(letters) for size in range(11) for letters in product("ab", repeat=size)]
