"""Runs on an event loop: a coroutine's body is part of the caller's task, and costs no thread.

Owns: the ways of `arun`, and what a cancelled task or a time limit does to the run. It imports
asyncio, and so is itself imported when it is first needed.
"""

import asyncio
from typing import Final

from ..runtime.dispatcher import Dispatcher
from ..runtime.errors import Cancelled
from .arguments import Call
from .async_state import AsyncProgramState
from .backend import peek_default_backend
from .errors import ProgramTimeout
from .execution import Execution
from .options import RunOptions
from .reads import reach
from .recording import IN_BODY
from .state import ProgramState

SENDER: Final = Dispatcher()
"""Sends the requests of async programs, so that tokenizing a long prompt stalls no event loop."""


async def run(call: Call, options: RunOptions) -> ProgramState:
    """The state once all that the program started has ended, so that no read of it waits."""
    execution = await _execution(call, options)
    state = ProgramState(execution.branch)
    await complete(execution)
    return state


async def attempt(call: Call, options: RunOptions) -> tuple[ProgramState, BaseException | None]:
    """Like `run`, with the error of the body or of a step beside the state."""
    execution = await _execution(call, options)
    state = ProgramState(execution.branch)
    try:
        await complete(execution)
    except asyncio.CancelledError:
        raise
    except BaseException as error:
        return state, error
    return state, execution.branch.error()


async def start(call: Call, options: RunOptions) -> AsyncProgramState:
    """The state at once, while the body runs beside the caller."""
    execution = await _execution(call, options)
    run = execution.run
    task = asyncio.create_task(_quietly(execution), name=f"program {run.program}")
    loop = asyncio.get_running_loop()

    def cancel() -> None:
        if not loop.is_closed():
            loop.call_soon_threadsafe(task.cancel)

    run.cancel_body = cancel
    return AsyncProgramState(execution.branch, outside=True)


def execute(execution: Execution) -> None:
    """Run a coroutine's body on an event loop of its own; its error is kept in the run."""
    try:
        asyncio.run(_alone(execution))
    except BaseException as error:
        # It is in the run, but where the loop could not even begin; and a Ctrl-C has reached the
        # body as the cancellation of its task.
        if not execution.run.body_done or isinstance(error, KeyboardInterrupt):
            execution.branch.executor.cancel(error)
            execution.run.end_body(error)


async def complete(execution: Execution) -> None:
    """Until the body and all that it started has ended. Raises the body's error, or ProgramTimeout;
    cancelling this aborts everything."""
    executor = execution.branch.executor
    try:
        async with asyncio.timeout(execution.timeout) as limit:
            if execution.call.is_async:
                await _body(execution, limit)
            else:
                execution.start_thread()
                await reach(execution.run, execution.branch.returned(for_body=True))
            await reach(execution.run, execution.branch.rest(for_body=True))
    except TimeoutError as error:
        if not limit.expired() or isinstance(error, ProgramTimeout):
            raise
        executor.time_out()
        raise executor.late_error()  # noqa: B904  # it has a cause of its own
    except asyncio.CancelledError:
        executor.cancel(Cancelled("the task of the program was cancelled"))
        raise


async def _alone(execution: Execution) -> None:
    """The body without what it left running, as `run` does it."""
    async with asyncio.timeout(execution.timeout) as limit:
        await _body(execution, limit)


async def _body(execution: Execution, limit: asyncio.Timeout) -> None:
    """The error that it raises is kept in the run, and aborts all that the body started."""
    branch, run = execution.branch, execution.run
    outside = IN_BODY.set(True)
    try:
        branch.return_value = await execution.call(AsyncProgramState(branch, owner=False))
    except asyncio.CancelledError:
        if limit.expired():
            branch.executor.time_out()
            run.end_body(branch.executor.late_error())
        else:  # readers elsewhere were not cancelled themselves
            cause = Cancelled("the task of the program was cancelled")
            branch.executor.cancel(cause)
            run.end_body(cause)
        raise
    except BaseException as error:
        branch.executor.cancel(error)
        run.end_body(error)
        raise
    finally:
        IN_BODY.reset(outside)
    run.end_body(None)


async def _execution(call: Call, options: RunOptions) -> Execution:
    """An engine's start takes time, and is left to a thread."""
    if options.backend is None and peek_default_backend() is None:
        return await asyncio.to_thread(Execution, call, options)
    return Execution(call, options)


async def _quietly(execution: Execution) -> None:
    """For a task that nobody awaits: readers find the error in the run."""
    try:
        await complete(execution)
    except BaseException:
        if not execution.run.body_done:
            execution.run.end_body(Cancelled("the program was cancelled"))
