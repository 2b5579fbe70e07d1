import time
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


@pytest.fixture
def release() -> Callable[[ScriptedClient], None]:
    """Waits until the client holds something back, then lets it go."""

    def wait_and_release(client: ScriptedClient) -> None:
        while not client.num_held:
            time.sleep(0.001)
        client.release()

    return wait_and_release
