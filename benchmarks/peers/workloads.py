"""The workloads: which work every peer gets, how it is measured, and what a right answer is.

Owns: the prompts, of exact lengths by the model's own tokenizer, and the units. Knows no peer.
No two prompts begin alike but where a workload is about that, so that no prefix cache gains from
another workload's prompts; where caching is the point, every peer may use its own.
"""

import json
import re
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Any, Final

import jsonschema
from tokenizers import Tokenizer
from work import Chats, Completions, Constrained, FirstToken, Outcome, Work


class Unit(Enum):
    OUTPUT_RATE = "output tok/s"
    PROMPT_RATE = "prompt tok/s"
    SECONDS = "s"
    MILLISECONDS = "ms"

    @property
    def more_is_better(self) -> bool:
        return self in (Unit.OUTPUT_RATE, Unit.PROMPT_RATE)

    def figure(self, outcome: Outcome) -> float:
        match self:
            case Unit.OUTPUT_RATE:
                return outcome.output_tokens / outcome.seconds
            case Unit.PROMPT_RATE:
                return outcome.prompt_tokens / outcome.seconds
            case Unit.SECONDS:
                return outcome.seconds
            case Unit.MILLISECONDS:
                return 1000 * outcome.seconds


@dataclass(frozen=True)
class Workload:
    """`warm_up` is done before, untimed: it starts threads and compiles constraints."""

    name: str
    title: str
    unit: Unit
    work: Work
    warm_up: Work


RECORD: Final[dict[str, Any]] = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 3, "maxLength": 24},
        "city": {"enum": ["Berlin", "Lagos", "Lima", "Osaka", "Oslo", "Quito"]},
        "year_of_birth": {"type": "integer", "minimum": 1930, "maximum": 2010},
        "is_member": {"type": "boolean"},
        "interests": {
            "type": "array",
            "items": {"enum": ["chess", "cooking", "music", "rowing", "trains"]},
            "minItems": 2,
            "maxItems": 3,
        },
    },
    "required": ["name", "city", "year_of_birth", "is_member", "interests"],
    "additionalProperties": False,
}
TICKET: Final = (
    r"[A-Z]{3}-[0-9]{4}: (low|medium|high) priority, due 20[0-9]{2}-[01][0-9]-[0-3][0-9]"
)
TICKET_GBNF: Final = (
    'root ::= [A-Z]{3} "-" [0-9]{4} ": " ("low" | "medium" | "high") '
    '" priority, due 20" [0-9]{2} "-" [01] [0-9] "-" [0-3] [0-9]'
)
TOPICS: Final = (
    "bread ovens",
    "river locks",
    "night trains",
    "bee keeping",
    "paper making",
    "lighthouses",
    "wind organs",
    "salt mines",
)
TURNS: Final = (
    "I am writing a short article about {}. Please explain how one would describe them to a "
    "reader who has never seen one.",
    "Thank you. What did people get wrong about {} a hundred years ago, and who noticed it first?",
    "Now give me two questions about {} that I could ask somebody who works with them every day.",
    "Write a closing paragraph about {} that picks up the first thing you said.",
)


