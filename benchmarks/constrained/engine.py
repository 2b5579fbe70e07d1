"""Constraints in the engine: what jump-forward gains and what masks cost, on the default model.

    python benchmarks/constrained/engine.py [--rounds 3] [--dtype auto,bf16] [--output PATH]

In process, at temperature 0, speculation off. Two questions, whose sides take turns in every round:

- jump-forward, on and off: a record of a character with eleven keys and fixed whitespace, most of
  which is forced, for 1, 4 and 32 prompts at once. Seconds, prompts' prefill included.
- masks, without jump-forward: JSON of 32 prompts next to unconstrained text of the same prompts,
  where each stream has as many tokens as its JSON (ends of text ignored). Output tokens a second.

All prompts differ; nothing is cached from run to run. A first run of each side, untimed, has
compiled the constraints and met the texts. Medians of all runs; a ratio is the median of the
ratios of neighbouring runs. "by token": of the tokens a second; forced text is spelled as the
tokenizer would, which takes fewer tokens than the model takes by itself, and that gains too.
"""

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from datetime import date
from pathlib import Path
from typing import Any, Final

import sapwood as sw
from sapwood import _native
from sapwood.constrained import JsonSchema
from sapwood.runtime.chat import ChatFormat
from sapwood.runtime.models.source import resolve_model
from sapwood.runtime.tokenizer import load_tokenizer

sys.path.append(str(Path(__file__).parents[1] / "peers"))  # workloads.py

from workloads import RECORD

STREAMS: Final = (1, 4, 32)
WIDEST: Final = max(STREAMS)
FEWEST_DOCUMENTS: Final = 16  # in a run, however few at once: they differ in length
MASK_REPEATS: Final = 3  # in each round: a few per cent are to be told apart
CACHE_TOKENS: Final = 16_384

NAME: Final = {"type": "string", "pattern": "^[A-Z][A-Za-z ]{0,15}$"}
CHARACTER: Final[dict[str, Any]] = {
    "type": "object",
    "properties": {
        "name": NAME,
        "house": {"enum": ["Gryffindor", "Slytherin", "Ravenclaw", "Hufflepuff"]},
        "blood status": {"enum": ["Pure-blood", "Half-blood", "Muggle-born"]},
        "occupation": {"enum": ["student", "teacher", "auror", "minister", "keeper"]},
        "wand": {
            "type": "object",
            "properties": {
                "wood": NAME,
                "core": NAME,
                "length": {"type": "integer", "minimum": 7, "maximum": 18},
            },
            "required": ["wood", "core", "length"],
            "additionalProperties": False,
        },
        "alive": {"enum": ["Alive", "Deceased"]},
        "patronus": NAME,
        "boggart": NAME,
    },
    "required": [
        *("name", "house", "blood status", "occupation", "wand", "alive", "patronus", "boggart")
    ],
    "additionalProperties": False,
}
# Long free strings, of which most of the tokens are, and no end until the budget is tight.
REVIEW: Final[dict[str, Any]] = {
    "type": "object",
    "properties": {"title": {"type": "string"}, "review": {"type": "string"}},
    "required": ["title", "review"],
    "additionalProperties": False,
}
PEOPLE: Final = """
    Harry Potter,Hermione Granger,Ron Weasley,Draco Malfoy,Luna Lovegood,Neville Longbottom,
    Ginny Weasley,Fred Weasley,George Weasley,Percy Weasley,Molly Weasley,Arthur Weasley,
    Albus Dumbledore,Minerva McGonagall,Severus Snape,Rubeus Hagrid,Sirius Black,Remus Lupin,
    Nymphadora Tonks,Alastor Moody,Lucius Malfoy,Bellatrix Lestrange,Cho Chang,Cedric Diggory,
    Viktor Krum,Fleur Delacour,Filius Flitwick,Pomona Sprout,Horace Slughorn,Gilderoy Lockhart,
    Dolores Umbridge,Kingsley Shacklebolt
"""


@dataclass(frozen=True)
class Run:
    """What one run took. `steps`: of the engine; `tokens`, `forced`: of the output."""

    seconds: float
    steps: int
    tokens: int
    forced: int
    lengths: tuple[int, ...]

    @property
    def rate(self) -> float:
        return self.tokens / self.seconds


