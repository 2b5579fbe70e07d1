"""The loop of a worker: a peer in its own process, asked for works over its stdin and stdout.

Owns: the lines that cross the pipe, one JSON object each. Out: `{"ready": true}` once, then for
every work that comes in an outcome, `{"not_offered": why}` or `{"error": what}`. Standard library
only; it runs under the peer's interpreter.
"""

import json
import os
import statistics
import sys
import time
import traceback
from collections.abc import Callable
from typing import TypeVar

from work import FirstToken, NotOffered, Outcome, Work, to_json, work_from_json

Answer = TypeVar("Answer")


def serve(do: Callable[[Work], Outcome]) -> None:
    """Do one work after the other until the pipe closes. What libraries print goes to stderr."""
    with os.fdopen(os.dup(1), "w") as replies:
        os.dup2(2, 1)

        def reply(body: dict[str, object]) -> None:
            replies.write(json.dumps(body) + "\n")
            replies.flush()

        reply({"ready": True})
        for line in sys.stdin:
            try:
                reply(to_json(do(work_from_json(json.loads(line)))))
            except NotOffered as why:
                reply({"not_offered": str(why)})
            except Exception as error:
                traceback.print_exc()
                reply({"error": f"{type(error).__name__}: {error}"})


def timed(call: Callable[[], Answer]) -> tuple[float, Answer]:
    begin = time.perf_counter()
    answer = call()
    return time.perf_counter() - begin, answer


def first_tokens(work: FirstToken, produce_one: Callable[[str], object]) -> Outcome:
    """In process a first token is there when an answer of one token is."""
    waits = [timed(lambda prompt=prompt: produce_one(prompt))[0] for prompt in work.prompts]
    return Outcome(
        statistics.median(waits), work.prompt_tokens * len(work.prompts), len(work.prompts)
    )