class PromptMaker:
    """Prompts of exact lengths, cut from a text that never changes. Each begins with a number of
    its own."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        licence = (Path(__file__).parents[2] / "LICENSE").read_text()
        self._words = (licence * 2).split()
        self._made = 0

    def prompt(self, length: int, prefix: str = "") -> str:
        """`prefix` and some text that together are `length` tokens, also when read again."""
        self._made += 1
        head = self._ids(prefix)
        lead = f"{prefix}\n\n{self._made}. " if prefix else f"{self._made}. "
        for start in range(7 * self._made, len(self._words) // 2):
            words = self._words[start : start + length]  # a token each, at least
            ids = self._ids(lead + " ".join(words))[:length]
            text = self._tokenizer.decode(ids, skip_special_tokens=False)
            if ids[: len(head)] == head and len(ids) == length and self._ids(text) == ids:
                return text
        raise AssertionError(f"no text of {length} tokens")

    def prompts(self, count: int, length: int, prefix: str = "") -> tuple[str, ...]:
        return tuple(self.prompt(length, prefix) for _ in range(count))

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids


def workloads(tokenizer: Tokenizer) -> list[Workload]:
    """All workloads, in the order in which they run."""
    make = PromptMaker(tokenizer)
    warm_up = Completions(make.prompts(1, 64), 64, 8)

    def streams(count: int, length: int, max_tokens: int, n: int = 1) -> Completions:
        return Completions(make.prompts(count, length), length, max_tokens, n)

    def plain(name: str, title: str, unit: Unit, work: Work) -> Workload:
        return Workload(name, title, unit, work, warm_up)

    def constrained(name: str, title: str, work: Constrained) -> Workload:
        first = replace(work, questions=work.questions[:1])
        return Workload(name, title, Unit.SECONDS, work, first)

    prefix = make.prompt(1024)
    records = tuple(f"Invent customer number {n} and give the record as JSON." for n in range(16))
    tickets = tuple(f"Invent ticket number {n} and give its line." for n in range(16))
    output, prompt = Unit.OUTPUT_RATE, Unit.PROMPT_RATE
    return [
        plain("single", "1 stream, 64 in, 128 out", output, streams(1, 64, 128)),
        plain(
            "first-token",
            "time to first token, 64 in, median of 5",
            Unit.MILLISECONDS,
            FirstToken(make.prompts(5, 64), 64),
        ),
        plain("streams-8", "8 streams, 256 in, 128 out", output, streams(8, 256, 128)),
        plain("streams-32", "32 streams, 256 in, 128 out", output, streams(32, 256, 128)),
        plain("prefill-1024", "prefill of 1,024 tokens", prompt, streams(1, 1024, 1)),
        plain("prefill-2048", "prefill of 2,048 tokens", prompt, streams(1, 2048, 1)),
        plain(
            "shared-prefix",
            "64 requests, 1,024 common tokens + 32 own, 16 out",
            Unit.SECONDS,
            Completions(make.prompts(64, 1056, prefix), 1056, 16),
        ),
        plain(
            "chats",
            "8 chats of 4 turns, 64 out a turn",
            Unit.SECONDS,
            Chats(tuple(tuple(t.format(topic) for t in TURNS) for topic in TOPICS), 64),
        ),
        constrained("json", "16 JSON records by schema", Constrained(records, 160, schema=RECORD)),
        constrained(
            "regex",
            "16 lines by regex",
            Constrained(tickets, 80, regex=TICKET, gbnf=TICKET_GBNF),
        ),
        plain("samples-8", "n = 8 of 512 in, 64 out", Unit.SECONDS, streams(1, 512, 64, n=8)),
    ]


# --- what a right answer is --------------------------------------------------------------------


def complaints(work: Work, outcome: Outcome) -> list[str]:
    """What in `outcome` is not what was asked for: for the reader of the figures."""
    match work:
        case Completions():
            prompt_tokens = len(work.prompts) * work.prompt_tokens
            output_tokens = len(work.prompts) * work.n * work.max_tokens
        case FirstToken():
            prompt_tokens = len(work.prompts) * work.prompt_tokens
            output_tokens = outcome.output_tokens
        case Chats():
            prompt_tokens = outcome.prompt_tokens  # the answers are in it, so it is each peer's own
            output_tokens = sum(map(len, work.conversations)) * work.max_tokens
        case Constrained():
            return _invalid(work, outcome.texts)
    found = []
    if outcome.prompt_tokens != prompt_tokens:
        found.append(f"{outcome.prompt_tokens} prompt tokens instead of {prompt_tokens}")
    if outcome.output_tokens != output_tokens:
        found.append(f"{outcome.output_tokens} output tokens instead of {output_tokens}")
    return found


def _invalid(work: Constrained, texts: tuple[str, ...]) -> list[str]:
    valid = sum(_holds(work, text) for text in texts)
    asked = len(work.questions)
    return [] if valid == asked else [f"{valid} of {asked} answers valid"]


def _holds(work: Constrained, text: str) -> bool:
    if work.regex is not None:
        return re.fullmatch(work.regex, text) is not None
    try:
        jsonschema.validate(json.loads(text), work.schema or {})
    except (ValueError, jsonschema.ValidationError):
        return False
    return True
