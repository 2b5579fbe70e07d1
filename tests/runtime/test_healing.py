"""Token healing: a text's end is drawn anew as one longer token, or stays as it is."""

import importlib
import sys
from collections.abc import Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from sapwood.constrained import CompiledGrammar, CompileLimits, Regex, Vocabulary
from sapwood.constrained.lower import lower
from sapwood.constrained.pushdown.native import NativeTokenMachine
from sapwood.constrained.pushdown.token_machine import PythonTokenMachine
from sapwood.runtime.config import ResolvedConfig, ScheduleOptions, resolve_schedule
from sapwood.runtime.errors import InvalidRequest
from sapwood.runtime.healing import Healing, Tentative, num_tentative
from sapwood.runtime.local import LocalClient
from sapwood.runtime.loop import assemble
from sapwood.runtime.models.config import LlamaConfig
from sapwood.runtime.models.llama import LlamaModel
from sapwood.runtime.protocol import (
    Chunk,
    EngineInfo,
    GenerateRequest,
    Ids,
    LogprobOptions,
    SamplingParams,
    Text,
)
from sapwood.runtime.text import TextCodec
from sapwood.runtime.torch_backend import TorchBackend
from sapwood.runtime.wire import TokenRequest

sys.path.append(str(Path(__file__).parent))
text_files = importlib.import_module("text_files")

SIZE = 320
TEXTS = st.lists(
    st.sampled_from(
        ["the", " qui", "quick", " ", "fo", " fo", "x", " do", "é", "日", "\n", "1", "na"]
    ),
    min_size=1,
    max_size=6,
).map("".join)


