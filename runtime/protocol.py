"""What callers say to a runtime and hear from it: frozen, plain, picklable records.

Owns: the fields of a request, their ranges (checked at construction, so that a bad value is refused
where it is written) and the fields of an answer. Knows no tokenizer, no tensor, no transport, and
imports no torch.
"""

import math
import os
import random
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal, get_args

# Passed on to `lang` and `server`, which import the runtime only.
from ..constrained.spec import Choice as Choice
from ..constrained.spec import Constraint as Constraint
from ..constrained.spec import Ebnf as Ebnf
from ..constrained.spec import JsonSchema as JsonSchema
from ..constrained.spec import Lark as Lark
from ..constrained.spec import Regex as Regex
from ..constrained.spec import StructuralTag as StructuralTag
from ..constrained.spec import dtype_constraint as dtype_constraint
from .errors import InvalidRequest

MAX_STOPS = 32  # stop strings or stop patterns of one request
MAX_TOKEN_IDS = 1_024  # stop token ids, or logit biases, of one request
MAX_TEMPERATURE = 1e6
MAX_TOP_K = 2**31 - 1
MAX_N = 128  # samples of one request


# --- prompt ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Ids:
    """Tokens that are already known; they are never decoded and tokenized again."""

    ids: tuple[int, ...]


@dataclass(frozen=True)
class Text:
    """Text still to be tokenized. Only `special=True` text (a chat template's) may parse into
    special tokens."""

    text: str
    special: bool = False


Part = Ids | Text
Prompt = tuple[Part, ...]


def as_prompt(prompt: "str | Iterable[int] | Prompt") -> Prompt:
    """A prompt from what people pass: a text (special tokens in it are parsed, as a tokenizer
    does), ids, or parts."""
    if isinstance(prompt, str):
        return (Text(prompt, special=True),)
    parts = tuple(prompt)
    if all(isinstance(part, Ids | Text) for part in parts):
        return parts  # type: ignore[return-value]
    return (Ids(_token_ids(parts)),)


def _token_ids(values: tuple[object, ...]) -> tuple[int, ...]:
    for position, value in enumerate(values):
        if isinstance(value, bool) or not isinstance(value, int):
            raise InvalidRequest(
                f"prompt: token id at position {position} must be an integer, got {value!r}",
                field="prompt",
            )
    return values  # type: ignore[return-value]


