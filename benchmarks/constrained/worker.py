"""One engine in a process of its own, asked for cases over stdin and stdout.

    python worker.py ENGINE FOLDER MEMORY_GIB

Owns: the lines that cross the pipe, one JSON object each. Out: `ready` or `absent` once; then for
every case `compiled` or `refused`, and after `compiled` also `walked` and `jumped` (or `failed`).
Runs under the engine's interpreter; FOLDER holds the tokenizer.
"""

import gc
import json
import os
import resource
import sys
import traceback
from pathlib import Path
from typing import Any

from adapters import ENGINES, Refused, Tokens
from walk import Walker

WARM_UP = json.dumps({"type": "object", "properties": {"a": {"type": "integer"}}})


def main() -> None:
    name, folder, memory_gib = sys.argv[1], Path(sys.argv[2]), float(sys.argv[3])
    most = int(memory_gib * 2**30)
    resource.setrlimit(resource.RLIMIT_AS, (most, most))  # a schema must not take the machine down
    with os.fdopen(os.dup(1), "w") as replies:
        os.dup2(2, 1)  # what libraries print

        def reply(**body: Any) -> None:
            replies.write(json.dumps(body) + "\n")
            replies.flush()

        tokens = Tokens(folder)
        try:
            engine = ENGINES[name](tokens)
        except ImportError as error:
            reply(event="absent", message=str(error))
            return
        walker = Walker(engine, tokens)
        walker.walk(walker.compile(WARM_UP)[0], [{"a": 1}], [])  # what loads at first use
        reply(event="ready", version=engine.version)
        gc.disable()  # collected between cases instead
        for line in sys.stdin:
            _one(walker, json.loads(line), reply)
            gc.collect()


def _one(walker: Walker, case: Any, reply: Any) -> None:
    schema, valid = case["schema"], case["valid"]
    try:
        grammar, seconds = walker.compile(schema)
    except Refused as why:
        reply(event="refused", message=str(why)[:500])
        return
    except BaseException as error:  # a panic of a native library is none of Exception
        traceback.print_exc()
        reply(event="refused", message=f"{type(error).__name__}: {error}"[:500])
        return
    reply(event="compiled", seconds=seconds)
    try:
        reply(event="walked", **walker.walk(grammar, valid, case["invalid"]))
        reply(event="jumped", **walker.jump(grammar, schema, valid))
    except BaseException as error:
        traceback.print_exc()
        reply(event="failed", message=f"{type(error).__name__}: {error}"[:500])


if __name__ == "__main__":
    main()