def small_files() -> Any:
    """Byte-level BPE of few tokens, so that a tiny model often likes the longer ones."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=SIZE,
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=["<|end|>"],
    )
    tokenizer.train_from_iterator(text_files.CORPUS, trainer)
    return text_files.files_of(tokenizer, {"eos_token": "<|end|>"})


FILES = small_files()
VOCABULARY: Vocabulary = FILES.vocabulary
CODEC = TextCodec(
    FILES, EngineInfo("small", 2_048, SIZE, 4_096, 16, "float32", None, {}, FILES.eos_ids)
)


def config() -> LlamaConfig:
    return LlamaConfig(
        architecture="LlamaForCausalLM",
        vocab_size=SIZE,
        hidden_size=32,
        intermediate_size=64,
        num_layers=2,
        num_heads=4,
        num_kv_heads=2,
        head_dim=8,
        context_length=2_048,
        tie_embeddings=True,
    )


def build(**schedule: Any) -> Any:
    torch.set_num_threads(1)
    options = resolve_schedule(replace(ScheduleOptions(max_running=32), **schedule), "cpu")
    resolved = ResolvedConfig("float32", 2_048, 512, 16, options)
    model = LlamaModel.random(config(), torch.float32, seed=7)
    return assemble(TorchBackend(model, "float32"), FILES, resolved)


@pytest.fixture(scope="module")
def client() -> Iterator[LocalClient]:
    made = LocalClient(build, FILES)
    yield made
    made.close()


def wire_of(prompt: Any, **sampling: Any) -> TokenRequest:
    request = GenerateRequest(prompt, SamplingParams(**sampling), heal=True)
    return CODEC.requests(request, map(str, count()).__next__)[0]


def spelled(ids: Any) -> bytes:
    return b"".join(VOCABULARY.token_bytes[token] or b"" for token in ids)


def read(row: np.ndarray) -> set[int]:
    return set(np.flatnonzero(np.unpackbits(row.view(np.uint8), bitorder="little")).tolist())


# --- which tokens are tentative -------------------------------------------------------------------


@settings(deadline=None, max_examples=400)
@given(
    before=st.sampled_from([(), (Ids((40, 41)),), (Text("<|end|>the\n", special=True),)]),
    text=TEXTS,
    special=st.booleans(),
)
def test_as_many_as_some_token_goes_beyond(before: Any, text: str, special: bool) -> None:
    prompt = (*before, Text(text, special))
    wire = wire_of(prompt)
    assert wire.prompt_ids == CODEC.encode(prompt)
    last = wire.prompt_ids[len(wire.prompt_ids) - wire.tentative :]
    own = "".join(
        part.text for part in prompt if isinstance(part, Text) and part.special == special
    )
    assert own.encode().endswith(spelled(last))
    assert 0 <= wire.tentative < len(wire.prompt_ids)
    longer = {text for text in VOCABULARY.token_bytes if text}
    fitting = []
    for number in range(1, len(wire.prompt_ids)):
        piece = spelled(wire.prompt_ids[-number:])
        if None in map(VOCABULARY.token_bytes.__getitem__, wire.prompt_ids[-number:]):
            break
        if own.encode().endswith(piece) and any(
            one != piece and one.startswith(piece) for one in longer
        ):
            fitting.append(number)
    assert wire.tentative == max(fitting, default=0)


@pytest.mark.parametrize(
    ("prompt", "last"),
    [
        ((Text("the fo"),), b" fo"),
        ((Text("the fo", special=True),), b" fo"),
        ((Text("the "),), b" "),
        ((Text("the f"), Text("o")), b" fo"),
        ((Text("the"),), b""),  # nothing would stand before what is drawn
        ((Text("the fo"), Ids((40,))), b""),
        ((Ids((40,)), Text("fo")), b"fo"),
        ((Text("the fo"), Text(""), Ids(())), b" fo"),
        ((Text("the "), Text("<|end|>", special=True)), b""),
        ((Text("the<|end|>", special=True), Text("fo")), b"fo"),
        ((Text("the <|end|>"),), b""),  # typed, so ordinary text; but no token goes on from ">"
    ],
    ids=str,
)
def test_only_the_last_text_is_tentative(prompt: Any, last: bytes) -> None:
    wire = wire_of(prompt)
    assert spelled(wire.prompt_ids[len(wire.prompt_ids) - wire.tentative :]) == last


def test_nothing_is_tentative_where_nothing_is_asked() -> None:
    prompt = (Text("the fo"),)
    assert wire_of(prompt, max_tokens=0).tentative == 0
    plain = CODEC.requests(GenerateRequest(prompt), lambda: "x")[0]
    assert plain.tentative == 0 and plain.prompt_ids == wire_of(prompt).prompt_ids
    with pytest.raises(InvalidRequest, match="heal: 1 is not true or false"):
        GenerateRequest(prompt, heal=1)  # type: ignore[arg-type]


@settings(deadline=None, max_examples=100)
@given(text=TEXTS, start=st.integers(0, 5))
def test_tokens_whose_logprobs_are_wanted_by_number_stay(text: str, start: int) -> None:
    prompt = (Text(text),)
    request = GenerateRequest(prompt, logprobs=LogprobOptions(start=start), heal=True)
    wire = CODEC.requests(request, lambda: "x")[0]
    kept = len(wire.prompt_ids) - wire.tentative
    assert kept >= min(max(start, 1), len(wire.prompt_ids))


@pytest.mark.parametrize(
    "files", [text_files.sentencepiece(), text_files.sentencepiece(legacy=True)]
)
def test_tokens_that_spell_more_than_the_text_stay(files: Any) -> None:
    ids = files.tokenizer.encode("the", add_special_tokens=False).ids
    for text in ("the", "e", ""):
        tentative = num_tentative((5, *ids), text, files.vocabulary)
        last = ids[len(ids) - tentative :]
        assert text.encode().endswith(b"".join(files.vocabulary.token_bytes[i] for i in last))


# --- what may be drawn in their place -------------------------------------------------------------


def machines() -> list[Any]:
    return [NativeTokenMachine, PythonTokenMachine]


@pytest.mark.parametrize("machine", machines())
@settings(deadline=None, max_examples=60)
@given(
    tokens=st.lists(st.text("abé ", min_size=1, max_size=4).map(str.encode), max_size=60),
    ids=st.lists(st.integers(0, 259), min_size=1, max_size=3),
    pattern=st.sampled_from([None, "[ab]*", "a{2,5}b", "(?s:.)*", "(é|b) ?a", "b"]),
    budget=st.sampled_from([None, 1, 2, 3, 9]),
    stops=st.sampled_from([(), ("a",), ("b", " a"), ("é",)]),
)
def test_masks_are_those_of_brute_force(
    machine: Any,
    tokens: list[bytes],
    ids: list[int],
    pattern: str | None,
    budget: int | None,
    stops: tuple[str, ...],
) -> None:
    texts = [*(bytes([byte]) for byte in range(256)), b"a", b"ab", b" a", None, *tokens, *tokens]
    vocabulary = Vocabulary(texts, [259])
    assume(259 not in ids)
    tentative = Tentative(tuple(ids), vocabulary)
    grammar = None
    if pattern is not None:
        spec = Regex(pattern)
        program = lower(spec, CompileLimits())
        grammar = CompiledGrammar(spec, program, vocabulary, 10.0).start()
        grammar._machine = machine(program, vocabulary)
        grammar._history = [grammar._machine.start]
    row = np.full(vocabulary.num_words, -1, np.int32)
    Healing(tentative, grammar, stops).fill_mask(row, budget)
    expected = {ids[0]}
    for token, text in enumerate(vocabulary.token_bytes):
        if text is None or not text.startswith(tentative.text) or text == tentative.text:
            continue
        more = text[len(tentative.text) :]
        if grammar is None:
            if any(more.startswith(stop.encode()) for stop in stops):
                continue
        else:
            after = grammar.snapshot()
            if not after.accept_text(more):
                continue
            if budget is not None and after.shortest > budget - 1:
                continue
        expected.add(token)
    assert read(row) == expected


# --- answers --------------------------------------------------------------------------------------


def run(client: LocalClient, prompt: Any, **options: Any) -> list[Chunk]:
    sampling = {"max_tokens": 8, "temperature": 0.0, **options.pop("sampling", {})}
    request = GenerateRequest(prompt, SamplingParams(**sampling), **options)
    return list(client.generate(request))


def text_of(chunks: list[Chunk]) -> str:
    return "".join(chunk.text for chunk in chunks)


def check(chunks: list[Chunk], prompt: str) -> None:
    """What the tokens, the text and the counts say agrees, and the prompt's text is untouched."""
    first, last = chunks[0], chunks[-1]
    assert first.prompt_ids is not None
    assert last.usage.prompt_tokens == len(first.prompt_ids)
    ids = [token for chunk in chunks for token in chunk.token_ids]
    assert last.usage.completion_tokens == len(ids)
    continued = spelled((*first.prompt_ids, *last.kept_ids)).decode("utf-8", "replace") + last.tail
    assert continued == prompt + text_of(chunks)


