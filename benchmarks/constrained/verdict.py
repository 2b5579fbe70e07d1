"""What an engine's walk through a case says of the engine.

Owns: when an engine is right about a schema. It is where it compiled it, accepts every valid
document, refuses every invalid one, and allows the end exactly where a document ends. Knows no
engine; asks jsonschema whether a shorter text would have been a document too.
"""

import json
from dataclasses import dataclass
from typing import Any, Final

from corpus import Case
from engine_process import Observed
from jsonschema import validators

SHOWN: Final = 30  # characters of a text that a problem quotes


@dataclass(frozen=True)
class Verdict:
    """`problems`: what it did wrong, in words; none where it was right or refused."""

    compiled: bool
    accepts_invalid: bool = False
    problems: tuple[str, ...] = ()
    refused: str = ""

    @property
    def right(self) -> bool:
        return self.compiled and not self.problems


def judge(case: Case, seen: Observed) -> Verdict:
    if seen.refused is not None:
        return Verdict(False, refused=seen.refused)
    if seen.failed is not None and not seen.walked:
        return Verdict(True, problems=(seen.failed,))
    if "failed" in seen.walked:
        return Verdict(True, problems=(f"walked: {seen.walked['failed']}",))
    problems = []
    for number, walk in enumerate(seen.walked["valid"]):
        name = f"valid[{number}]"
        if not walk["accepted"]:
            problems.append(f"refuses {name} {_where(walk)}")
        early = [text for text in walk["ends"] if not _is_valid(case.schema, text)]
        if early:
            problems.append(f"allows the end in {name} after {_short(early[0])}")
    lax = [n for n, walk in enumerate(seen.walked["invalid"]) if walk["accepted"]]
    problems += [f"accepts invalid[{n}]: {_brief(case.invalid[n])}" for n in lax]
    return Verdict(True, bool(lax), tuple(problems))


def _where(walk: dict[str, Any]) -> str:
    if walk["taken"] == walk["tokens"]:
        return f"at its end, after {_short(walk['before'])}"
    return f"at {walk['next']!r} after {_short(walk['before'])}"


def _short(text: str) -> str:
    return repr(text if len(text) <= SHOWN else "..." + text[-SHOWN:])


def _brief(document: Any) -> str:
    text = json.dumps(document, ensure_ascii=False)
    return text if len(text) <= 2 * SHOWN else text[: 2 * SHOWN] + "..."


def _is_valid(schema: Any, text: str) -> bool:
    """Whether `text` is a document of its own, as `1` is where `12` goes on."""
    try:
        document = json.loads(text)
    except ValueError:
        return False
    kind = validators.validator_for(schema, default=validators.Draft202012Validator)
    return bool(kind(schema).is_valid(document))
