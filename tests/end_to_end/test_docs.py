"""The examples in the guide are run, on the default model."""

import doctest
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import sapwood as sw

DOCS = Path(__file__).parent.parent.parent / "docs"
PAGES = ["language.md", "migrating.md"]

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(autouse=True)
def default(engine: sw.Engine) -> Iterator[None]:
    """The tests' engine as the default one."""
    sw.set_default_backend(engine)
    yield
    sw.set_default_backend(None)


@pytest.mark.parametrize("name", PAGES)
def test_the_examples_of_a_page(name: str) -> None:
    page = DOCS / name
    examples = doctest.DocTestParser().get_doctest(page.read_text(), {}, name, str(page), 0)
    assert examples.examples, f"{name} has no example"
    told: list[str] = []
    doctest.DocTestRunner(verbose=False).run(examples, out=told.append)
    assert not told, "".join(told)


@pytest.mark.parametrize("name", PAGES)
def test_links_lead_somewhere(name: str) -> None:

    for target in re.findall(r"\]\(([^)#]+\.md)", (DOCS / name).read_text()):
        assert (DOCS / target).is_file(), target
