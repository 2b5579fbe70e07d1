"""The table of keywords in docs/constrained.md is what the engine says."""

import importlib.util
import re
from pathlib import Path

from sapwood.constrained.json_schema.cases import KEYWORDS

ROOT = Path(__file__).parents[2]


def test_the_page_shows_what_each_keyword_accepts_and_refuses() -> None:
    spec = importlib.util.spec_from_file_location(
        "keyword_table", ROOT / "benchmarks" / "constrained" / "keyword_table.py"
    )
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    table = module.table()
    assert table in (ROOT / "docs" / "constrained.md").read_text()
    assert set(re.findall(r"^\| `([^`]+)`", table, re.MULTILINE)) == KEYWORDS
