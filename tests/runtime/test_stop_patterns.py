"""Which stop patterns are accepted: Python's dialect, small enough to compile at once."""

import re

import pytest

from sapwood.runtime.errors import InvalidRequest
from sapwood.runtime.protocol import SamplingParams
from sapwood.runtime.stop_patterns import compile_stop_pattern


@pytest.mark.parametrize(
    "pattern, text",
    [
        (r"\d+;", "a 12; b"),
        (r"a{2}b{1,}c{,3}", "xaabcc"),
        (r"\{e\}", "{e}"),
        (r"(a)?(?(1)b|c)", "ab"),
        (r"(?i)STOP|end", "the End"),
        (r"(?:x{10}){10}", "x" * 100),
    ],
)
def test_accepted_patterns_mean_what_re_says(pattern: str, text: str) -> None:
    found, expected = compile_stop_pattern(pattern).search(text), re.search(pattern, text)
    assert found is not None and expected is not None and found.span() == expected.span()


@pytest.mark.parametrize(
    "pattern, reason",
    [
        ("(a", "missing"),
        ("x|{e}", "literal"),
        ("[{]", "literal"),  # even there: the rule is simple
        ("a{2}{e}", "multiple|literal"),
        ("(?:a){i<=3}", "literal"),
        ("(?:(?:a{200}){200}b?){200}", "repeats"),
        ("(?:(?:(?:a{65000}){65000}){60000})", "repeats"),
        ("a{99999999999}", "overflow|large|limit"),
        ("a" * 257, "257 bytes"),
        ("\ud800", "surrogate"),
        ("[[:alpha:]]", "POSIX class"),
        ("[a&&b]", "set operator"),
        ("(" * 100 + ")" * 100 + "*" * 3, "multiple|repeat"),
    ],
)
@pytest.mark.filterwarnings("error")
def test_refused_patterns_say_why(pattern: str, reason: str) -> None:
    with pytest.raises(InvalidRequest, match=f"(?i)stop_regex.*({reason})"):
        SamplingParams(stop_regex=(pattern,))