# --- sampling ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class SamplingParams:
    """How to choose tokens and when to stop. Defaults are SGLang's.

    `max_tokens` counts every produced token, forced ones too (0: prefill only; None: whatever the
    context and the cache have room for). `temperature` 0 is greedy. `top_k` -1 keeps all. Stop
    strings and patterns cut the text before their match unless `no_stop_trim`. `seed` None draws
    one.
    """

    max_tokens: int | None = 128
    min_tokens: int = 0
    n: int = 1
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    stop_regex: tuple[str, ...] = ()
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = -1
    min_p: float = 0.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    repetition_penalty: float = 1.0
    ignore_eos: bool = False
    logit_bias: tuple[tuple[int, float], ...] = ()
    seed: int | None = None
    constraint: Constraint | None = None
    skip_special_tokens: bool = True
    no_stop_trim: bool = False

    def __post_init__(self) -> None:
        if self.max_tokens is not None:
            _integer("max_tokens", self.max_tokens, 0)
        _integer("min_tokens", self.min_tokens, 0)
        if self.max_tokens is not None and self.min_tokens > self.max_tokens:
            raise InvalidRequest(
                f"min_tokens: {self.min_tokens} is more than max_tokens {self.max_tokens}",
                field="min_tokens",
            )
        _integer("n", self.n, 1, MAX_N)
        _number("temperature", self.temperature, 0.0, MAX_TEMPERATURE)
        _number("top_p", self.top_p, 0.0, 1.0, open_low=True)
        if self.top_k != -1:
            _integer("top_k", self.top_k, 1, MAX_TOP_K)
        _number("min_p", self.min_p, 0.0, 1.0)
        _number("frequency_penalty", self.frequency_penalty, -2.0, 2.0)
        _number("presence_penalty", self.presence_penalty, -2.0, 2.0)
        _number("repetition_penalty", self.repetition_penalty, 0.0, 2.0, open_low=True)
        _strings("stop", self.stop)
        _strings("stop_regex", self.stop_regex)
        if self.stop_regex:
            from .stop_patterns import compile_stop_pattern  # a slow import that few need

            for pattern in self.stop_regex:
                compile_stop_pattern(pattern)
        for token in _sequence("stop_token_ids", self.stop_token_ids, MAX_TOKEN_IDS):
            _integer("stop_token_ids", token, 0)
        for pair in _sequence("logit_bias", self.logit_bias, MAX_TOKEN_IDS):
            if not isinstance(pair, tuple) or len(pair) != 2:
                raise InvalidRequest(
                    f"logit_bias: {pair!r} is not a pair (token id, bias)", field="logit_bias"
                )
            _integer("logit_bias", pair[0], 0)
            _number("logit_bias", pair[1], -100.0, 100.0)
        if self.seed is not None:
            _integer("seed", self.seed, -(2**63), 2**64 - 1)
        for name in ("ignore_eos", "skip_special_tokens", "no_stop_trim"):
            if not isinstance(getattr(self, name), bool):
                raise InvalidRequest(
                    f"{name}: {getattr(self, name)!r} is not true or false", field=name
                )
        if self.constraint is not None and not isinstance(self.constraint, Constraint):
            raise InvalidRequest(
                f"constraint: {self.constraint!r} is not a constraint", field="constraint"
            )


def _integer(name: str, value: object, low: int, high: int | None = None) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidRequest(f"{name}: {value!r} is not an integer", field=name)
    if value < low or (high is not None and value > high):
        bounds = f"at least {low}" if high is None else f"from {low} to {high}"
        raise InvalidRequest(f"{name}: {value} must be {bounds}", field=name)


def _number(name: str, value: object, low: float, high: float, *, open_low: bool = False) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidRequest(f"{name}: {value!r} is not a number", field=name)
    if isinstance(value, float) and not math.isfinite(value):
        raise InvalidRequest(f"{name}: {value} is not a finite number", field=name)
    if not low <= value <= high or (open_low and value == low):
        start = "more than" if open_low else "at least"
        shown = str(value) if abs(value) < 10**20 else "a huge number"
        message = f"{name}: {shown} must be {start} {low:g} and at most {high:g}"
        raise InvalidRequest(message, field=name)


def _sequence(name: str, value: object, most: int) -> tuple[Any, ...]:
    if not isinstance(value, tuple):
        raise InvalidRequest(f"{name}: {value!r} is not a tuple", field=name)
    if len(value) > most:
        raise InvalidRequest(
            f"{name}: {len(value)} entries, at most {most} are allowed", field=name
        )
    return value


def _strings(name: str, value: object) -> None:
    for item in _sequence(name, value, MAX_STOPS):
        if not isinstance(item, str) or not item:
            raise InvalidRequest(f"{name}: {item!r} is not a non-empty text", field=name)
        if any("\ud800" <= char <= "\udfff" for char in item):
            raise InvalidRequest(f"{name}: {item!r} holds half of a surrogate pair", field=name)


def _texts(**values: object) -> None:
    for name, value in values.items():
        if not isinstance(value, str):
            raise InvalidRequest(f"{name}: {value!r} is not a text", field=name)


@dataclass(frozen=True)
class LogprobOptions:
    """Which log-probabilities to report, of the model's own distribution (before temperature, bias
    and mask).

    Output tokens always; prompt tokens from position `start` (-1: none); the `top` likeliest beside
    each (0: none). `text`: also spell every token (`TokenLogprob.piece`). With
    `max_tokens` 0 and a `top`, the one output entry is what may come next; nothing is output.
    """

    start: int = -1
    top: int = 0
    text: bool = False

    def __post_init__(self) -> None:
        _integer("logprob_start_len", self.start, -1)
        _integer("top_logprobs_num", self.top, 0, 128)


