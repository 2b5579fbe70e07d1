"""Where two requests of one program differ, in words.

Owns: the comparison. What is drawn anew for each request (its id, a seed left open) is no
difference.
"""

from collections.abc import Iterator
from dataclasses import fields
from typing import Any

from ..protocol import GenerateRequest, Ids, Prompt, SamplingParams, ScoreRequest, Text

_AROUND = 30  # characters shown before the first that differs


def difference(
    recorded: GenerateRequest | ScoreRequest, asked: GenerateRequest | ScoreRequest
) -> str | None:
    """The first difference, or None."""
    return next(_differences(recorded, asked), None)


def _differences(recorded: Any, asked: Any) -> Iterator[str]:
    if type(recorded) is not type(asked):
        yield f"it was a {type(recorded).__name__} and is a {type(asked).__name__}"
        return
    for one in fields(recorded):
        before, now = getattr(recorded, one.name), getattr(asked, one.name)
        if one.name == "request_id" or before == now:
            continue
        if one.name == "prompt":
            yield _of_prompts(before, now)
        elif isinstance(before, SamplingParams) and isinstance(now, SamplingParams):
            yield from _of_sampling(before, now)
        else:
            yield f"{one.name} was {before!r} and is {now!r}"


def _of_sampling(recorded: SamplingParams, asked: SamplingParams) -> Iterator[str]:
    for one in fields(SamplingParams):
        before, now = getattr(recorded, one.name), getattr(asked, one.name)
        if before != now and not (one.name == "seed" and now is None):
            yield f"{one.name} was {before!r} and is {now!r}"


def _of_prompts(recorded: Prompt, asked: Prompt) -> str:
    for number, (before, now) in enumerate(zip(recorded, asked, strict=False)):
        if before == now:
            continue
        if isinstance(before, Text) and isinstance(now, Text):
            if before.text == now.text:
                kind = {True: "template text", False: "a program's own text"}
                return f"{before.text!r} was {kind[before.special]} and is {kind[now.special]}"
            return _of_texts(before.text, now.text)
        if isinstance(before, Ids) and isinstance(now, Ids):
            at = _common(before.ids, now.ids)
            return (
                f"the prompt's tokens differ from position {at} on: "
                f"{list(before.ids[at : at + 5])} was {list(now.ids[at : at + 5])}"
            )
        return f"part {number} of the prompt was {_shown(before)} and is {_shown(now)}"
    longer = recorded if len(recorded) > len(asked) else asked
    verb = "ended with" if longer is recorded else "now goes on with"
    return f"the prompt {verb} {_shown(longer[min(len(recorded), len(asked))])}"


def _of_texts(before: str, now: str) -> str:
    at = _common(before, now)
    start = max(0, at - _AROUND)
    shared = before[start:at]
    after = f"after {shared!r} " if shared else ""
    return f"{after}the text was {before[at : at + 40]!r} and is {now[at : at + 40]!r}"


def _common(left: Any, right: Any) -> int:
    """How many of the first items are equal."""
    pairs = enumerate(zip(left, right, strict=False))
    return next((i for i, (one, other) in pairs if one != other), min(len(left), len(right)))


def _shown(part: Ids | Text) -> str:
    if isinstance(part, Ids):
        return f"{len(part.ids)} tokens"
    return repr(part.text if len(part.text) <= 40 else part.text[:40] + "…")
