"""A recorded run as a test fixture: the program runs again, byte for byte, with no model.

Look at the time of the second run, and at what is said when the program changed meanwhile. The
same file can be checked from a shell: `sapwood replay run.jsonl`, and with `--rerun` it is asked of
the model again.
"""

import tempfile
import time
from pathlib import Path

import sapwood as sw

QUESTION = ["Name a colour."]


@sw.function
def ask(s):
    s += sw.user(QUESTION[0])
    s += sw.assistant(sw.gen("answer", max_tokens=12, stop="."))


def timed(run):
    start = time.perf_counter()
    text = run().text()
    return text, time.perf_counter() - start


def main():
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run.jsonl"
        with sw.record(path):
            said, slow = timed(ask.run)
        with sw.replay(path):
            again, fast = timed(ask.run)
        print(f"{said[-40:]!r}\nequal: {said == again}, {slow:.2f} s and then {fast:.3f} s")
        QUESTION[0] = "Name a bird."
        with sw.replay(path):
            print(ask.run().error().__cause__)


if __name__ == "__main__":
    main()
