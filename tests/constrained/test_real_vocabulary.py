"""The default model's own tokenizer: masks, jumps and whole outputs over 49,152 tokens."""

import json

import jsonschema
import numpy as np
import pytest

from sapwood.constrained import CompileLimits, GrammarCompiler, JsonSchema, Regex, Vocabulary
from sapwood.constrained.pushdown.machine import DEAD
from sapwood.runtime.models.source import resolve_model
from sapwood.runtime.tokenizer import load_tokenizer

SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 20},
        "age": {"type": "integer", "minimum": 0, "maximum": 130},
        "city": {"enum": ["Paris", "Łódź", "東京"]},
        "tags": {"type": "array", "items": {"type": "string"}, "maxItems": 3},
    },
    "required": ["name", "age", "city"],
}


@pytest.fixture(scope="module")
def real() -> Vocabulary:
    files = load_tokenizer(resolve_model(None))
    return Vocabulary.from_tokenizer(files.tokenizer, eos_ids=files.eos_ids)


@pytest.fixture(scope="module")
def real_compiler(real):
    made = GrammarCompiler(real, CompileLimits(seconds=60))  # without C++ it takes a while
    yield made
    made.close()


def test_tokens_spell_any_text(real):
    text = '{"Zoë": [1, "東京 😀\t\x00"]}   def f(x):\n\treturn x  # été'
    assert b"".join(real.token_bytes[i] for i in real.encode(text)) == text.encode()
    assert all(real.token_bytes[token] is None for token in real.eos_ids)
    assert real.num_words == 1536


@pytest.mark.parametrize(
    "prefix", ["", "{", '{"name": "', '{"name": "é', '{"name": "Ada", "age": 1', '{"na']
)
def test_a_row_is_that_of_brute_force(prefix, real, real_compiler):
    grammar = real_compiler.compile(JsonSchema.of(SCHEMA))
    machine = grammar.machine
    here = machine.step(machine.start, prefix.encode())
    row = np.empty(real.num_words, np.int32)
    machine.fill(here, None, row)
    allowed = set(np.flatnonzero(np.unpackbits(row.view(np.uint8), bitorder="little")).tolist())
    expected = {
        token
        for token, text in enumerate(real.token_bytes)
        if text is not None and machine.step(here, text) != DEAD
    }
    assert allowed == expected


def test_outputs_written_at_random_validate(real_compiler, write):
    grammar = real_compiler.compile(JsonSchema.of(SCHEMA))
    for seed in range(12):
        text = write(grammar, seed, grammar.shortest + (seed % 2) * 40)
        jsonschema.validate(json.loads(text), SCHEMA)


@pytest.mark.parametrize("prompt", ["", "Describe a person as JSON.\n", "Output:", "```json\n"])
def test_half_of_a_typical_output_is_forced(prompt, real, real_compiler):
    state = real_compiler.compile(JsonSchema.of(SCHEMA)).start()
    text = '{"name": "Ada Lovelace", "age": 36, "city": "Łódź", "tags": ["math"]}'
    tokens, at = real.encode(prompt + text), len(real.encode(prompt))
    assert tokens[:at] == real.encode(prompt)
    count, forced_count = len(tokens) - at, 0
    while at < len(tokens):
        for token in state.forced_tokens(tokens[:at]):
            assert token == tokens[at]
            assert state.accept(token)
            at += 1
            forced_count += 1
        if at < len(tokens):
            assert state.accept(tokens[at])
            at += 1
    assert state.is_finished
    assert forced_count >= 0.4 * count, (forced_count, count)


def test_large_constraints_compile_within_seconds(real_compiler):
    fields = {f"field_{i}": {"type": "string", "maxLength": 20} for i in range(40)}
    schema = {"type": "object", "properties": fields, "required": list(fields)}
    assert real_compiler.compile(JsonSchema.of(schema)).shortest > 200
    assert real_compiler.compile(Regex(r"(?=.*\d)[\w ]{8,20}")).shortest >= 1
