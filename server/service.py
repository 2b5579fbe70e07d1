"""What every route needs, in one frozen record. Knows no route."""

import time
from dataclasses import dataclass, field

from ..runtime.client import AsyncClient
from .generations import Generations
from .options import ServerOptions


@dataclass(frozen=True)
class Service:
    """The client, what the operator chose, and what is in flight."""

    client: AsyncClient
    options: ServerOptions
    generations: Generations
    started: int = field(default_factory=lambda: int(time.time()))  # seconds since 1970

    async def model_name(self) -> str:
        return self.options.served_model_name or (await self.client.info()).model
