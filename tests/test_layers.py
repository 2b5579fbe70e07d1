"""Who may import whom: the layers of the project, read from every import of every file."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# Folder -> the folders that it may import besides itself. "" is the root of the package.
LAYERS = {
    "": {"lang", "runtime"},
    "lang": {"runtime"},
    "server": {"runtime"},
    "runtime": {"radix_cache", "constrained", "kernels"},
    "radix_cache": set(),
    "constrained": set(),
    "kernels": set(),
}
# File -> what it may import beyond its folder's rule.
EXCEPTIONS = {
    "__main__.py": {"server"},  # `python -m sapwood` is the command line
    "server/commands/lint.py": {"lang"},  # the command line of a check of programs, which is lang's
    "server/commands/replay.py": {"lang"},  # programs that programs call are answered too
}
ANYONE = {"_native"}  # compiles and loads C++ sources; standard library only

# Where torch may be imported: "anywhere", or "lazily" (within a function).
TORCH = {"kernels": "anywhere", "server": "lazily"}
TORCH_BACKEND = [  # the only part of the runtime that computes with torch
    f"runtime/{name}.py"
    for name in "models/layers models/llama models/matrices models/torch_tensors parallel/backend "
    "parallel/collectives parallel/group parallel/rank torch_backend".split()
] + sorted(path.relative_to(ROOT).as_posix() for path in ROOT.glob("runtime/torch_path/*.py"))
TORCH_LAZILY = [
    "runtime/tokenizer.py",  # transformers, to convert an older tokenizer
    "runtime/device.py",  # where there is an NVIDIA driver
]

FILES = sorted(
    path.relative_to(ROOT)
    for folder in LAYERS
    for path in (ROOT / folder).glob("*.py" if not folder else "**/*.py")
)


def folder_of(file: Path) -> str:
    return file.parts[0] if len(file.parts) > 1 else ""


def imports(file: Path) -> Iterator[tuple[str, bool, int]]:
    """(dotted name from the package's root or of a foreign module, within a function, line).

    Names of ours begin with a dot: ".runtime.protocol".
    """
    tree = ast.parse((ROOT / file).read_text())
    lazy_nodes = {
        id(inner)
        for outer in ast.walk(tree)
        if isinstance(outer, ast.FunctionDef | ast.AsyncFunctionDef)
        for inner in ast.walk(outer)
    }
    for node in ast.walk(tree):
        lazy = id(node) in lazy_nodes
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, lazy, node.lineno
        elif isinstance(node, ast.ImportFrom):
            if not node.level:
                yield node.module or "", lazy, node.lineno
                continue
            base = file.parts[:-1][: len(file.parts) - node.level]
            assert len(file.parts) - node.level >= 0, f"{file}:{node.lineno} leaves the package"
            if node.module:
                yield "." + ".".join((*base, node.module)), lazy, node.lineno
            else:
                for alias in node.names:
                    yield "." + ".".join((*base, alias.name)), lazy, node.lineno


def test_every_folder_has_its_rule() -> None:
    packages = {path.parent.relative_to(ROOT).parts[0] for path in ROOT.glob("*/__init__.py")}
    assert packages == set(LAYERS) - {""}
    assert len(FILES) > 50


@pytest.mark.parametrize("file", FILES, ids=str)
def test_imports_go_down(file: Path) -> None:
    folder = folder_of(file)
    allowed = LAYERS[folder] | EXCEPTIONS.get(str(file), set()) | ANYONE | {folder}
    for name, _, line in imports(file):
        top = name.lstrip(".").split(".")[0]
        if name.startswith("."):
            ours = top if top in LAYERS or top in ANYONE else ""
            assert ours in allowed, f"{file}:{line} imports {ours or 'the root'} ({name})"
        else:
            assert top not in LAYERS and top != "sapwood", (
                f"{file}:{line} imports {name} by its absolute name: use a relative import, or "
                "there are two modules of it"
            )


@pytest.mark.parametrize("file", FILES, ids=str)
def test_torch_stays_where_tensors_are(file: Path) -> None:
    rule = TORCH.get(folder_of(file), "nowhere")
    if str(file) in TORCH_BACKEND:
        rule = "anywhere"
    elif str(file) in TORCH_LAZILY:
        rule = "lazily"
    for name, lazy, line in imports(file):
        if name.split(".")[0] in ("torch", "triton", "transformers"):
            assert rule == "anywhere" or (rule == "lazily" and lazy), (
                f"{file}:{line} imports {name}, allowed here: {rule}"
            )


@pytest.mark.parametrize("file", FILES, ids=str)
def test_no_global_statements(file: Path) -> None:
    tree = ast.parse((ROOT / file).read_text())
    lines = [node.lineno for node in ast.walk(tree) if isinstance(node, ast.Global)]
    assert not lines, f"{file}: global statement on line {lines}"


def test_the_lists_name_files_that_exist() -> None:
    for name in (*TORCH_BACKEND, *TORCH_LAZILY, *EXCEPTIONS):
        assert (ROOT / name).exists(), name
