"""`TemplatedClient`: a client whose roles are written by a chat template other than its model's.

Owns: that one difference in what `info` says. Everything else is the client's.
"""

from concurrent.futures import Future
from dataclasses import replace
from typing import Any

from .client import Client, Stream
from .protocol import ControlAction, EngineInfo, GenerateRequest, ScoreRequest, Scores
from .templates import ChatTemplate


class TemplatedClient:
    def __init__(self, client: Client, template: ChatTemplate) -> None:
        self._client = client
        self._info = with_template(client.info(), template)

    def generate(self, request: GenerateRequest) -> Stream:
        return self._client.generate(request)

    def score(self, request: ScoreRequest) -> Future[Scores]:
        return self._client.score(request)

    def control(self, action: ControlAction) -> dict[str, Any]:
        return self._client.control(action)

    def info(self) -> EngineInfo:
        return self._info

    def close(self) -> None:
        self._client.close()


def with_template(info: EngineInfo, template: ChatTemplate) -> EngineInfo:
    return replace(info, chat_template=template.jinja(), template_stop=template.stop_str)
