"""One run of one program, from its call to the end of its body.

Owns: the body on this thread or on one of its own, the error that it ends with and the run's time
limit. Knows no nodes. `async_execution` does the same on an event loop.
"""

import contextvars
import sys
import threading
import weakref
from functools import partial

from ..runtime.dispatcher import Dispatcher
from ..runtime.errors import InvalidRequest
from .arguments import Call
from .branch import Branch
from .options import RunOptions
from .reaper import REAPER
from .recording import IN_BODY, client_of_run
from .run import Run
from .state import ProgramState


class Execution:
    """A call, its run and its root branch; made on the thread that asks for the run."""

    def __init__(self, call: Call, options: RunOptions) -> None:
        if options.stream and call.num_api_spec_tokens is not None:
            raise InvalidRequest(
                "stream: True does not go with num_api_spec_tokens, which asks ahead",
                field="stream",
            )
        self.call = call
        self._options = options
        self.timeout = options.timeout
        self.run = Run(
            call.program,
            client_of_run(options.backend, partial(call.described, options.given)),
            options.defaults,
            stream=options.stream,
            keep_chunks=options.stream or call.is_async,
            synchronous=not options.threaded,
            sender=_sender(call),
            num_api_spec_tokens=call.num_api_spec_tokens,
        )
        self.branch = Branch(self.run)

    def to_end(self) -> ProgramState:
        """Run the body here; raises its error, after all that it ran was aborted."""
        state = ProgramState(self.branch)
        self.execute(state)
        if self.run.body_error is not None:
            raise self.run.body_error
        return state

    def in_thread(self) -> ProgramState:
        """Run the body in a thread; the state returned is a reader's, which owns the run."""
        self.start_thread()
        return ProgramState(self.branch, outside=True)

    def start_thread(self) -> None:
        inside = ProgramState(self.branch, owner=False)
        threading.Thread(
            target=contextvars.copy_context().run,
            args=(self.execute, inside),
            name=f"program {self.run.program}",
            daemon=True,
        ).start()

    def execute(self, state: ProgramState) -> None:
        """The body's error is kept in the run, and aborts all that the body started."""
        if self.timeout is not None:
            REAPER.after(self.timeout, weakref.WeakMethod(self.branch.executor.time_out))
        if self.call.is_async:
            from .async_execution import execute  # loads asyncio

            execute(self)
            return
        error: BaseException | None = None
        outside = IN_BODY.set(True)
        try:
            self.branch.return_value = self.call(state)
        except BaseException as raised:  # whoever reads the state gets it, and `run` raises it
            error = raised
            self.branch.executor.cancel(raised)
        finally:
            IN_BODY.reset(outside)
        self.run.end_body(error)

    def again(self) -> "Execution":
        """The same call as a run of its own, from the start."""
        return Execution(self.call, self._options)


def check_async(call: Call, options: RunOptions) -> None:
    if call.is_async and not options.threaded:
        raise InvalidRequest(
            f"use_thread: False would have {call.program} wait where it adds; it is an async "
            "program, which waits only where it awaits",
            field="use_thread",
        )


def refuse_loop(call: Call, verb: str) -> None:
    """An async program cannot be waited for on a thread whose event loop runs."""
    asyncio = sys.modules.get("asyncio")  # with no such module there is no such loop
    if not call.is_async or asyncio is None:
        return
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise InvalidRequest(
        f"{call.program} is an async program, and an event loop runs here: "
        f"write `await {call.program}.{verb}(...)`"
    )


def _sender(call: Call) -> Dispatcher | None:
    if not call.is_async:
        return None
    from .async_execution import SENDER  # loads asyncio

    return SENDER
