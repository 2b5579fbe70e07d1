"""`docs/structure.md` names every file of the package."""

import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent
FOLDERS = ("lang", "server", "runtime", "radix_cache", "constrained", "kernels")


def test_every_file_is_in_the_structure_page() -> None:
    page = (ROOT / "docs" / "structure.md").read_text()
    missing = []
    for folder in FOLDERS:
        section = page.partition(f"### `{folder}/`")[2].partition("\n### ")[0]
        for path in sorted((ROOT / folder).rglob("*.py")):
            name = path.relative_to(ROOT / folder).as_posix()
            if f"| `{name}` |" not in section:
                missing.append(f"{folder}/{name}")
    assert not missing, "docs/structure.md does not name these files"


def test_every_package_is_in_the_wheel() -> None:
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    folders = [path.parent for folder in FOLDERS for path in (ROOT / folder).rglob("__init__.py")]
    names = [
        "sapwood." + folder.relative_to(ROOT).as_posix().replace("/", ".") for folder in folders
    ]
    assert sorted(listed) == sorted(["sapwood", *names])
