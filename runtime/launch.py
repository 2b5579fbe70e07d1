"""Start an engine in a child process. Owns: nothing; the client that it returns owns the child."""

from collections.abc import Callable
from dataclasses import replace

from .config import EngineConfig
from .models.source import resolve_model
from .process import ProcessClient
from .tokenizer import TokenizerFiles, load_tokenizer


def launch(config: EngineConfig, meanwhile: Callable[[], object] | None = None) -> ProcessClient:
    """The default model is fetched here, on first use, where its progress can be seen. `meanwhile`:
    what to do here while the child loads.

    Raises ModelError or InvalidRequest, also those of the child, and EngineError if it ends before
    it is ready.
    """
    path = resolve_model(config.model.model)
    local = replace(config, model=replace(config.model, model=str(path)))

    def load_files() -> TokenizerFiles:
        if meanwhile is not None:
            meanwhile()
        return load_tokenizer(path)

    return ProcessClient(f"{__package__}.loop:build_loop", (local,), load_files)