# --- requests ----------------------------------------------------------------------------------


# Names, not secrets. The system's own randomness would give up Python's lock at every request.
_ids = random.Random()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_ids.seed)


def new_request_id() -> str:
    return f"{_ids.getrandbits(64):016x}"


@dataclass(frozen=True)
class Turn:
    """One message of a conversation, or as much of it as is said."""

    role: str
    text: str


@dataclass(frozen=True)
class GenerateRequest:
    """One generation. `namespace` keeps its cached prefixes apart from other namespaces'.

    `random_path` tells apart the generations of one seeded program (fork path and gen ordinal), see
    `text.stream_key`. `turns`: the conversation that the prompt shows, the message to be continued
    last; given to back ends that know no ids. `heal`: where the prompt's
    last text may end inside a would-be token, let the model choose that token (`healing`); its
    first part is prompt, the rest is output.
    """

    prompt: Prompt
    sampling: SamplingParams = field(default_factory=SamplingParams)
    logprobs: LogprobOptions | None = None
    namespace: str = ""
    request_id: str = field(default_factory=new_request_id)
    random_path: tuple[int, ...] = ()
    turns: tuple[Turn, ...] = ()
    heal: bool = False

    def __post_init__(self) -> None:
        _texts(namespace=self.namespace, request_id=self.request_id)
        if not isinstance(self.heal, bool):
            raise InvalidRequest(f"heal: {self.heal!r} is not true or false", field="heal")
        for number in _sequence("random_path", self.random_path, MAX_TOKEN_IDS):
            _integer("random_path", number, 0)


Bound = Literal["columns", "means"]
"""A rule by which options that can no longer win are known: see `contenders`."""


@dataclass(frozen=True)
class ScoreRequest:
    """How likely is each option as the continuation of the prompt? One engine call for all of them.

    `unconditional`: also score every option with no prompt before it. `bound`: once one option
    alone can win by this rule, the tokens that are not scored yet may be left out.
    """

    prompt: Prompt
    options: tuple[str, ...]
    unconditional: bool = False
    namespace: str = ""
    request_id: str = field(default_factory=new_request_id)
    bound: Bound | None = None

    def __post_init__(self) -> None:
        _texts(namespace=self.namespace, request_id=self.request_id)
        if self.bound not in (None, *get_args(Bound)):
            raise InvalidRequest(
                f"bound: {self.bound!r} is none of {list(get_args(Bound))}", field="bound"
            )
        if self.bound is not None and self.unconditional:
            raise InvalidRequest(
                f"bound: {self.bound!r} says nothing of scores with no prompt", field="bound"
            )
        if not self.options:
            raise InvalidRequest("choices: at least one is needed", field="choices")
        for option in self.options:
            if not isinstance(option, str) or not option:
                raise InvalidRequest(
                    f"choices: {option!r} is not a non-empty text", field="choices"
                )


# --- answers -----------------------------------------------------------------------------------


class FinishKind(StrEnum):
    STOP = "stop"
    LENGTH = "length"


@dataclass(frozen=True)
class FinishReason:
    """Why a generation ended. `matched`: the stop string, pattern or token id; None where a grammar
    ended."""

    kind: FinishKind
    matched: str | int | None = None

    def as_dict(self, num_tokens: int) -> dict[str, Any]:
        """The finish reason in the words of the HTTP surface."""
        if self.kind is FinishKind.LENGTH:
            return {"type": "length", "length": num_tokens}
        return {"type": "stop", "matched": self.matched}


@dataclass(frozen=True)
class TokenLogprob:
    """One token's log-probability (None for a prompt's first token) and the likeliest tokens at its
    position.

    `piece` and `top_pieces`: the bytes of the token and of each of `top`, filled in by the client
    if asked for.
    """

    token_id: int
    logprob: float | None
    top: tuple[tuple[int, float], ...] = ()
    piece: bytes | None = None
    top_pieces: tuple[bytes, ...] = ()


