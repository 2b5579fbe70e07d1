"""What crosses between a client and its engine: token ids only, frozen, picklable.

Owns: the two unions `ToEngine` and `FromEngine`. Knows no text, no tokenizer and no transport:
`LocalClient` hands these records over a queue, `ProcessClient` pickles them through a socket.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

from .protocol import (
    ControlAction,
    EngineInfo,
    FinishReason,
    LogprobOptions,
    SamplingParams,
    TokenLogprob,
    Usage,
)

# --- to the engine ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Probe:
    """Log-probabilities wanted of tokens that may follow: of `targets[i]` after the prompt's first
    `start + i` tokens, lastly after all of them."""

    start: int
    targets: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class TokenRequest:
    """One sample of one generation: the client sends n of these, `sampling.n` means nothing here.

    `id` is unique among the unfinished requests of an engine. `stream` is the 64-bit key of its
    random numbers. `tentative`: how many of the prompt's last tokens another may take the place of
    (`healing`); the chunks' `prompt_tokens` say how many prompt tokens have stayed. `probe`: of a
    request that generates nothing and reports nothing else; answered as `prompt_logprobs`, one
    after the other.
    """

    id: str
    prompt_ids: tuple[int, ...]
    sampling: SamplingParams
    stream: int
    logprobs: LogprobOptions | None = None
    namespace: str = ""
    tentative: int = 0
    probe: Probe | None = None


@dataclass(frozen=True)
class Abort:
    """Forget this request; nothing more is answered for its id."""

    id: str


@dataclass(frozen=True)
class Control:
    """Answered by one ControlResult or one Failed with the same id."""

    id: str
    action: ControlAction


ToEngine = TokenRequest | Abort | Control


# --- from the engine --------------------------------------------------------------------------


class TokenChunk(NamedTuple):  # made for every row of every step, see `batch`
    """Output tokens of one request, in order; the last chunk has `finish`.

    `prompt_logprobs` comes with the first chunk, if asked for. `cut` (last chunk only): how many
    bytes of the output remain after the stop was trimmed, counted over the bytes of all output
    tokens, special tokens counted only if the request shows them (`skip_special_tokens` off) and
    an end token never; None where all of it remains.
    """

    id: str
    token_ids: tuple[int, ...]
    usage: Usage
    logprobs: tuple[TokenLogprob, ...] = ()
    prompt_logprobs: tuple[TokenLogprob, ...] | None = None
    finish: FinishReason | None = None
    cut: int | None = None


@dataclass(frozen=True)
class Failed:
    """Ends a request or a control call: InvalidRequest, EngineError..."""

    id: str
    error: Exception


@dataclass(frozen=True)
class ControlResult:
    id: str
    result: dict[str, Any]


FromEngine = TokenChunk | Failed | ControlResult


# --- the beginning and the end of a child process ---------------------------------------------


@dataclass(frozen=True)
class Boot:
    """First message to a child: `factory`, "module:function", builds its engine from `args`."""

    factory: str
    args: tuple[Any, ...]


@dataclass(frozen=True)
class Ready:
    """The child's answer to Boot."""

    info: EngineInfo


@dataclass(frozen=True)
class Died:
    """The child's last message: why its engine could not be built, or died."""

    error: Exception
