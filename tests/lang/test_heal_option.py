"""`heal`: which requests of a program ask for token healing."""

from typing import Any

import pytest

import sapwood as sw


def asked(scripted: Any, body: Any, **options: Any) -> list[bool]:
    """Of every generation, whether it was sent with `heal`."""
    client = scripted(lambda request: "ok")
    sw.function(body).run(backend=client, **options).sync()
    return [request.heal for request in client.requests]


def body_of(*expressions: Any) -> Any:
    def body(s: Any) -> None:
        for expression in expressions:
            s += expression

    return body


@pytest.mark.parametrize(
    ("expressions", "healed"),
    [
        (["The capital is Pa", sw.gen()], [True]),
        (["The capital is ", sw.gen()], [True]),
        (["a" + sw.gen() + "b" + sw.gen()], [True, True]),
        (["a" + sw.gen() + sw.gen()], [True, False]),  # after generated text
        (["a", sw.gen(), "", sw.gen()], [True, False]),
        (["a", sw.select(choices=["b"]), sw.gen()], [False]),
        ([sw.user("Hi"), sw.assistant(sw.gen())], [False]),  # after a template's text
        ([sw.user("Hi"), sw.assistant("Sure, " + sw.gen())], [True]),
        ([sw.user("Hi" + sw.gen())], [True]),
        (["a", sw.gen(heal=False)], [False]),
        (["a", sw.gen(heal=True)], [True]),
    ],
    ids=str,
)
def test_where_the_programs_own_text_stands_last(
    scripted: Any, expressions: list[Any], healed: list[bool]
) -> None:
    assert asked(scripted, body_of(*expressions)) == healed


def test_a_gen_overrides_its_run(scripted: Any) -> None:
    body = body_of("a" + sw.gen() + "b" + sw.gen(heal=True) + "c" + sw.gen(heal=False))
    assert asked(scripted, body, heal=False) == [False, True, False]
    assert asked(scripted, body, heal=True) == [True, True, False]


def test_a_branch_goes_on_where_its_parent_stood(scripted: Any) -> None:
    def body(s: Any) -> None:
        s += "a"
        one, other = s.fork(2)
        one += sw.gen("x")
        other += sw.gen("y")
        s.sync()

    assert asked(scripted, body) == [True, True]


@pytest.mark.parametrize("value", [1, "yes"])
def test_what_is_no_flag_is_refused(scripted: Any, value: Any) -> None:
    with pytest.raises(sw.InvalidRequest, match="heal: .* is not true or false"):
        sw.gen(heal=value)
    with pytest.raises(sw.InvalidRequest, match="heal: .* is not true or false"):
        sw.function(body_of("a")).run(backend=scripted(lambda request: ""), heal=value)
    with pytest.raises(sw.InvalidRequest, match="heal: True has no meaning for choices"):
        sw.gen(choices=["a"], heal=True)
