"""Start an engine in a child process. Owns: nothing; the client that it returns owns the child."""

from dataclasses import replace

from .config import EngineConfig
from .models.source import resolve_model
from .process import ProcessClient
from .tokenizer import load_tokenizer


def launch(config: EngineConfig) -> ProcessClient:
    """The default model is fetched here, on first use, where its progress can be seen.

    Raises ModelError or InvalidRequest, also those of the child, and EngineError if it ends before
    it is ready.
    """
    path = resolve_model(config.model.model)
    files = load_tokenizer(path)
    local = replace(config, model=replace(config.model, model=str(path)))
    return ProcessClient(f"{__package__}.loop:build_loop", (local,), files)
