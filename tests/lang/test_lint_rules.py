"""Every rule on the bad and the good example of its section in `docs/lint.md`."""

import re
from pathlib import Path

import pytest

from sapwood.lang.lint.checker import Check
from sapwood.lang.lint.rules import RULES

PAGE = Path(__file__).parents[2] / "docs" / "lint.md"
SECTIONS = {
    section.split(" ", 1)[0]: section
    for section in re.split(r"^## ", PAGE.read_text(), flags=re.MULTILINE)[1:]
}
IMPORTS = [
    "import sapwood as sw\n",
    "import sglang as sw\n",
    "import sapwood.compat.sglang as sw\n",
]


def examples(code: str) -> tuple[str, str]:
    """(bad, good), without their import."""
    bad, good = re.findall(r"```python\n(.*?)```", SECTIONS[code], re.DOTALL)
    return bad, good


def codes(source: str) -> set[str]:
    return {finding.code for finding in Check().source(source, "program.py")}


def test_the_page_has_a_section_for_each_rule_and_no_other():
    assert list(SECTIONS) == [rule.code for rule in RULES]
    assert [rule.code for rule in RULES] == [f"SW{at:03d}" for at in range(1, len(RULES) + 1)]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.code)
def test_the_section_says_what_the_rule_says(rule):
    head, _, text = SECTIONS[rule.code].partition("\n")
    assert head == f"{rule.code} {rule.name} ({rule.level})"
    assert " ".join(text.partition("Bad:")[0].split()) == rule.why


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.code)
@pytest.mark.parametrize("imports", IMPORTS)
def test_the_bad_example_is_found_and_the_good_one_is_clean(rule, imports):
    bad, good = examples(rule.code)
    assert codes(imports + bad) == {rule.code}
    assert codes(imports + good) == set()


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.code)
def test_names_imported_from_the_package(rule):
    verbs = "function, gen, select, system, user, assistant, user_begin, user_end"
    bad, good = (re.sub(r"\bsw\.", "", example) for example in examples(rule.code))
    imports = f"from sapwood import {verbs}\n"
    assert codes(imports + bad) == {rule.code}
    assert codes(imports + good) == set()
