"""What an operator may set about the HTTP surface. Knows nothing of sockets or of the engine's own
options."""

from dataclasses import dataclass

MAX_BODY_BYTES = 32 * 1024 * 1024


@dataclass(frozen=True)
class ServerOptions:
    """`served_model_name` None: the engine's own name. `api_key` None: open to whoever reaches the
    port.

    `max_body_bytes` bounds what one request may make the server hold before anything is parsed.
    """

    served_model_name: str | None = None
    api_key: str | None = None
    max_body_bytes: int = MAX_BODY_BYTES
