"""Many runs of one program at a time, on one event loop.

Owns: how many run at a time, the order of results, what an item's error does to the others. Imports
asyncio, and so is itself imported when it is first needed.
"""

import asyncio
from collections.abc import Callable, Sequence

from .arguments import Call
from .async_execution import attempt
from .batch import Plan, is_retryable, pause_before
from .options import RunOptions
from .state import ProgramState

Item = tuple[Call, RunOptions]


async def gather(
    items: Sequence[Item], plan: Plan, ahead: Callable[[], None]
) -> list[ProgramState]:
    """The states in the items' order. The first error, where errors are raised, aborts the rest,
    and so does cancelling the task. `ahead` is done before the first item, on a thread: it may
    wait."""
    if not items:
        return []
    await asyncio.to_thread(ahead)
    places = asyncio.Semaphore(plan.num_concurrent)
    tasks = [
        asyncio.create_task(_run(index, item, plan, places), name=f"item {index} of a batch")
        for index, item in enumerate(items)
    ]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        for task in tasks:
            if task in done:
                task.result()  # the first error in order goes before later ones
        return [task.result() for task in tasks]
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _run(index: int, item: Item, plan: Plan, places: asyncio.Semaphore) -> ProgramState:
    async with places:
        state, error = await attempt(*item)
        for number in range(1, plan.retries + 1):
            if error is None or not is_retryable(error):
                break
            await asyncio.sleep(pause_before(number))
            state, error = await attempt(*item)
    if error is not None and plan.on_error == "raise":
        error.add_note(f"in item {index} of arun_batch")
        raise error
    return state
