"""Jump-forward against choosing the same tokens one step at a time: are the ids identical?

    python benchmarks/constrained/jump_equality.py [--pairs 300] [--max-tokens 256] [--output PATH]

The real model in float32 at temperature 0, over pairs of a schema of this folder and a prompt that
names it. Each pair is generated three times, with nothing cached from the other times:

- jumping: forced tokens are appended and computed together with what follows;
- one by one: no jumps, but where the grammar forces tokens the mask allows nothing else, so that
  each is chosen and computed in a step of its own;
- free: no jumps, the grammar's own masks, so that the model may spell forced text as it likes.

The first two must agree in every id. How the third differs from them is told with its causes, and
every output is checked by jsonschema.

Owns: the three ways and what is compared. Knows of the engine's parts only the rules of output
(`Advancer`) and one request's grammar, which it puts its own in place of.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Final

import numpy as np
from corpus import load, schema_files
from formats import format_checker
from jsonschema import Draft202012Validator, validators
from numpy.typing import NDArray

from sapwood.constrained import GrammarError, GrammarState, JsonSchema
from sapwood.runtime.advance import FORCE_TAIL, Advancer
from sapwood.runtime.chat import ChatFormat
from sapwood.runtime.config import CacheOptions, EngineConfig, ModelOptions, ScheduleOptions
from sapwood.runtime.loop import EngineLoop, build_loop
from sapwood.runtime.models.source import resolve_model
from sapwood.runtime.protocol import SamplingParams
from sapwood.runtime.request import Request
from sapwood.runtime.tokenizer import TokenizerFiles, load_tokenizer
from sapwood.runtime.wire import Failed, TokenRequest

AT_ONCE: Final = 32
SHOWN: Final = 5  # spellings of each cause


@dataclass(frozen=True)
class Pair:
    name: str
    spec: JsonSchema
    prompt_ids: tuple[int, ...]


@dataclass(frozen=True)
class Output:
    """`is_forced`: for each id, whether the grammar dictated it. `finish`: "stop", "length", or the
    error that ended the request."""

    ids: tuple[int, ...] = ()
    is_forced: tuple[bool, ...] = ()
    text: bytes = b""
    finish: str = ""


# --- ways to advance ------------------------------------------------------------------------------


class Recorder(Advancer):
    """The engine's own rules; keeps the requests, to be read when they have ended."""

    def __init__(self, files: TokenizerFiles, vocab_size: int, *, jump_forward: bool) -> None:
        token_bytes = files.vocabulary.padded(vocab_size).token_bytes
        super().__init__(token_bytes, files.special_bytes, files.eos_ids, jump_forward)
        self.requests: dict[str, Request] = {}

    def begin(self, request: Request) -> None:
        self.requests[request.id] = request
        super().begin(request)

    def output(self, id: str) -> Output:
        request = self.requests[id]
        finish = "" if request.finish is None else request.finish.kind.value
        ids = tuple(request.tokens[request.prompt_len :])
        text = bytes(request.output_bytes[: request.cut])
        return Output(ids, self.flags(request), text, finish)

    def flags(self, request: Request) -> tuple[bool, ...]:
        return tuple(map(bool, request.forced))


class OneByOne(Recorder):
    """Without jumps; what would be forced is all that may be chosen."""

    def __init__(self, files: TokenizerFiles, vocab_size: int) -> None:
        super().__init__(files, vocab_size, jump_forward=False)

    def begin(self, request: Request) -> None:
        if request.grammar is not None:
            request.grammar = ForcedOnly(request.grammar, request.tokens)
        super().begin(request)

    def flags(self, request: Request) -> tuple[bool, ...]:
        assert isinstance(request.grammar, ForcedOnly)
        return tuple(request.grammar.is_forced)