@dataclass
class Line:
    """Both sides of one comparison. The ratio's sense is the title's."""

    title: str
    first: list[Run] = field(default_factory=list)
    second: list[Run] = field(default_factory=list)

    def seconds_ratio(self) -> float:
        """How many times as long the second took."""
        pairs = zip(self.first, self.second, strict=True)
        return statistics.median(b.seconds / a.seconds for a, b in pairs)

    def rate_ratio(self) -> float:
        """The second's rate as a share of the first's."""
        pairs = zip(self.first, self.second, strict=True)
        return statistics.median(b.rate / a.rate for a, b in pairs)


class Prompts:
    """The prompts' ids, as the model's own chat template has them."""

    def __init__(self, info: Any) -> None:
        self._chat = ChatFormat(info.chat_template, info.special_tokens)
        self._tokenizer = load_tokenizer(resolve_model(None)).tokenizer

    def ask(self, text: str) -> list[int]:
        message = {"role": "user", "content": text}
        whole = self._chat.render([message], add_generation_prompt=True)
        ids: list[int] = self._tokenizer.encode(whole, add_special_tokens=False).ids
        return ids

    def characters(self) -> list[list[int]]:
        names = [name.strip() for name in PEOPLE.split(",")]
        return [self.ask(f"Describe {name} of the Harry Potter novels as JSON.") for name in names]

    def records(self) -> list[list[int]]:
        asked = "Invent customer number {} and give the record as JSON."
        return [self.ask(asked.format(number)) for number in range(WIDEST)]

    def reviews(self) -> list[list[int]]:
        asked = "Write a long review of book number {} of your shelf, as JSON."
        return [self.ask(asked.format(number)) for number in range(WIDEST)]


def run(
    engine: "sw.Engine", prompts: Sequence[list[int]], params: Sequence[Any], at_once: int
) -> Run:
    """All prompts, so many at once: a group begins when the one before has ended."""
    engine.flush_cache()
    before = engine.stats()["steps"]
    answers: list[dict[str, Any]] = []
    begin = time.perf_counter()
    for first in range(0, len(prompts), at_once):
        group = slice(first, first + at_once)
        answered = engine.generate(input_ids=prompts[group], sampling_params=params[group])
        assert isinstance(answered, list)
        answers += answered
    seconds = time.perf_counter() - begin
    usages = [answer["meta_info"] for answer in answers]
    lengths = tuple(usage["completion_tokens"] for usage in usages)
    forced = sum(usage["forced_tokens"] for usage in usages)
    return Run(seconds, engine.stats()["steps"] - before, sum(lengths), forced, lengths)


def constrained(schema: dict[str, Any], count: int) -> list[sw.SamplingParams]:
    constraint = JsonSchema.of(schema)
    return [sw.SamplingParams(max_tokens=256, temperature=0.0, constraint=constraint)] * count


def unconstrained(lengths: Sequence[int]) -> list[sw.SamplingParams]:
    return [
        sw.SamplingParams(max_tokens=length, temperature=0.0, ignore_eos=True) for length in lengths
    ]


def jump_lines(
    jumping: "sw.Engine", plain: "sw.Engine", prompts: Sequence[list[int]], rounds: int
) -> list[Line]:
    lines = {streams: Line(str(streams)) for streams in STREAMS}
    for turn in range(rounds + 1):
        for streams, line in lines.items():
            asked = prompts[: max(streams, FEWEST_DOCUMENTS)]
            params = constrained(CHARACTER, len(asked))
            sides = [(jumping, line.first), (plain, line.second)]
            for engine, runs in sides if turn % 2 else sides[::-1]:
                found = run(engine, asked, params, streams)
                if turn:
                    runs.append(found)
    return list(lines.values())


