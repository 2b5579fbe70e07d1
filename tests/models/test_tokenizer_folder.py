"""Tokenizers of Hugging Face folders: which file says what, and which of two wins."""

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers, processors

from sapwood.runtime.models.errors import (
    DamagedModel,
    ModelError,
    ModelNotFound,
    UnsupportedModel,
)
from sapwood.runtime.tokenizer import load_tokenizer

VOCABULARY = {"a": 0, "b": 1, "ab": 2, "<s>": 3, "</s>": 4, "<turn>": 5, "<mine>": 6}


def save_tokenizer(folder: Path, *, bos_template: bool = False) -> None:
    tokenizer = Tokenizer(models.BPE(vocab=VOCABULARY, merges=[("a", "b")]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.add_special_tokens([AddedToken(t, special=True) for t in ("<s>", "</s>", "<turn>")])
    tokenizer.add_tokens([AddedToken("<mine>")])
    if bos_template:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<s> $A", special_tokens=[("<s>", 3)]
        )
    tokenizer.enable_truncation(2)
    tokenizer.enable_padding(length=9)
    tokenizer.save(str(folder / "tokenizer.json"))


def write(folder: Path, name: str, content: Any) -> None:
    (folder / name).write_text(json.dumps(content))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "my-model"
    path.mkdir()
    save_tokenizer(path)
    write(path, "config.json", {"max_position_embeddings": 64})
    return path


def test_bare(folder: Path) -> None:
    files = load_tokenizer(folder)
    assert files.special == {}
    assert (files.bos_id, files.eos_ids, files.add_bos) == (None, (), False)
    assert files.chat_template is None
    assert (files.model_name, files.context_length) == ("my-model", 64)
    assert files.special_token_ids == (3, 4, 5)
    # Neither the saved truncation nor the saved padding is kept.
    assert files.tokenizer.encode("ababab").ids == [2, 2, 2]


@pytest.mark.parametrize(
    ("generation", "config", "settings", "expected"),
    [
        (None, None, None, ()),
        (None, 4, None, (4,)),
        (None, None, "</s>", (4,)),
        (5, 4, "</s>", (5, 4)),
        ([4, 5], 4, {"content": "</s>", "lstrip": False}, (4, 5)),
        ([5], [5, 4], "<turn>", (5, 4)),
    ],
)
def test_ends(
    generation: Any, config: Any, settings: Any, expected: tuple[int, ...], folder: Path
) -> None:
    write(folder, "generation_config.json", {"eos_token_id": generation})
    write(folder, "config.json", {"max_position_embeddings": 64, "eos_token_id": config})
    write(folder, "tokenizer_config.json", {"eos_token": settings})
    assert load_tokenizer(folder).eos_ids == expected


@pytest.mark.parametrize(
    ("bos_token", "template", "explicit", "expected"),
    [
        ("<s>", False, None, False),
        ("<s>", True, None, True),
        ("<s>", True, False, False),
        ("<s>", False, True, True),
        (None, True, True, False),
    ],
)
def test_add_bos(
    bos_token: str | None, template: bool, explicit: bool | None, expected: bool, folder: Path
) -> None:
    save_tokenizer(folder, bos_template=template)
    settings = {"bos_token": bos_token, "add_bos_token": explicit}
    write(folder, "tokenizer_config.json", settings)
    files = load_tokenizer(folder)
    assert files.add_bos is expected
    assert files.bos_id == (3 if bos_token else None)


def test_bos_id_of_the_config(folder: Path) -> None:
    write(folder, "config.json", {"max_position_embeddings": 64, "bos_token_id": 3})
    assert load_tokenizer(folder).bos_id == 3


def test_settings_win_over_the_special_tokens_map(folder: Path) -> None:
    write(folder, "special_tokens_map.json", {"eos_token": "<turn>", "pad_token": "<s>"})
    write(folder, "tokenizer_config.json", {"eos_token": {"content": "</s>"}})
    assert load_tokenizer(folder).special == {"eos_token": "</s>", "pad_token": "<s>"}


@pytest.mark.parametrize(
    ("settings", "file", "expected"),
    [
        ("in the settings", None, "in the settings"),
        ("in the settings", "in its file", "in its file"),
        ([{"name": "tool_use", "template": "x"}, {"name": "default", "template": "y"}], None, "y"),
        ([{"name": "tool_use", "template": "x"}], None, None),
        (None, None, None),
    ],
)
def test_chat_template(settings: Any, file: str | None, expected: str | None, folder: Path) -> None:
    write(folder, "tokenizer_config.json", {"chat_template": settings})
    if file is not None:
        (folder / "chat_template.jinja").write_text(file)
    assert load_tokenizer(folder).chat_template == expected


def test_name_in_the_hubs_cache(folder: Path) -> None:
    snapshot = folder.parent / "models--org--some-model" / "snapshots" / "abc123"
    snapshot.parent.mkdir(parents=True)
    folder.rename(snapshot)
    assert load_tokenizer(snapshot).model_name == "org/some-model"


@pytest.mark.parametrize(
    ("name", "content", "kind", "message"),
    [
        ("tokenizer.json", "{}", DamagedModel, "not a tokenizer"),
        ("tokenizer_config.json", "{", DamagedModel, "not JSON"),
        ("tokenizer_config.json", "[]", DamagedModel, "not a JSON object"),
        ("tokenizer_config.json", '{"eos_token": "?"}', DamagedModel, "'?' is not in the vocab"),
        ("generation_config.json", '{"eos_token_id": "4"}', DamagedModel, "eos_token_id is '4'"),
        ("generation_config.json", '{"eos_token_id": 7}', DamagedModel, "id 7 is not among the 7"),
        ("config.json", "{}", DamagedModel, "max_position_embeddings is None"),
    ],
)
def test_file_at_fault(
    name: str, content: str, kind: type[ModelError], message: str, folder: Path
) -> None:
    (folder / name).write_text(content)
    with pytest.raises(kind) as caught:
        load_tokenizer(folder)
    assert message in str(caught.value)
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_no_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ModelNotFound, match=r"holds neither tokenizer\.json nor"):
        load_tokenizer(folder)
    with pytest.raises(ModelNotFound, match="no such file or folder"):
        load_tokenizer(folder / "elsewhere")


def test_an_older_vocabulary_is_converted(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    write(folder, "vocab.json", {"a": 0, "b": 1, "ab": 2, "<|endoftext|>": 3})
    (folder / "merges.txt").write_text("#version: 0.2\na b\n")
    write(folder, "tokenizer_config.json", {"tokenizer_class": "GPT2Tokenizer"})
    write(folder, "config.json", {"max_position_embeddings": 64, "model_type": "gpt2"})
    assert load_tokenizer(folder).tokenizer.encode("abb").ids == [2, 1]


def test_what_transformers_cannot_convert(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer.model").write_bytes(b"no model")
    write(folder, "config.json", {"max_position_embeddings": 64, "model_type": "none-such"})
    with pytest.raises(UnsupportedModel, match="its tokenizer cannot be converted"):
        load_tokenizer(folder)
