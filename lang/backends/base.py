"""What every remote back end has in common for its user, and what vendors' ones share inside.

Owns: the life of a back end, token counts, and the import of a vendor's package. Knows no API.
"""

from dataclasses import dataclass
from importlib import import_module
from types import TracebackType
from typing import Any, Protocol, Self

from ...runtime.client import Client
from ...runtime.errors import EngineError, InvalidRequest
from ...runtime.protocol import (
    Abilities,
    ControlAction,
    EngineInfo,
    GenerateRequest,
    ScoreRequest,
    Scores,
)
from ...runtime.templates import ChatTemplate
from .remote import RemoteClient, Transport


class RemoteBackend:
    """A back end for programs; a context manager."""

    def __init__(self, transport: Transport) -> None:
        self._client = RemoteClient(transport)

    @property
    def client(self) -> Client:
        return self._client

    def close(self) -> None:
        """End what runs, and the connections."""
        self._client.close()

    shutdown = close

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


@dataclass
class TokenUsage:
    """Tokens that a back end was billed for so far. Written on its event loop."""

    prompt_tokens: int = 0
    completion_tokens: int = 0

    def reset(self) -> None:
        self.prompt_tokens = self.completion_tokens = 0


class Billed(Transport, Protocol):
    """A transport that counts."""

    usage: TokenUsage


class VendorBackend(RemoteBackend):
    """A vendor's model. `token_usage` counts what it was asked and what it said."""

    def __init__(self, transport: Billed, model_name: str) -> None:
        self.model_name = model_name
        self.token_usage = transport.usage
        super().__init__(transport)

    def get_model_name(self) -> str:
        return self.model_name


def check_model(name: object) -> None:
    if not isinstance(name, str) or not name:
        raise InvalidRequest(f"model_name: {name!r} is no name", field="model_name")


class VendorTransport:
    """A `Transport` but for `generate` and the vendor's own client."""

    def __init__(
        self, model: str, abilities: Abilities, template: ChatTemplate | None = None
    ) -> None:
        check_model(model)
        if template is not None and not isinstance(template, ChatTemplate):
            raise InvalidRequest(
                f"chat_template: {template!r} is no ChatTemplate", field="chat_template"
            )
        self.model = model
        self.usage = TokenUsage()
        self.info = EngineInfo(
            model=model,
            context_length=0,
            vocab_size=0,
            max_tokens_in_cache=0,
            page_size=0,
            dtype="",
            chat_template=None if template is None else template.jinja(),
            special_tokens={},
            eos_ids=(),
            template_stop=() if template is None else template.stop_str,
            abilities=abilities,
        )

    async def score(self, request: ScoreRequest) -> Scores:
        raise InvalidRequest(
            f"choices: {self.model} tells no log-probabilities of given text", field="choices"
        )

    async def control(self, action: ControlAction) -> dict[str, Any]:
        if action != "stats":
            raise InvalidRequest(f"action: {action!r}: {self.model} has none", field="action")
        return {
            "prompt_tokens": self.usage.prompt_tokens,
            "completion_tokens": self.usage.completion_tokens,
        }

    def max_tokens(self, request: GenerateRequest) -> int | None:
        """Raises InvalidRequest for 0: such a model has nothing to prepare."""
        wanted = request.sampling.max_tokens
        if wanted == 0:
            raise InvalidRequest(
                f"max_tokens: 0: {self.model} needs 1 at least", field="max_tokens"
            )
        return wanted


def vendor_package(name: str, extra: str) -> Any:
    """The vendor's Python client. EngineError that says how to install it."""
    try:
        return import_module(name)
    except ImportError as error:
        raise EngineError(
            f"this back end needs the package {name!r}: pip install 'sapwood[{extra}]'"
        ) from error


def messages_of(request: GenerateRequest) -> list[dict[str, str]]:
    """The conversation; an answer that has no text yet is left out."""
    turns = request.turns
    if not turns:
        raise InvalidRequest(
            "turns: a model that speaks in messages needs a conversation", field="turns"
        )
    if turns[-1].role == "assistant" and not turns[-1].text:
        turns = turns[:-1]
    return [{"role": turn.role, "content": turn.text} for turn in turns]
