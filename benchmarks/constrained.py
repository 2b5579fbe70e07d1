"""Constraints: time to compile, cold and warm masks, share of forced tokens; beside outlines-core.

    python benchmarks/constrained.py [--peer-seconds 60]

One line per constraint, on the default model's tokenizer. The example text is what the share of
forced tokens and the states of the masks are taken from. The peer is outlines-core's `Index`, built
for the same language (for schemas: its own regex with our whitespace left out), in a process of its
own that is stopped after --peer-seconds; it makes all masks at once, so its build time stands
against compiling plus every cold mask.
"""

import argparse
import datetime
import json
import multiprocessing
import platform
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection

import numpy as np

from sapwood.constrained import (
    Choice,
    Constraint,
    GrammarCompiler,
    GrammarState,
    JsonSchema,
    Regex,
    Vocabulary,
)
from sapwood.runtime.models.source import resolve_model
from sapwood.runtime.tokenizer import load_tokenizer


@dataclass(frozen=True)
class Case:
    name: str
    spec: Constraint
    example: str


CHARACTER = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 40},
        "house": {"enum": ["Gryffindor", "Slytherin", "Ravenclaw", "Hufflepuff"]},
        "alive": {"type": "boolean"},
        "born": {"type": "string", "format": "date"},
        "wand": {
            "type": "object",
            "properties": {"wood": {"type": "string"}, "length": {"type": "number"}},
            "required": ["wood", "length"],
        },
        "friends": {"type": "array", "items": {"type": "string"}, "maxItems": 5},
    },
    "required": ["name", "house", "alive", "born", "wand"],
}
PERSON = {
    "name": "Luna Lovegood",
    "house": "Ravenclaw",
    "alive": True,
    "born": "1981-02-13",
    "wand": {"wood": "unknown", "length": 10.25},
    "friends": ["Ginny", "Neville"],
}
WIDE = {f"field_{i}": {"type": "string", "maxLength": 20} for i in range(30)}
CASES = [
    Case("integer", Regex(r"[-+]?[0-9]+"), "-1234567"),
    Case("email", Regex(r"[\w.+-]{1,30}@[a-z0-9-]{1,20}\.[a-z]{2,6}"), "ada.l@example.org"),
    Case("ip address", Regex(r"((25[0-5]|2[0-4]\d|1?\d?\d)\.){3}(25[0-5]|1?\d?\d)"), "10.0.25.254"),
    Case("4 options", Choice(("positive", "negative", "neutral", "not sure")), "neutral"),
    Case("1000 options", Choice(tuple(f"item {i * 7919}" for i in range(1000))), "item 79190"),
    Case("json object", JsonSchema.of(CHARACTER), json.dumps(PERSON)),
    Case(
        "json 30 fields",
        JsonSchema.of({"properties": WIDE, "required": list(WIDE)}),
        json.dumps(dict.fromkeys(WIDE, "some text")),
    ),
    Case("json anything", JsonSchema.of({"type": "object"}), '{"a": [1, {"b": null}], "c": "d"}'),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peer-seconds", type=float, default=60.0)
    arguments = parser.parse_args()
    files = load_tokenizer(resolve_model(None))
    vocabulary = Vocabulary.from_tokenizer(files.tokenizer, eos_ids=files.eos_ids)
    print(f"{platform.processor() or platform.machine()}, {datetime.date.today()}, ", end="")
    print(
        f"{vocabulary.size} tokens; trie built in {1e3 * seconds(lambda: vocabulary.trie):.0f} ms"
    )
    compile_everything_once(vocabulary)  # libraries are imported, character classes known
    print(f"{'constraint':<15}{'states':>7}{'compile':>10}{'cold p50':>10}{'cold p99':>10}", end="")
    print(f"{'warm':>9}{'forced':>8}   outlines-core index")
    for case in CASES:
        measure(case, vocabulary, arguments.peer_seconds)


def compile_everything_once(vocabulary: Vocabulary) -> None:
    compiler = GrammarCompiler(vocabulary)
    for case in CASES:
        compiler.compile(case.spec)
    compiler.close()


def measure(case: Case, vocabulary: Vocabulary, peer_seconds: float) -> None:
    assert vocabulary.encode is not None
    compiler = GrammarCompiler(vocabulary)
    compile_seconds = seconds(lambda: compiler.compile(case.spec))
    grammar = compiler.compile(case.spec)
    row = np.empty(vocabulary.num_words, np.int32)
    state, tokens = grammar.start(), vocabulary.encode(case.example)
    cold: list[float] = []
    here, seen = 0, set[int]()
    for token in tokens:
        took = seconds(lambda: state.fill_mask(row))
        if here not in seen:
            cold.append(took)
        seen.add(here)
        here = grammar.automaton.step(here, vocabulary.token_bytes[token] or b"")
        assert state.accept(token), case
    assert state.can_finish, case
    warm = min(seconds(lambda: state.fill_mask(row)) for _ in range(200))
    print(f"{case.name:<15}{grammar.num_states:>7}{1e3 * compile_seconds:>7.1f} ms", end="")
    print(f"{1e3 * float(np.percentile(cold, 50)):>7.2f} ms", end="")
    print(f"{1e3 * float(np.percentile(cold, 99)):>7.2f} ms{1e6 * warm:>6.1f} us", end="")
    print(f"{100 * forced_share(grammar.start(), tokens):>6.0f} %   ", end="", flush=True)
    print(peer(case, vocabulary, peer_seconds))
    compiler.close()


def forced_share(state: GrammarState, tokens: list[int]) -> float:
    """How much of the example, written by the tokenizer, needs no forward pass of its own."""
    at = forced_count = 0
    while at < len(tokens):
        for token in state.forced_tokens(tokens[:at]):
            assert token == tokens[at]
            state.accept(token)
            at, forced_count = at + 1, forced_count + 1
        if at < len(tokens):
            state.accept(tokens[at])
            at += 1
    return forced_count / len(tokens)


def seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def peer(case: Case, vocabulary: Vocabulary, limit: float) -> str:
    """outlines-core on the same language, in a process that can be stopped."""
    context = multiprocessing.get_context("spawn")
    receive, send = context.Pipe(duplex=False)
    arguments = (send, regex_of(case.spec), vocabulary.token_bytes, vocabulary.eos_ids[0])
    process = context.Process(target=build_index, args=arguments)
    process.start()
    send.close()
    try:
        answer = receive.recv() if receive.poll(limit) else f"more than {limit:.0f} s"
    except EOFError:
        answer = f"ended with status {process.exitcode}"
    process.kill()
    process.join()
    return str(answer)


def regex_of(spec: Constraint) -> str:
    from outlines_core.json_schema import build_regex_from_schema

    if isinstance(spec, Regex):
        return spec.pattern
    if isinstance(spec, Choice):
        return "|".join(map(re.escape, spec.options))
    return str(build_regex_from_schema(spec.schema, ""))


def build_index(
    send: "Connection[object, object]",
    pattern: str,
    token_bytes: Sequence[bytes | None],
    eos: int,
) -> None:
    from outlines_core import Index
    from outlines_core import Vocabulary as PeerVocabulary

    ids: dict[bytes, list[int]] = {}
    for token, text in enumerate(token_bytes):
        if text:
            ids.setdefault(text, []).append(token)
    peer_vocabulary = PeerVocabulary(eos, ids)
    try:
        took = seconds(lambda: Index(pattern, peer_vocabulary))
        send.send(f"{1e3 * took:.1f} ms")
    except Exception as error:  # whatever the peer refuses is part of the answer
        send.send(f"{type(error).__name__}: {str(error)[:80]}")


if __name__ == "__main__":
    main()
