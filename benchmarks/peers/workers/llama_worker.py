"""llama.cpp as a peer in process, through llama-cpp-python.

    python llama_worker.py MODEL.gguf THREADS

Owns: one stream at a time, as the library's users run it: that is all that this way offers.
"""

import itertools
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from llama_cpp import Llama
from pipe import first_tokens, serve, timed
from work import Completions, FirstToken, NotOffered, Outcome, Work

CONTEXT = 4096


class Peer:
    def __init__(self, model: str, threads: int) -> None:
        self._llama = Llama(
            model, n_ctx=CONTEXT, n_threads=threads, n_threads_batch=threads, verbose=False
        )

    def do(self, work: Work) -> Outcome:
        match work:
            case Completions(n=1):
                ids = [self._ids(prompt) for prompt in work.prompts]
                seconds, _ = timed(lambda: [self._continue(each, work.max_tokens) for each in ids])
                return Outcome(seconds, sum(map(len, ids)), len(ids) * work.max_tokens)
            case FirstToken():
                return first_tokens(work, lambda p: self._continue(self._ids(p), 1))
            case _:
                raise NotOffered("several streams in one process")

    def _ids(self, prompt: str) -> list[int]:
        ids: list[int] = self._llama.tokenize(prompt.encode(), add_bos=False, special=True)
        return ids

    def _continue(self, ids: list[int], max_tokens: int) -> None:
        """Greedy, past any end of text."""
        produced = itertools.islice(self._llama.generate(ids, temp=0.0), max_tokens)
        assert sum(1 for _ in produced) == max_tokens


if __name__ == "__main__":
    model, threads = sys.argv[1:]
    serve(Peer(model, int(threads)).do)