class ForcedOnly(GrammarState):
    """A grammar's state whose masks allow only the forced token, where there is one.

    `tokens`: the request's own, prompt and output; only read. The mask's budget is the one that the
    engine would have jumped with.
    """

    __slots__ = ("_forced", "_tokens", "_was_asked", "is_forced")

    def __init__(self, state: GrammarState, tokens: Sequence[int]) -> None:
        super().__init__(state.grammar, state._machine, state._in_use)
        self._tokens = tokens
        self._forced: list[int] = []  # still to be chosen
        self._was_asked = False  # whether `_forced` is of this place
        self.is_forced: list[bool] = []  # of each accepted token

    def fill_mask(self, row: NDArray[np.int32], budget: int | None = None) -> None:
        if not self._was_asked:
            self._forced = self.forced_tokens(self._tokens[-FORCE_TAIL:], budget)
            self._was_asked = True
        if not self._forced:
            self.snapshot().fill_mask(row, budget)  # a plain state's, filled natively
            return
        row.fill(0)
        token = self._forced[0]
        row.view(np.uint32)[token // 32] = np.uint32(1 << token % 32)

    def accept(self, token: int) -> bool:
        if not super().accept(token):
            return False
        self.is_forced.append(bool(self._forced))
        if self._forced:
            assert token == self._forced.pop(0)
            # The engine asks once after a choice and takes all it is told; so the end of a run is
            # followed by a choice, as it is there.
        else:
            self._was_asked = False
        return True


# --- the engine -----------------------------------------------------------------------------------


class Bench:
    """One model, on which requests are run in any of the ways. Close it."""

    def __init__(self, max_tokens: int, dtype: str = "float32") -> None:
        path = resolve_model(None)
        self._max_tokens = max_tokens
        self.files = load_tokenizer(path)
        config = EngineConfig(
            ModelOptions(dtype=dtype),  # type: ignore[arg-type]
            CacheOptions(max_tokens=AT_ONCE * (max_tokens + 128)),
            ScheduleOptions(max_drafts=0, max_running=AT_ONCE),
        )
        self.loop: EngineLoop = build_loop(config, self.files)

    def close(self) -> None:
        self.loop.close()

    def jumping(self) -> Recorder:
        return Recorder(self.files, self.loop.info.vocab_size, jump_forward=True)

    def one_by_one(self) -> Recorder:
        return OneByOne(self.files, self.loop.info.vocab_size)

    def free(self) -> Recorder:
        return Recorder(self.files, self.loop.info.vocab_size, jump_forward=False)

    def pairs(self, count: int) -> tuple[list[Pair], dict[str, str]]:
        """Pairs of the shipped schemas, in their order, every so many of them where fewer are
        wanted; and which schemas are left out, with why. Where there are too few schemas they come
        again with other prompts."""
        info = self.loop.info
        chat = ChatFormat(info.chat_template, info.special_tokens)
        usable: list[tuple[str, JsonSchema]] = []
        left_out: dict[str, str] = {}
        cases = load(schema_files())
        for case in cases[:: max(1, len(cases) // count)]:
            try:
                spec = JsonSchema.of(case.schema)
                shortest = self.loop._compiler.compile(spec).shortest
            except GrammarError as error:
                left_out[case.name] = str(error)
                continue
            if shortest > self._max_tokens:
                left_out[case.name] = f"its shortest output has {shortest} tokens"
            else:
                usable.append((case.name, spec))
        pairs: list[Pair] = []
        while len(pairs) < count:
            turn, number = divmod(len(pairs), len(usable))
            name, spec = usable[number]
            told = f"Write JSON for: {name}" + (f", example {turn + 1}" if turn else "")
            text = chat.render([{"role": "user", "content": told}], add_generation_prompt=True)
            ids = self.files.tokenizer.encode(text, add_special_tokens=False).ids
            pairs.append(Pair(f"{name}, prompt {turn + 1}", spec, tuple(ids)))
        return pairs, left_out

    def run(self, pairs: Sequence[Pair], way: Recorder) -> list[Output]:
        loop = self.loop
        loop.control("flush_cache")
        loop._scheduler._advancer = way
        params = {"max_tokens": self._max_tokens, "temperature": 0.0}
        errors: dict[str, str] = {}
        for number, pair in enumerate(pairs):
            sampling = SamplingParams(constraint=pair.spec, **params)  # type: ignore[arg-type]
            loop.submit(TokenRequest(str(number), pair.prompt_ids, sampling, stream=number))
        while loop.has_work:
            for message in loop.step():
                if isinstance(message, Failed):
                    errors[message.id] = str(message.error)
        loop.control("check_integrity")
        return [
            Output(finish=errors[str(number)]) if str(number) in errors else way.output(str(number))
            for number in range(len(pairs))
        ]


# --- what is compared -----------------------------------------------------------------------------


def complaint(pair: Pair, output: Output) -> str | None:
    """Why the output is not what the schema asked for. Also where the budget ended it: a number
    without bounds goes on as long as it may, and is one wherever it is left."""
    if output.finish not in ("stop", "length"):
        return f"ended by {output.finish}"
    # As decimal fractions, for in binary ones jsonschema takes 1.11 for no multiple of 0.01.
    schema, document = (json.loads(t, parse_float=Decimal) for t in (pair.spec.schema, output.text))
    kind = validators.validator_for(schema, default=Draft202012Validator)
    try:
        kind(schema, format_checker=format_checker()).validate(document)
    except Exception as error:
        return f"{type(error).__name__}: {str(error).splitlines()[0]}"
    return None


def cause(jumped: Output, free: Output, token_bytes: Sequence[bytes | None]) -> str | None:
    """Why the first id that differs does; None where all are the same."""
    if jumped.ids == free.ids:
        return None
    at = next(
        (n for n, (a, b) in enumerate(zip(jumped.ids, free.ids, strict=False)) if a != b), None
    )
    if at is None:
        return "one ends where the other goes on"
    if not jumped.is_forced[at]:
        return "the model chose otherwise after the same ids (rounding)"
    end = next((n for n in range(at, len(jumped.ids)) if not jumped.is_forced[n]), len(jumped.ids))
    forced = b"".join(token_bytes[token] or b"" for token in jumped.ids[at:end])
    ours, theirs = (token_bytes[token] or b"" for token in (jumped.ids[at], free.ids[at]))
    if not forced.startswith(theirs):
        return "the model's token reaches beyond what was forced"
    if len(theirs) < len(ours):
        return "the model spells forced text in a shorter token than the tokenizer"
    return "the model spells forced text in a longer token than the tokenizer"


@dataclass
class Report:
    """`unequal`, `invalid`: names with what is wrong. `by_length`: how many jumping outputs the
    budget ended. `causes`: how many free outputs differ from the jumping ones for each, of which
    `same_text` say the same in other tokens; `spellings`: at which tokens."""

    pairs: int = 0
    tokens: int = 0
    forced: int = 0
    identical: int = 0
    by_length: int = 0
    unequal: dict[str, str] = field(default_factory=dict)
    invalid: dict[str, str] = field(default_factory=dict)
    checked: int = 0
    free_identical: int = 0
    causes: dict[str, int] = field(default_factory=dict)
    same_text: dict[str, int] = field(default_factory=dict)
    spellings: dict[str, dict[str, int]] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)

    def add(self, pair: Pair, jumped: Output, stepped: Output) -> None:
        self.pairs += 1
        self.tokens += len(jumped.ids)
        self.forced += sum(jumped.is_forced)
        self.by_length += jumped.finish == "length"
        if jumped.ids and jumped == stepped:
            self.identical += 1
        else:
            self.unequal[pair.name] = _first_difference(jumped, stepped)
        self._check(pair, "jumping", jumped)
        self._check(pair, "one by one", stepped)

    def add_free(
        self, pair: Pair, jumped: Output, free: Output, token_bytes: Sequence[bytes | None]
    ) -> None:
        self._check(pair, "free", free)
        why = cause(jumped, free, token_bytes)
        if why is None:
            self.free_identical += 1
            return
        _count(self.causes, why)
        _count(self.same_text, why, jumped.text == free.text)
        _count(self.spellings.setdefault(why, {}), _first_difference(jumped, free, token_bytes))

    def _check(self, pair: Pair, way: str, output: Output) -> None:
        self.checked += 1
        wrong = complaint(pair, output)
        if wrong is not None:
            self.invalid[f"{pair.name}, {way}"] = wrong

    def markdown(self) -> str:
        lines = [
            "| | |",
            "|---|---|",
            f"| pairs of schema and prompt | {self.pairs} |",
            f"| tokens, of which forced | {self.tokens:,}, {self.forced / self.tokens:.1%} |",
            f"| jumping and one by one: identical ids | {self.identical} of {self.pairs} |",
            f"| outputs valid by jsonschema | {self.checked - len(self.invalid)} "
            f"of {self.checked} |",
            f"| ended by the budget | {self.by_length} |",
            f"| free masked decoding: identical ids | {self.free_identical} of {self.pairs} |",
        ]
        for why, count in self.causes.items():
            same = self.same_text[why]
            lines.append(f"| first difference: {why} | {count}, the same text in {same} |")
        notes = {
            "not identical": self.unequal,
            "not valid": self.invalid,
            "left out": self.left_out,
        }
        lines.append("")
        for title, named in notes.items():
            lines += [f"- {title}: {name}: {what}" for name, what in named.items()]
        for why, spellings in self.spellings.items():
            often = sorted(spellings.items(), key=lambda item: -item[1])[:SHOWN]
            lines += [f"- {why}: {count} times {spelling}" for spelling, count in often]
        return "\n".join(lines).rstrip() + "\n"


def _count(counts: dict[str, int], key: str, by: int = 1) -> None:
    counts[key] = counts.get(key, 0) + by


def _first_difference(one: Output, other: Output, token_bytes: Sequence[bytes | None] = ()) -> str:
    """The ids that differ first, as bytes where `token_bytes` are given."""
    for at, (a, b) in enumerate(zip(one.ids, other.ids, strict=False)):
        if a != b and token_bytes:
            return f"{token_bytes[a]!r} and {token_bytes[b]!r}"
        if a != b:
            return f"at {at} of {len(one.ids)} and {len(other.ids)}: {a} and {b}"
    return f"{len(one.ids)} ids ({one.finish}) and {len(other.ids)} ({other.finish})"


def compare(bench: Bench, pairs: Sequence[Pair], *, with_free: bool = True) -> Report:
    report = Report()
    jumped = bench.run(pairs, bench.jumping())
    stepped = bench.run(pairs, bench.one_by_one())
    for pair, *outputs in zip(pairs, jumped, stepped, strict=True):
        report.add(pair, *outputs)
    if with_free:
        token_bytes = bench.files.vocabulary.token_bytes
        for pair, one, free in zip(pairs, jumped, bench.run(pairs, bench.free()), strict=True):
            report.add_free(pair, one, free, token_bytes)
    return report


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pairs", type=int, default=300)
    parser.add_argument("--max-tokens", type=int, default=256)
    parser.add_argument("--output", type=Path, help="where to write, without suffix")
    options = parser.parse_args()
    bench = Bench(options.max_tokens)
    try:
        pairs, left_out = bench.pairs(options.pairs)
        report = compare(bench, pairs)
    finally:
        bench.close()
    report.left_out = left_out
    table = report.markdown()
    print(table)
    if options.output is not None:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.with_suffix(".md").write_text(table)
        body = json.dumps(asdict(report), indent=1) + "\n"
        options.output.with_suffix(".json").write_text(body)
    return 0 if report.identical == report.pairs and not report.invalid else 1


if __name__ == "__main__":
    sys.exit(main())
