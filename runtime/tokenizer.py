"""Load the tokenizer of a checkpoint, and what generation must know of its tokens.

Owns: which files say it, and which of them wins. Knows no weights and imports no torch. How text is
cut into requests is not its business: that is the text codec's.
"""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from tokenizers import AddedToken, Tokenizer

from ..constrained import Vocabulary
from .gguf_tokenizer import read_vocabulary
from .models.errors import DamagedModel, ModelNotFound, UnsupportedModel
from .models.gguf_file import GgufFile

_ROLES: Final = ("bos_token", "eos_token", "unk_token", "pad_token", "sep_token", "cls_token")


@dataclass(frozen=True)
class TokenizerFiles:
    """A tokenizer and the facts that its files give. The tokenizer neither truncates nor pads."""

    tokenizer: Tokenizer
    chat_template: str | None  # Jinja source
    special: dict[str, str]  # "bos_token", "eos_token", ... -> the token's text
    bos_id: int | None
    eos_ids: tuple[int, ...]  # each of them ends a generation
    add_bos: bool  # whether a prompt starts with `bos_id`
    model_name: str
    context_length: int  # positions
    special_token_ids: tuple[int, ...]  # ascending; left out of decoded text

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """What each token spells: made once, for text and for grammars."""
        return Vocabulary.from_tokenizer(self.tokenizer, eos_ids=self.eos_ids)

    @cached_property
    def special_bytes(self) -> dict[int, bytes]:
        """The texts of the special tokens, by id."""
        return {
            id: (self.tokenizer.id_to_token(id) or "").encode() for id in self.special_token_ids
        }


def load_tokenizer(path: Path) -> TokenizerFiles:
    """The tokenizer of a `.gguf` file or a Hugging Face folder.

    Raises ModelNotFound, DamagedModel (a file that does not parse, an id outside the vocabulary) or
    UnsupportedModel (a kind of tokenizer, or a pre-tokenizer, that is not built here).
    """
    if not path.exists():
        raise ModelNotFound(f"{path}: no such file or folder")
    files = _from_folder(path) if path.is_dir() else _from_gguf(path)
    num_tokens = files.tokenizer.get_vocab_size(with_added_tokens=True)
    for token_id in (*files.eos_ids, *(() if files.bos_id is None else (files.bos_id,))):
        if files.tokenizer.id_to_token(token_id) is None:
            raise DamagedModel(f"{path}: the token id {token_id} is not among the {num_tokens}")
    return files


def _from_gguf(path: Path) -> TokenizerFiles:
    file = GgufFile(path)
    vocabulary = read_vocabulary(file)
    architecture = file.get("general.architecture", str)
    template = file.get("tokenizer.chat_template", str, "")
    file.close()
    return TokenizerFiles(
        tokenizer=vocabulary.tokenizer,
        chat_template=template or None,
        special=vocabulary.special,
        bos_id=vocabulary.bos_id,
        eos_ids=vocabulary.eos_ids,
        add_bos=vocabulary.add_bos,
        model_name=path.stem,
        context_length=file.get(f"{architecture}.context_length", int),
        special_token_ids=_special_ids(vocabulary.tokenizer),
    )


def _from_folder(folder: Path) -> TokenizerFiles:
    tokenizer = _folder_tokenizer(folder)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    settings = _read_json(folder / "tokenizer_config.json")
    config = _read_json(folder / "config.json")
    special = _special_texts(_read_json(folder / "special_tokens_map.json"), settings)
    bos_id = _id_of(folder, tokenizer, special.get("bos_token"))
    if bos_id is None and isinstance(config.get("bos_token_id"), int):
        bos_id = config["bos_token_id"]
    eos_ids = [
        *_ids(folder, _read_json(folder / "generation_config.json")),
        *_ids(folder, config),
    ]
    eos_id = _id_of(folder, tokenizer, special.get("eos_token"))
    eos_ids += [] if eos_id is None else [eos_id]
    context_length = config.get("max_position_embeddings")
    if type(context_length) is not int:
        raise DamagedModel(
            f"{folder / 'config.json'}: max_position_embeddings is {context_length!r}, no integer"
        )
    return TokenizerFiles(
        tokenizer=tokenizer,
        chat_template=_template(folder, settings),
        special=special,
        bos_id=bos_id,
        eos_ids=tuple(dict.fromkeys(eos_ids)),
        add_bos=_adds_bos(tokenizer, settings, bos_id),
        model_name=_folder_name(folder),
        context_length=context_length,
        special_token_ids=_special_ids(tokenizer),
    )


