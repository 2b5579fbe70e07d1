"""The constraints as values, and those that hold others."""

import pickle

import pytest

from sapwood.constrained.errors import GrammarError
from sapwood.constrained.spec import Choice, Ebnf, JsonSchema, Lark, Regex, StructuralTag, Union

TAG = {"type": "structural_tag", "format": {"type": "json_schema", "json_schema": {"b": 1, "a": 2}}}
CONSTRAINTS = [
    Ebnf('root ::= "a"'),
    Lark('start: "a"'),
    StructuralTag.of(TAG),
    Union((Regex("a"), Choice(("b", "c")), Ebnf('root ::= "a"'))),
]


@pytest.mark.parametrize("constraint", CONSTRAINTS)
def test_constraints_are_keys_and_cross_processes(constraint):
    constraint.check()
    again = pickle.loads(pickle.dumps(constraint))
    assert again == constraint
    assert {constraint: 1}[again] == 1


def test_equal_tags_are_equal_keys_and_keep_the_order_of_keys():
    spaced = '{ "type": "structural_tag",\n "format": %s }'
    inner = '{"type": "json_schema", "json_schema": {"b": 1, "a": 2}}'
    assert StructuralTag.of(spaced % inner) == StructuralTag.of(TAG)
    assert StructuralTag.of(TAG).text.endswith('"json_schema":{"b":1,"a":2}}}')


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Ebnf(b"root"), "an EBNF grammar is a string, not bytes"),
        (lambda: Lark(None), "a Lark grammar is a string, not NoneType"),
        (lambda: StructuralTag({}), "StructuralTag holds JSON text"),
        (lambda: StructuralTag.of([]), "a structural tag is an object"),
        (lambda: StructuralTag.of({"a": {1}}), "the structural tag is not JSON"),
        (lambda: Union(()), "at least one option"),
        (lambda: Union("ab"), "a sequence of constraints"),
        (lambda: Union(("a",)), "an option of a union is a constraint, not 'a'"),
    ],
)
def test_what_is_no_constraint_is_refused(make, message):
    with pytest.raises(GrammarError, match=message):
        make()


def test_check_reaches_the_options_of_a_union():
    with pytest.raises(GrammarError, match="rule 'a' is not defined"):
        Union((Choice(("a",)), Union([Ebnf("root ::= a")]))).check()


def test_a_union_reads_what_any_option_reads(language):
    found = language(
        Union(
            (
                Regex("[ab]+"),
                Choice(("c", "aa")),
                JsonSchema.of({"type": "integer"}),
                Union((Ebnf('root ::= "(" root ")" | "x"'), Lark('start: "y"+'))),
                StructuralTag.of(
                    {"type": "structural_tag", "format": {"type": "const_string", "value": "z"}}
                ),
            )
        )
    )
    for text in ["ab", "c", "-7", "((x))", "yy", "z"]:
        assert found.reads(text)
    for text in ["", "ca", "(x", "yz", "(y)"]:
        assert not found.reads(text)