@dataclass(frozen=True)
class Usage:
    """Token counts so far. `cached_tokens`: prompt tokens whose KV was not computed again for this
    request.

    `forced_tokens`: output tokens that the grammar dictated (jump-forward), part of
    `completion_tokens`.
    """

    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    forced_tokens: int
    num_preemptions: int = 0


@dataclass(frozen=True)
class Chunk:
    """A piece of one sample's answer, in order. The last one has `finish`.

    `text` is safe to show: it never contains half a character nor the begin of a possible stop
    string. Where the output ends within a character, `text` and `tail` end before it; bytes that
    are no UTF-8 are U+FFFD. The first chunk of a sample carries `prompt_ids` (the tokens really
    used) and the prompt's log-probabilities, if asked. The last one carries `kept_ids`, all output
    tokens that end before the cut, and `tail`, the text between them and the cut: `prompt_ids`,
    `kept_ids` and `tail` together spell the prompt and the output.

    Of a healed prompt, `prompt_ids` are the tokens before the first one drawn, whose text is what
    it spells beyond the prompt's. If that is cut, the prompt's own tokens stand in `kept_ids`.
    """

    index: int
    text: str
    token_ids: tuple[int, ...]
    usage: Usage
    logprobs: tuple[TokenLogprob, ...] = ()
    prompt_ids: tuple[int, ...] | None = None
    prompt_logprobs: tuple[TokenLogprob, ...] | None = None
    finish: FinishReason | None = None
    kept_ids: tuple[int, ...] = ()
    tail: str = ""


@dataclass(frozen=True)
class OptionScore:
    """One option's tokens after the boundary common to all options, and their log-probabilities
    given the prompt: of all tokens, or of the first ones where the request's `bound` decided
    without the others. Options of the same tokens have the same numbers.

    `unconditional` holds the same tokens' log-probabilities with no prompt (None for the first),
    when asked for.
    """

    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    unconditional: tuple[float | None, ...] = ()


@dataclass(frozen=True)
class Scores:
    """The answer to a ScoreRequest. `prompt_ids` are the prompt's tokens, the healed ones before
    the boundary left out.

    A program that takes option i continues from `prompt_ids + options[i].token_ids`.
    """

    prompt_ids: tuple[int, ...]
    options: tuple[OptionScore, ...]
    usage: Usage


Speech = Literal["ids", "text", "messages"]
"""What a prompt is to a back end: token ids that it hands out and takes back, text that it
continues, or the messages of a conversation."""


@dataclass(frozen=True)
class Abilities:
    """What a back end can do: our engines everything, a remote API less.

    `options`: the fields of SamplingParams that may differ from their defaults (None: all).
    `constraints`: the names of the kinds of constraint (None: all). `select`, `logprobs`: whether
    it tells log-probabilities of given text, and of what it generates. `prefill`: whether a message
    of the assistant may have text before its gen (of interest with "messages" only).
    """

    speaks: Speech = "ids"
    options: tuple[str, ...] | None = None
    constraints: tuple[str, ...] | None = None
    select: bool = True
    logprobs: bool = True
    prefill: bool = True


@dataclass(frozen=True)
class EngineInfo:
    """What a client must know of the engine that it talks to. A number that a remote one does not
    tell is 0. `template_stop`: stop strings that the chat template wants in every generation."""

    model: str
    context_length: int
    vocab_size: int
    max_tokens_in_cache: int
    page_size: int
    dtype: str
    chat_template: str | None
    special_tokens: dict[str, str]  # bos_token, eos_token, ... as the chat template calls them
    eos_ids: tuple[int, ...]
    template_stop: tuple[str, ...] = ()
    abilities: Abilities = Abilities()


ControlAction = Literal["stats", "flush_cache", "check_integrity"]
