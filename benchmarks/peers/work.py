"""What a peer is asked to do, as plain records that also cross a pipe.

Owns: the four kinds of work and the answer to any of them. Knows no peer, no prompt and no unit.
Standard library only, since the workers read it under the peers' own interpreters.
"""

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Completions:
    """All prompts at once, each continued `n` times by exactly `max_tokens` tokens.

    Greedy for n = 1, sampled otherwise. `prompt_tokens`: the length of each prompt.
    """

    prompts: tuple[str, ...]
    prompt_tokens: int
    max_tokens: int
    n: int = 1


@dataclass(frozen=True)
class FirstToken:
    """The prompts one after the other, each until its first token has come."""

    prompts: tuple[str, ...]
    prompt_tokens: int


@dataclass(frozen=True)
class Chats:
    """Conversations side by side. Each says its next line when the answer, of exactly `max_tokens`
    tokens, has come, and sends all that was said so far."""

    conversations: tuple[tuple[str, ...], ...]  # what the user says, turn by turn
    max_tokens: int


@dataclass(frozen=True)
class Constrained:
    """All questions at once, as chats of one line, each answered within a constraint.

    Either `schema` or `regex` is given; `gbnf` is the regex in llama.cpp's grammar language.
    """

    questions: tuple[str, ...]
    max_tokens: int
    schema: dict[str, Any] | None = None
    regex: str | None = None
    gbnf: str | None = None


Work = Completions | FirstToken | Chats | Constrained
KINDS = {kind.__name__: kind for kind in (Completions, FirstToken, Chats, Constrained)}


@dataclass(frozen=True)
class Outcome:
    """How a peer did its work. `seconds`: of all the work, or the median of the waits for a first
    token. `texts`: the answers of constrained work."""

    seconds: float
    prompt_tokens: int
    output_tokens: int
    texts: tuple[str, ...] = ()


class NotOffered(Exception):
    """The peer has no way to do this work; the message says why."""


def to_json(record: Work | Outcome) -> dict[str, Any]:
    return {"kind": type(record).__name__, **asdict(record)}


def work_from_json(body: dict[str, Any]) -> Work:
    """The inverse of `to_json`."""
    kind = KINDS[body["kind"]]
    fields = {name: value for name, value in body.items() if name != "kind"}
    if "conversations" in fields:
        fields["conversations"] = tuple(map(tuple, fields["conversations"]))
    return kind(**{n: tuple(v) if isinstance(v, list) else v for n, v in fields.items()})


def outcome_from_json(body: dict[str, Any]) -> Outcome:
    return Outcome(
        body["seconds"], body["prompt_tokens"], body["output_tokens"], tuple(body["texts"])
    )
