"""The errors that a caller of the runtime can meet.

    SapwoodError
    ├── InvalidRequest (a ValueError too)  the request is at fault: refused at once
    ├── EngineError                        the request was fine, the engine could not do it
    │   ├── Overloaded                     the waiting queue is full
    │   ├── OutOfMemory                    its step does not fit in the device's memory
    │   └── EngineDied                     the engine stopped; every waiting caller hears this
    │       └── Unreachable                one elsewhere was lost or not found: it may come back
    ├── Cancelled                          the caller closed the stream before its end
    └── Diverged                           a replayed program asks what its recording does not hold

Grammar and checkpoint errors (`constrained.GrammarError`, `models.ModelError`) are ValueErrors of
their own rooms; a grammar that a request brought reaches its caller as InvalidRequest.
"""


class SapwoodError(Exception):
    """Root of the errors that the runtime raises on purpose."""


class InvalidRequest(SapwoodError, ValueError):
    """A field of the request is wrong. `field` names it, the message quotes the value."""

    def __init__(self, message: str, *, field: str | None = None) -> None:
        super().__init__(message)
        self.field = field

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild_invalid, (str(self), self.field))


def _rebuild_invalid(message: str, field: str | None) -> InvalidRequest:
    return InvalidRequest(message, field=field)


class EngineError(SapwoodError, RuntimeError):
    """The engine could not serve a valid request."""


class Overloaded(EngineError):
    """Too many requests are waiting; try again later."""


class OutOfMemory(EngineError):
    """A step does not fit in what the device has left."""


class EngineDied(EngineError):
    """The engine stopped with this request unanswered."""


class Unreachable(EngineDied):
    """The engine is elsewhere, and the connection to it failed; the next one may not."""


class Cancelled(SapwoodError):
    """The request was closed by its caller before it finished."""


class Diverged(SapwoodError):
    """A program that is replayed did something else than when it was recorded."""
