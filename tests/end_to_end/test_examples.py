"""Every example runs on the default model and prints something; some of what they promise."""

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import sapwood as sw

EXAMPLES = Path(__file__).parent.parent.parent / "examples"
WITH_MAIN = sorted(path.stem for path in EXAMPLES.glob("*.py") if "def main()" in path.read_text())
SERVERS = {"chat_server"}  # it starts a server of its own: see test_server_e2e

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(autouse=True)
def default(engine: sw.Engine) -> Iterator[None]:
    """The tests' engine as the default one."""
    sw.set_default_backend(engine)
    yield
    sw.set_default_backend(None)


def example(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", [name for name in WITH_MAIN if name not in SERVERS])
def test_an_example_runs(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    example(name).main()
    assert capsys.readouterr().out.strip()


def test_every_example_has_a_docstring_and_a_main() -> None:
    for path in EXAMPLES.glob("*.py"):
        text = path.read_text()
        assert text.startswith('"""'), path
        assert "def main()" in text and 'if __name__ == "__main__":\n    ' in text, path


def test_a_citation_is_of_a_passage_in_the_prompt() -> None:
    rag = example("rag")
    question = "What carries water?"
    found: dict[str, Any] = rag.answer.run(question=question, max_new_tokens=60).ret_value
    assert found["source"] in rag.ranked(question)


def test_actions_are_calls_of_tools_that_exist() -> None:
    react = example("react")
    state = react.react.run(question="How many live in Oslo and Rome?", temperature=1.0, seed=3)
    actions = [line for line in state.text().splitlines() if line.startswith("Action: ")]
    assert actions
    for action in actions:
        tool = action.removeprefix("Action: ").partition("[")[0]
        assert tool in {*react.TOOLS, "finish"}
