"""One table: which exception is which status, and how an error looks on the wire.

Owns: status codes and error bodies. Raised exceptions are the runtime's, plus the few here that
only HTTP can meet.

    HttpError (status)
    ├── BadBody           400   not JSON, or not the JSON that we accept
    ├── Unauthorized      401   wrong or missing API key
    ├── UnknownModel      404
    ├── BodyTooLarge      413
    └── WrongContentType  415
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from ..runtime.errors import Cancelled, EngineDied, EngineError, InvalidRequest, Overloaded

log = logging.getLogger(__name__)

RETRY_AFTER_SECONDS = 1


class HttpError(Exception):
    """An error that only the HTTP surface can meet; `param` names the field at fault, if one is."""

    status = 400
    code: str | None = None

    def __init__(self, message: str, *, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


class BadBody(HttpError):
    code = "invalid_json"


class Unauthorized(HttpError):
    status = 401
    code = "invalid_api_key"


class UnknownModel(HttpError):
    status = 404
    code = "model_not_found"


class BodyTooLarge(HttpError):
    status = 413
    code = "body_too_large"


class WrongContentType(HttpError):
    status = 415
    code = "unsupported_content_type"


@dataclass(frozen=True)
class Failure:
    """An error as the wire shows it. `kind` is OpenAI's `type`: whose fault it is."""

    status: int
    message: str
    kind: str = "invalid_request_error"
    param: str | None = None
    code: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    def openai(self) -> dict[str, Any]:
        """The body of OpenAI's API."""
        body = {
            "message": self.message,
            "type": self.kind,
            "param": self.param,
            "code": self.code,
        }
        return {"error": body}

    def native(self) -> dict[str, Any]:
        """The body of the native API: the message, and the status for readers of a stream."""
        return {"error": {"message": self.message, "type": self.kind, "code": self.status}}


def failure(error: BaseException) -> Failure:
    """The table. An exception that nobody foresaw is a 500, logged in full and told in one plain
    line."""
    match error:
        case HttpError():
            headers = {"www-authenticate": "Bearer"} if error.status == 401 else {}
            return Failure(
                error.status, str(error), param=error.param, code=error.code, headers=headers
            )
        case InvalidRequest():
            return Failure(400, str(error), param=error.field, code="invalid_value")
        case Overloaded():
            retry = {"retry-after": str(RETRY_AFTER_SECONDS)}
            return Failure(503, str(error), "server_error", code="overloaded", headers=retry)
        case EngineDied():
            return Failure(503, f"the engine stopped: {error}", "server_error", code="engine_died")
        case EngineError():
            return Failure(500, str(error), "server_error", code="engine_error")
        case ClientDisconnect():
            return Failure(499, "the caller left before the answer was there", code="aborted")
        case Cancelled():
            return Failure(499, "the request was aborted", code="aborted")
        case HTTPException():
            return Failure(
                error.status_code,
                error.detail,
                code={404: "not_found", 405: "method_not_allowed"}.get(error.status_code),
                headers=error.headers or {},
            )
        case _:
            log.error("unexpected error while serving a request", exc_info=error)
            return Failure(500, f"internal error ({type(error).__name__})", "server_error")