SAMPLINGS: dict[str, dict[str, Any]] = {
    "greedy": {},
    "sampled": {"temperature": 1.0},
    "cold": {"temperature": 0.3, "top_k": 5, "top_p": 0.9},
    "one token": {"max_tokens": 1, "temperature": 1.0},
    "penalties": {"frequency_penalty": 0.5, "repetition_penalty": 1.2},
    "stop": {"stop": ("e", "qu"), "temperature": 1.0, "max_tokens": 30},
    "stop, early": {"stop": ("c",), "logit_bias": tuple((i, 3.0) for i in range(257, SIZE))},
    "shown stop": {"stop": ("e",), "temperature": 1.0, "no_stop_trim": True},
    "stop ids": {"stop_token_ids": tuple(range(257, 290)), "temperature": 1.0},
    "regex": {"constraint": Regex("[a-z]{2,6} fox"), "max_tokens": 30, "temperature": 1.0},
    "tight": {"constraint": Regex("(ck|x){3,9}!"), "max_tokens": 8, "temperature": 1.0},
    "forced": {"constraint": Regex("ck brown fox")},
}


@pytest.mark.parametrize("name", SAMPLINGS)
@settings(
    deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(text=TEXTS, seed=st.integers(0, 1_000))
def test_prompt_and_output_are_the_text_of_the_tokens(
    client: LocalClient, name: str, text: str, seed: int
) -> None:
    sampling = {"seed": seed, **SAMPLINGS[name]}
    chunks = run(client, (Ids((40, 41)), Text(text)), sampling=sampling, heal=True)
    check(chunks, spelled((40, 41)).decode() + text)
    constraint = sampling.get("constraint")
    if constraint is not None and chunks[-1].finish.kind == "stop":  # type: ignore[union-attr]
        assert constraint_matches(constraint, text_of(chunks))
    client.control("check_integrity")


def constraint_matches(spec: Regex, text: str) -> bool:
    grammar = CompiledGrammar(spec, lower(spec, CompileLimits()), VOCABULARY, 10.0)
    return grammar.matches(text.encode())


def test_the_healed_token_is_the_one_that_the_whole_text_goes_on_with(client: LocalClient) -> None:
    """Cut within the greedy token after a text, the text is finished as if it had not been cut."""
    found = 0
    rng = np.random.default_rng(0)
    while found < 60:
        ids = tuple(int(token) for token in rng.integers(1, SIZE, 6))
        plain = run(client, (Ids(ids),), sampling={"ignore_eos": True})
        output = [token for chunk in plain for token in chunk.token_ids]
        piece = VOCABULARY.token_bytes[output[0]] or b""
        for size in range(1, len(piece)):
            try:
                begin = piece[:size].decode()
            except UnicodeDecodeError:
                continue
            prompt = (Ids(ids), Text(begin))
            if wire_of(prompt).tentative != len(CODEC.encode(prompt)) - len(ids):
                continue
            healed = run(client, prompt, sampling={"ignore_eos": True}, heal=True)
            assert [token for chunk in healed for token in chunk.token_ids] == output
            assert healed[0].prompt_ids == ids
            assert healed[0].text.encode() == piece[size:] or len(healed) == 1
            found += 1


def test_where_the_tokens_prove_right_nothing_differs(client: LocalClient) -> None:
    """The model keeps the prompt's tokens: same output as without healing, in as many steps."""
    bias = tuple((token, -100.0) for token in range(257, SIZE))  # no longer token is liked
    prompt = (Ids((40, 41)), Text("the brown fo"))
    assert wire_of(prompt).tentative
    outputs, steps = [], []
    for heal in (False, True):
        before = client.control("stats")["steps"]
        outputs.append(
            run(client, prompt, sampling={"logit_bias": bias, "seed": 3}, heal=heal, namespace="n")
        )
        steps.append(client.control("stats")["steps"] - before)
        client.control("flush_cache")
    assert [chunk.token_ids for chunk in outputs[0]] == [chunk.token_ids for chunk in outputs[1]]
    assert outputs[0][0].prompt_ids == outputs[1][0].prompt_ids
    assert steps[0] == steps[1]


Setup = dict[str, Any]


@pytest.mark.parametrize(
    "setup", [{"token_budget": 16}, {"max_drafts": 0}, {"max_running": 1}, {"jump_forward": False}]
)
def test_outputs_do_not_depend_on_how_the_work_is_cut(setup: Setup) -> None:
    prompts = ["the fo", "the fox is a do", "  ", "the na", "the quick br", "日"] * 3
    outputs: list[list[Any]] = []
    for options in ({}, setup):
        client = LocalClient(lambda options=options: build(**options), FILES)
        streams = [
            client.generate(
                GenerateRequest(
                    (Ids((40 + number, 41)), Text(text)),
                    SamplingParams(max_tokens=12, temperature=0.8, seed=number),
                    LogprobOptions(start=0, top=2) if number % 3 else None,
                    heal=True,
                )
            )
            for number, text in enumerate(prompts)
        ]
        outputs.append([summary(list(stream)) for stream in streams])
        client.control("check_integrity")
        client.close()
    for one, other in zip(*outputs, strict=True):
        assert one == other
    assert len({len(one[1]) for one in outputs[0]}) > 1


def summary(chunks: list[Chunk]) -> tuple[Any, ...]:
    ids = [token for chunk in chunks for token in chunk.token_ids]
    prompt = chunks[0].prompt_logprobs
    logprobs = [(one.token_id, round(one.logprob or 0.0, 3)) for c in chunks for one in c.logprobs]
    scored = (
        None if prompt is None else [(one.token_id, round(one.logprob or 0, 3)) for one in prompt]
    )
    return text_of(chunks), chunks[0].prompt_ids, ids, chunks[-1].kept_ids, logprobs, scored


def test_logprobs_are_of_the_drawn_tokens_and_pieces_of_the_output(client: LocalClient) -> None:
    options = LogprobOptions(start=0, top=1, text=True)
    bias = tuple((token, 30.0) for token in range(257, SIZE))
    prompt = (Ids((40, 41)), Text("the fo"))
    chunks = run(client, prompt, sampling={"logit_bias": bias}, logprobs=options, heal=True)
    entries = [entry for chunk in chunks for entry in chunk.logprobs]
    assert [entry.token_id for entry in entries] == [t for c in chunks for t in c.token_ids]
    assert b"".join(entry.piece or b"" for entry in entries).decode() == text_of(chunks)
    first = chunks[0]
    assert first.prompt_logprobs is not None and first.prompt_ids is not None
    assert tuple(entry.token_id for entry in first.prompt_logprobs) == first.prompt_ids
    assert len(first.prompt_ids) < len(CODEC.encode(prompt))  # it was healed
    # The same numbers as those of the same tokens, given as ids.
    again = run(
        client,
        (Ids(first.prompt_ids + (entries[0].token_id,)),),
        sampling={"max_tokens": 1},
        logprobs=LogprobOptions(start=0),
    )
    known = again[0].prompt_logprobs
    assert known is not None
    assert [e.logprob for e in known[1:]] == pytest.approx(
        [e.logprob for e in (*first.prompt_logprobs[1:], entries[0])], abs=1e-4
    )


def test_each_sample_is_healed_by_itself(client: LocalClient) -> None:
    prompt = "the quick brown fox jumps over the l"
    request = GenerateRequest(
        (Text(prompt),), SamplingParams(n=16, temperature=1.0, seed=5, max_tokens=4), heal=True
    )
    samples: dict[int, list[Chunk]] = {}
    for chunk in client.generate(request):
        samples.setdefault(chunk.index, []).append(chunk)
    for chunks in samples.values():
        check(chunks, prompt)
    assert len({chunks[0].prompt_ids for chunks in samples.values()}) > 1


def test_a_wire_request_without_a_token_to_stand_on_is_refused() -> None:
    loop = build()
    loop.submit(TokenRequest("x", (40, 41), SamplingParams(), 0, tentative=2))
    (message,) = loop.step()
    assert "tentative: 2 of a prompt of 2 tokens" in str(message.error)
    loop.close()