def mask_lines(
    plain: "sw.Engine", prompts: dict[str, tuple[dict[str, Any], list[list[int]]]], rounds: int
) -> list[Line]:
    lines = []
    for title, (schema, asked) in prompts.items():
        line = Line(title)
        masked = constrained(schema, len(asked))
        lengths = run(plain, asked, masked, WIDEST).lengths
        free = unconstrained(lengths)
        run(plain, asked, free, WIDEST)
        for turn in range(rounds * MASK_REPEATS):
            sides = [(free, line.first), (masked, line.second)]
            for params, runs in sides if turn % 2 else sides[::-1]:
                found = run(plain, asked, params, WIDEST)
                assert found.lengths == lengths
                runs.append(found)
        lines.append(line)
    return lines


def measure(dtype: str, rounds: int) -> tuple[list[Line], list[Line]]:
    with ExitStack() as open_engines:

        def engine(jump_forward: bool) -> "sw.Engine":
            made = sw.Engine(
                dtype=dtype,  # type: ignore[arg-type]
                max_tokens_in_cache=CACHE_TOKENS,
                jump_forward=jump_forward,
                max_drafts=0,
            )
            return open_engines.enter_context(made)

        jumping, plain = engine(True), engine(False)
        prompts = Prompts(plain.info())
        masked = {
            "record": (RECORD, prompts.records()),
            "character": (CHARACTER, prompts.characters()),
            "free text": (REVIEW, prompts.reviews()),
        }
        masks = mask_lines(plain, masked, rounds)
        return jump_lines(jumping, plain, prompts.characters(), rounds), masks


# --- tables ---------------------------------------------------------------------------------------


def _median(runs: Sequence[Run], name: str) -> float:
    return float(statistics.median(getattr(each, name) for each in runs))


def jump_table(dtype: str, lines: Sequence[Line]) -> str:
    rows = [
        f"| {dtype}: at once | jump-forward | without | faster | by token "
        "| tokens, of which forced | without | steps | without |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for line in lines:
        on, off = line.first, line.second
        rows.append(
            f"| {line.title} | {_median(on, 'seconds'):.2f} s | {_median(off, 'seconds'):.2f} s "
            f"| {line.seconds_ratio():.2f}x | {1 / line.rate_ratio():.2f}x "
            f"| {on[0].tokens}, {on[0].forced / on[0].tokens:.0%} "
            f"| {off[0].tokens} | {on[0].steps} | {off[0].steps} |"
        )
    return "\n".join(rows)


def mask_table(dtype: str, lines: Sequence[Line]) -> str:
    rows = [
        f"| {dtype}: {WIDEST} at once, no jumps | unconstrained | JSON | cost | tokens |",
        "|---|---|---|---|---|",
    ]
    for line in lines:
        free, masked = line.first, line.second
        rows.append(
            f"| {line.title} | {_median(free, 'rate'):.0f} tok/s | {_median(masked, 'rate'):.0f} "
            f"tok/s | {1 - line.rate_ratio():.1%} | {masked[0].tokens} |"
        )
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dtype", default="auto,bf16", help="comma-separated (%(default)s)")
    parser.add_argument("--output", type=Path, help="where to write, without suffix")
    options = parser.parse_args()
    facts = {
        "date": date.today().isoformat(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {_native.status().tier}",
        "python": platform.python_version(),
        "rounds": str(options.rounds),
        "load before": f"{os.getloadavg()[0]:.2f}",
    }
    parts = ["\n".join(f"- {name}: {value}" for name, value in facts.items())]
    print(f"{parts[0]}\n", flush=True)
    body: dict[str, Any] = {"facts": facts, "dtypes": {}}
    for dtype in options.dtype.split(","):
        jumps, masks = measure(dtype, options.rounds)
        parts += [jump_table(dtype, jumps), mask_table(dtype, masks)]
        print(f"{parts[-2]}\n\n{parts[-1]}\n", flush=True)
        body["dtypes"][dtype] = {
            "jump_forward": [asdict(line) | {"faster": line.seconds_ratio()} for line in jumps],
            "masks": [asdict(line) | {"cost": 1 - line.rate_ratio()} for line in masks],
        }
    tables = "\n\n".join(parts) + "\n"
    if options.output is not None:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.with_suffix(".md").write_text(tables)
        options.output.with_suffix(".json").write_text(json.dumps(body, indent=1) + "\n")


if __name__ == "__main__":
    main()
