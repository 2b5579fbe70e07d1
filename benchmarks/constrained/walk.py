"""Walks one engine through the documents of one schema, token by token.

Owns: what is observed, as plain values (`compiled`, `walked`, `jumped`). Judges nothing: what is
right or wrong is verdict.py's. Runs in the engine's process.
"""

import json
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
from adapters import Engine, Grammar, Rows, Tokens, Whitespace

BATCH_ROWS: Final = 64
BATCH_RUNS: Final = 5
MOST_ENDS: Final = 20  # texts of one walk that are kept because they might have ended there
SEPARATORS: Final = ((", ", ": "), (",", ":"))
"""The spellings of a document: the engine may accept either."""


def spellings(document: Any) -> list[str]:
    return [
        json.dumps(document, separators=separators, ensure_ascii=False) for separators in SEPARATORS
    ]


class Walker:
    """Takes the cases of one engine, one after the other."""

    def __init__(self, engine: Engine, tokens: Tokens) -> None:
        self._engine, self._tokens = engine, tokens
        self._rows: Rows = np.zeros((1, tokens.num_words), np.int32)

    def compile(self, schema: str) -> tuple[Grammar, float]:
        """The grammar and the seconds until its first mask. Raises Refused."""
        began = time.perf_counter()
        grammar = self._engine.compile(schema, Whitespace.FREE)
        grammar.start(self._rows).fill_mask()
        return grammar, time.perf_counter() - began

    def walk(self, grammar: Grammar, valid: Sequence[Any], invalid: Sequence[Any]) -> Any:
        """Every document, in the spelling that gets furthest; masks are timed on valid ones."""
        cold: list[int] = []
        found: dict[str, Any] = {
            "valid": [self._furthest(grammar, document, cold) for document in valid],
            "invalid": [self._furthest(grammar, document, []) for document in invalid],
            "cold_ns": cold,
        }
        accepted = [each["ids"] for each in found["valid"] if each["accepted"]]
        warm: list[int] = []
        for ids in accepted:
            self._follow(grammar, ids, warm)
        for each in (*found["valid"], *found["invalid"]):
            each["tokens"] = len(each.pop("ids"))
        return found | {"warm_ns": warm, "batch_row_ns": self._batch(grammar, accepted)}

    def jump(self, grammar: Grammar, schema: str, valid: Sequence[Any]) -> Any:
        """Forced tokens by whitespace: of how many, how many, and how many are wrong; nothing where
        the engine has no jump-forward. Raises Refused."""
        grammars = {
            each: grammar if each is Whitespace.FREE else self._engine.compile(schema, each)
            for each in self._engine.jumps
        }
        return {each.value: self._jumps(of, valid) for each, of in grammars.items()}

    def _furthest(self, grammar: Grammar, document: Any, times: list[int]) -> dict[str, Any]:
        best: dict[str, Any] = {}
        for text in spellings(document):
            ids = self._tokens.encode(text)
            here = self._follow(grammar, ids, times) | {"ids": ids}
            if here["accepted"]:
                return here
            if not best or here["taken"] > best["taken"]:
                best = here
        return best

    def _follow(self, grammar: Grammar, ids: Sequence[int], times: list[int]) -> dict[str, Any]:
        """`taken` tokens were allowed; `ends`: the texts before the last at which it might have
        ended; `accepted`: all were taken and it may end there. `before`: the text of `taken`."""
        matcher = grammar.start(self._rows)
        ends: list[str] = []
        taken = 0
        while True:
            began = time.perf_counter_ns()
            matcher.fill_mask()
            times.append(time.perf_counter_ns() - began)
            may_end = any(map(self._allows, self._tokens.eos_ids))
            if taken == len(ids):
                break
            if may_end and len(ends) < MOST_ENDS:
                ends.append(self._text(ids[:taken]))
            if not (self._allows(ids[taken]) and matcher.accept(ids[taken])):
                break
            taken += 1
        done = taken == len(ids)
        return {
            "accepted": done and may_end,
            "taken": taken,
            "ends": ends,
            "before": "" if done and may_end else self._text(ids[:taken]),
            "next": "" if done else self._text(ids[taken : taken + 1]),
        }

    def _allows(self, token: int) -> bool:
        return bool(int(self._rows[0, token >> 5]) >> (token & 31) & 1)

    def _text(self, ids: Sequence[int]) -> str:
        return self._tokens.decode(ids).decode(errors="replace")

    def _jumps(self, grammar: Grammar, documents: Sequence[Any]) -> dict[str, int]:
        total = forced = undone = 0
        for document in documents:
            for text in spellings(document):
                ids = self._tokens.encode(text)
                if not self._follow(grammar, ids, [])["accepted"]:
                    continue
                right, wrong = jump_through(grammar.start(self._rows), ids)
                total, forced, undone = total + len(ids), forced + right, undone + wrong
                break
        return {"tokens": total, "forced": forced, "undone": undone}

    def _batch(self, grammar: Grammar, accepted: Sequence[Sequence[int]]) -> float | None:
        """Nanoseconds a row, all warm, of rows at places spread over the documents."""
        fill = grammar.fill_batch()
        places = [(ids, at) for ids in accepted for at in range(len(ids) + 1)]
        if fill is None or not places:
            return None
        rows: Rows = np.zeros((BATCH_ROWS, self._tokens.num_words), np.int32)
        matchers = []
        for row in range(BATCH_ROWS):
            ids, at = places[row * len(places) // BATCH_ROWS]
            matcher = grammar.start(rows, row)
            for token in ids[:at]:
                matcher.accept(token)
            matchers.append(matcher)
        fill(matchers, rows)
        times = [_nanoseconds(fill, matchers, rows) for _ in range(BATCH_RUNS)]
        return sorted(times)[BATCH_RUNS // 2] / BATCH_ROWS


def jump_through(matcher: Any, ids: Sequence[int]) -> tuple[int, int]:
    """How many of `ids` come as forced tokens, and how many forced tokens are others.

    A model is played that would produce just `ids`: where a forced token differs, it and those
    after it are undone and the model's own is taken.
    """
    at = right = wrong = 0
    while at < len(ids):
        forced = matcher.forced_tokens(ids[:at])
        same = 0
        while same < min(len(forced), len(ids) - at) and forced[same] == ids[at + same]:
            same += 1
        right, wrong = right + same, wrong + len(forced) - same
        for token in ids[at : at + same + 1]:
            matcher.accept(token)
        at += same + 1
    return right, wrong


def _nanoseconds(call: Callable[..., None], *arguments: object) -> int:
    began = time.perf_counter_ns()
    call(*arguments)
    return time.perf_counter_ns() - began
