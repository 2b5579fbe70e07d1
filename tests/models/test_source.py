"""What a model's name can be."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest

from sapwood.runtime.models.errors import ModelNotFound, UnsupportedModel
from sapwood.runtime.models.source import DEFAULT_MODEL, resolve_model


def test_default(default_model: Path) -> None:
    assert resolve_model(None) == resolve_model(DEFAULT_MODEL) == default_model
    assert default_model.suffix == ".gguf"


def test_files_and_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_gguf: Callable[..., Path]
) -> None:
    file = make_gguf({})
    assert resolve_model(str(file)) == file
    (tmp_path / "org" / "name").mkdir(parents=True)
    (tmp_path / "org" / "name" / "config.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    assert resolve_model("org/name") == Path("org/name")  # a folder goes before the hub


@pytest.mark.parametrize(
    ("name", "kind", "message"),
    [
        ("none-such", ModelNotFound, "'none-such' is no file, no folder, no hub id"),
        ("", ModelNotFound, "'' is no file"),  # not the current folder
        ("./none.gguf", ModelNotFound, "'./none.gguf' is no file"),
        ("folder/none.gguf", ModelNotFound, "is no file"),
        ("/none/such", ModelNotFound, "is no file"),
        ("a/b/c", ModelNotFound, "is no file"),
        ("empty", ModelNotFound, "empty: the folder holds no config.json"),
        ("model.bin", UnsupportedModel, "model.bin: neither a .gguf file nor a folder"),
    ],
)
def test_names_at_fault(
    name: str,
    kind: type[Exception],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "model.bin").touch()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(kind) as caught:
        resolve_model(name)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, list[str]]] = []

    def snapshot(name: str, *, allow_patterns: list[str]) -> str:
        asked.append((name, allow_patterns))
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    with pytest.raises(ModelNotFound, match=r"'org/name' on the hub holds no config\.json"):
        resolve_model("org/name")
    (tmp_path / "config.json").write_text("{}")
    assert resolve_model("org/name", progress=False) == tmp_path
    assert asked[1][0] == "org/name"
    assert "*.safetensors" in asked[1][1]
    assert not any("bin" in pattern for pattern in asked[1][1])


def test_hub_out_of_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str, **options: Any) -> str:
        raise OSError("no route\nto the hub")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    with pytest.raises(ModelNotFound) as caught:
        resolve_model("org/name")
    assert str(caught.value) == (
        "'org/name' is no local file or folder, and the hub does not give it: no route to the hub"
    )


def test_progress_bars_come_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub.utils.tqdm import are_progress_bars_disabled

    seen: list[bool] = []

    def snapshot(name: str, **options: Any) -> str:
        seen.append(are_progress_bars_disabled())
        raise OSError("gone")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    before = are_progress_bars_disabled()
    for progress in (False, True):
        with pytest.raises(ModelNotFound):
            resolve_model("org/name", progress=progress)
    assert seen == [True, before]
    assert are_progress_bars_disabled() == before


def test_neither_torch_nor_transformers_is_imported(default_model: Path) -> None:
    code = (
        "import sys; from sapwood.runtime.models.source import resolve_model; resolve_model(None);"
        "from sapwood.runtime.tokenizer import load_tokenizer; load_tokenizer(resolve_model(None));"
        "print(sorted({'torch', 'transformers', 'huggingface_hub.file_download'} & {*sys.modules}))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout == "[]\n"
