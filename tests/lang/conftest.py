from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sapwood.runtime.scripted import ScriptedClient


@pytest.fixture
def scripted() -> Iterator[Callable[..., ScriptedClient]]:
    """Makes scripted clients and closes them after the test."""
    clients: list[ScriptedClient] = []

    def make(*args: Any, **kwargs: Any) -> ScriptedClient:
        clients.append(ScriptedClient(*args, **kwargs))
        return clients[-1]

    yield make
    for client in clients:
        client.close()
