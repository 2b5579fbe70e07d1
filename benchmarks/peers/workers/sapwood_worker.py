"""Our own engine in process, next to llama.cpp in process: `python sapwood_worker.py --dtype auto`

Owns: the same works as the other in-process peers, through `sapwood.Engine`.
"""

import argparse
import sys
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from pipe import first_tokens, serve, timed
from work import Completions, FirstToken, NotOffered, Outcome, Work

import sapwood as sw


class Peer:
    def __init__(self, engine: "sw.Engine") -> None:
        self._engine = engine

    def do(self, work: Work) -> Outcome:
        match work:
            case Completions(n=1):
                return self._completions(work)
            case FirstToken():
                one = Completions((), work.prompt_tokens, 1)
                return first_tokens(work, lambda p: self._completions(replace(one, prompts=(p,))))
            case _:
                raise NotOffered("measured over HTTP")

    def _completions(self, work: Completions) -> Outcome:
        params = {"temperature": 0, "max_new_tokens": work.max_tokens, "ignore_eos": True}
        prompts = list(work.prompts)
        seconds, answers = timed(
            lambda: self._engine.generate(prompt=prompts, sampling_params=params)
        )
        info = [answer["meta_info"] for answer in answers]
        return Outcome(
            seconds,
            sum(each["prompt_tokens"] for each in info),
            sum(each["completion_tokens"] for each in info),
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--max-drafts", type=int)
    options = parser.parse_args()
    drafts = {} if options.max_drafts is None else {"max_drafts": options.max_drafts}
    with sw.Engine(dtype=options.dtype, num_threads=options.threads, **drafts) as engine:
        serve(Peer(engine).do)