def _folder_tokenizer(folder: Path) -> Tokenizer:
    file = folder / "tokenizer.json"
    if file.is_file():
        try:
            return Tokenizer.from_file(str(file))
        except Exception as error:  # the library raises a bare Exception for a file it cannot parse
            raise DamagedModel(f"{file}: not a tokenizer: {error}") from error
    if not any((folder / name).is_file() for name in ("tokenizer.model", "vocab.json")):
        raise ModelNotFound(f"{folder}: holds neither tokenizer.json nor an older vocabulary")
    # Only an older tokenizer is there: transformers knows how to convert it.
    from transformers import AutoTokenizer

    try:
        converted = AutoTokenizer.from_pretrained(str(folder))
    except (ValueError, ImportError, OSError) as error:
        reason = " ".join(str(error).split())
        raise UnsupportedModel(f"{folder}: its tokenizer cannot be converted: {reason}") from error
    backend = getattr(converted, "backend_tokenizer", None)
    if not isinstance(backend, Tokenizer):
        raise UnsupportedModel(f"{folder}: {type(converted).__name__} has no fast tokenizer")
    return backend


def _read_json(file: Path) -> dict[str, Any]:
    """The file's object; empty where there is no such file."""
    if not file.is_file():
        return {}
    try:
        content = json.loads(file.read_text("utf-8"))
    except ValueError as error:
        raise DamagedModel(f"{file}: not JSON: {error}") from error
    if not isinstance(content, dict):
        raise DamagedModel(f"{file}: not a JSON object")
    return content


def _special_texts(*tables: dict[str, Any]) -> dict[str, str]:
    """The text of each role, later tables first in rank; an entry is a string or an object."""
    texts: dict[str, str] = {}
    for table in tables:
        for role in _ROLES:
            entry = table.get(role)
            text = entry.get("content") if isinstance(entry, dict) else entry
            if isinstance(text, str):
                texts[role] = text
    return texts


def _id_of(folder: Path, tokenizer: Tokenizer, text: str | None) -> int | None:
    if text is None:
        return None
    number = tokenizer.token_to_id(text)
    if number is None:
        raise DamagedModel(f"{folder}: the special token {text!r} is not in the vocabulary")
    return number


def _ids(folder: Path, table: dict[str, Any]) -> list[int]:
    """`eos_token_id`: absent, one id, or a list of them."""
    value = table.get("eos_token_id")
    ids = [] if value is None else value if isinstance(value, list) else [value]
    if not all(type(item) is int for item in ids):
        raise DamagedModel(f"{folder}: eos_token_id is {value!r}, neither an id nor a list of ids")
    return ids


def _template(folder: Path, settings: dict[str, Any]) -> str | None:
    """The newer file of its own wins over the key; of several named ones, "default"."""
    file = folder / "chat_template.jinja"
    if file.is_file():
        return file.read_text("utf-8")
    template = settings.get("chat_template")
    if isinstance(template, list):
        named = [item for item in template if isinstance(item, dict)]
        template = next((i.get("template") for i in named if i.get("name") == "default"), None)
    return template if isinstance(template, str) else None


def _adds_bos(tokenizer: Tokenizer, settings: dict[str, Any], bos_id: int | None) -> bool:
    """By the explicit setting, else by what the tokenizer's own post-processor does."""
    if bos_id is None:
        return False
    explicit = settings.get("add_bos_token")
    if isinstance(explicit, bool):
        return explicit
    return tokenizer.encode("a").ids[:1] == [bos_id]


def _special_ids(tokenizer: Tokenizer) -> tuple[int, ...]:
    added: dict[int, AddedToken] = tokenizer.get_added_tokens_decoder()
    return tuple(sorted(number for number, token in added.items() if token.special))


def _folder_name(folder: Path) -> str:
    """The folder's name; in the hub's cache (models--ORG--NAME/snapshots/REVISION), ORG/NAME."""
    folder = folder.resolve()
    if folder.parent.name == "snapshots" and folder.parent.parent.name.startswith("models--"):
        return folder.parent.parent.name.removeprefix("models--").replace("--", "/", 1)
    return folder.name


def as_transformers(files: TokenizerFiles) -> Any:
    """The same tokenizer as `transformers` has them, for callers that expect one of its own."""
    import transformers  # slow to import, and few need it

    made: Any = transformers.PreTrainedTokenizerFast
    return made(
        tokenizer_object=files.tokenizer, chat_template=files.chat_template, **files.special
    )
