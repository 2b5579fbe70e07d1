"""Reading and checking never fail, whatever code they meet: any function is taken for a program."""

import ast
import sysconfig
from collections.abc import Iterable
from pathlib import Path

import pytest

from sapwood.lang.lint.rules import RULES
from sapwood.lang.lint.subject import Subject, Tokens, uses_of
from sapwood.lang.trace.reading import file_scope, read_definition
from sapwood.lang.trace.sources import Definition

ROOT = Path(__file__).parents[2]


def read_all(files: Iterable[Path]) -> int:
    num_read = 0
    for file in files:
        tree = ast.parse(file.read_text(encoding="utf-8"))
        scope, uses = file_scope(tree, str(file)), uses_of(tree, "main")
        for node in ast.walk(tree):
            if isinstance(node, Definition):
                graph = read_definition(node, scope)
                assert str(graph) and graph.mermaid()
                for rule in RULES:
                    list(rule.check(Subject(graph, uses, Tokens())))
                num_read += 1
    return num_read


def test_our_own_code():
    assert read_all(sorted((ROOT / "lang" / "trace").rglob("*.py"))) > 100


@pytest.mark.slow
def test_the_standard_library():
    folder = Path(sysconfig.get_path("stdlib"))
    skipped = {"site-packages", "test", "tests", "lib2to3"}
    files = [file for file in folder.rglob("*.py") if not skipped & set(file.parts)]
    assert read_all(sorted(files)) > 5_000
